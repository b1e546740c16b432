"""Whatever words a command is given, it ends with 0 or 2 and without a traceback."""

import contextlib
import io
import signal
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import stop
from pipeline.cli.app import main

KEYS = st.sampled_from([
    "seed", "data", "data.source", "data.classes", "data.fraction", "data.folder", "model", "model.name",
    "model.dims", "model.depths", "model.hidden", "train", "train.epochs", "train.learning_rate", "train.augment",
    "evaluate.mistakes", "compute.device", "compute.max_time_s", "trian.epochs", "a.b.c", "", ".", "model.", "..",
])  # fmt: skip
TEXT = st.text(st.characters(exclude_characters="\0"), max_size=8)
VALUES = TEXT | st.sampled_from([
    "1", "-1", "0", "0.5", "1e999", "nan", ".nan", "null", "true", "[]", "[cat,dog]", "{}", "{a: 1}", "small",
    "vanilla", "all", "&a [*a]", "&a {b: *a}", "!!python/object:os.system", "2020-13-45", "9" * 5000, "[" * 200, "~x",
    "*nobody", "\udcff", "'", "é",
])  # fmt: skip
SETS = st.one_of(st.builds("{}={}".format, KEYS, VALUES), TEXT).map(lambda text: ["--set", text])
FLAGS = st.one_of(
    VALUES.map(lambda text: ["--seed", text]),
    VALUES.map(lambda text: ["--max-time", text]),
    VALUES.map(lambda text: ["--model", text]),
    VALUES.map(lambda text: ["--recipe", text]),
    VALUES.map(lambda text: ["--device", text]),
    TEXT.filter(lambda text: "/" not in text).map(lambda text: ["--config", f"{text}.yaml"]),
    st.sampled_from([["--json"], ["--fresh"], ["--debug"], ["--dry-run"], ["--nonsense"], ["-x"], ["--"], [""]]),
)
COMMANDS = st.sampled_from([
    ["run", "all", "--dry-run"], ["run", "train", "--dry-run"], ["run", "nothing", "--dry-run"], ["run", "--dry-run"],
    ["config"], ["config", "show"], ["config", "schema"], ["config", "recipes"], ["status"],
    ["gc", "--dry-run"], ["report"], ["report", "--all"], ["nonsense"], [],
])  # fmt: skip
WORDS = st.builds(
    lambda command, options: [*command, *(word for option in options for word in option)],
    COMMANDS, st.lists(SETS | FLAGS, max_size=4),
)  # fmt: skip


@pytest.fixture
def edge(monkeypatch, tmp_path):
    """The command line in this process; signals and hooks are put back."""
    handlers = {number: signal.getsignal(number) for number in stop.STOP_SIGNALS}
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    monkeypatch.chdir(tmp_path)
    yield lambda words: run(monkeypatch, words)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def run(monkeypatch, words):
    """Exit code, stdout, stderr."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", errors=how) for how in ("strict", "backslashreplace"))
    monkeypatch.setattr(sys, "argv", ["seqpipe", *words])
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main()
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode())
    return ended.value.code, *texts


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
@given(words=WORDS)
def test_no_words_end_in_a_traceback(edge, words):
    code, _, err = edge(words)
    assert code in (0, 2), (words, err)
    assert "unexpected error" not in err
    assert "Traceback" not in err or "--debug" in words
    if code == 2 and words and "--debug" not in words:
        assert 1 <= len(err.splitlines()) <= 2, (words, err)


def test_the_fuzzed_edge_would_show_a_fault(edge, monkeypatch):
    monkeypatch.setattr("pipeline.config.resolution.resolve", lambda *_: 1 / 0)
    code, _, err = edge(["config", "show"])
    assert code == 1
    assert err.startswith(
        "seqpipe: unexpected error: ZeroDivisionError: division by zero\nThis is a fault in seqpipe"
    )
