"""Values that YAML reads differently from how they look are refused, wherever settings are written."""

import os
from pathlib import Path

import pytest

from pipeline.config.resolution import resolve
from pipeline.errors import ConfigError
from pipeline.search.space import space_for
from pipeline.tracking import settings as mlflow_settings
from pipeline.workspace.paths import Workspace
from pipeline.yaml_files import LARGEST_BYTES, YamlError, parse, read_mapping

SURPRISES = {
    "yes": "yes is a truth value here",
    "No": "No is a truth value here",
    "on": "on is a truth value here",
    "OFF": "OFF is a truth value here",
    "010": "010 is a number in base 8 here",
    "08": "08 is a number in base 8 here",
    "1:30": "1:30 is a number in base 60 here",
    "1:30.5": "1:30.5 is a number in base 60 here",
    "2026-01-01": "2026-01-01 is a date here",
    "!!python/name:os.system x": "has no meaning here",
    "!!binary aGk=": "has no meaning here",
    "!!set {a, b}": "has no meaning here",
    '"\\0"': "an invalid character",
    '"\\ud800"': "an invalid character",
    "{a: 1, b: 2, a: 3}": "a is given twice (first on line",
    "{a: {b: 1, b: 1}}": "b is given twice",
    "{1: 2}": "must be text",
    "{yes: 2}": "yes is a truth value here",
}
AS_IT_LOOKS = {
    "true": True,
    "False": False,
    "'yes'": "yes",
    "1_000": 1000,
    "0x10": 16,
    "-3": -3,
    "0": 0,
    "0.5": 0.5,
    "1e-3": "1e-3",  # the config makes a number of it
    "~": None,
    "y": "y",
    "'010'": "010",
    "{<<: {a: 1, b: 2}, a: 3}": {"a": 3, "b": 2},
    "{<<: [{a: 1}, {a: 2, b: 3}]}": {"a": 1, "b": 3},
    "[&x {a: 1}, *x]": [{"a": 1}, {"a": 1}],
}


@pytest.mark.parametrize(("text", "says"), SURPRISES.items())
def test_a_value_that_reads_differently_is_refused_with_its_line_and_reading(text, says):
    with pytest.raises(YamlError) as caught:
        parse(f"# a comment\nkey: {text}\n")
    assert str(caught.value).startswith("line 2: ")
    assert says in str(caught.value)


@pytest.mark.parametrize(("text", "value"), AS_IT_LOOKS.items())
def test_a_value_that_reads_as_it_looks_is_accepted(text, value):
    assert parse(text) == value
    assert type(parse(text)) is type(value)


@pytest.mark.parametrize(("text", "says"), [("yes", "yes is a truth value"), ("{a: 1, a: 2}", "a is given twice")])
def test_every_reader_refuses_it(tmp_path, text, says):
    file = tmp_path / "mlflow.yaml"
    file.write_text(f"experiment: {text}\n")
    readers = {
        "--config": lambda: resolve(file=file),
        "--space": lambda: space_for(resolve(), file),
        "mlflow.yaml": lambda: mlflow_settings.load(Workspace(tmp_path), {}),
        "--set": lambda: resolve(sets=[f"train.epochs={text}"]),
    }
    for name, read in readers.items():
        with pytest.raises(ConfigError) as caught:
            read()
        assert says in str(caught.value), name
        assert ("line 1" in str(caught.value)) == (name != "--set" or "twice" in says)


def test_numbers_written_in_other_ways_keep_working():
    config = resolve(sets=["train.learning_rate=1e-3", "train.epochs=3.0", "train.batch_size=1_000", "seed=0x10"])
    assert (config.train.learning_rate, config.train.epochs, config.train.batch_size, config.seed) == (
        1e-3,
        3,
        1000,
        16,
    )


def test_aliases_of_aliases_are_refused_before_they_fill_the_memory():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    with pytest.raises(YamlError, match="more than"):
        parse("\n".join(lines))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\xff\xfes\0e\0", "not UTF-8"),
        (b"seed: \xff", "not UTF-8"),
        (b"s\0e\0", "not valid YAML"),
        (b"seed: 1\n---\nseed: 2\n", "not valid YAML"),
        (b"train:\n\tepochs: 1\n", "not valid YAML"),
        (b"- 1\n", "must be a mapping"),
        (b"seed\n", "must be a mapping"),
        (b"# " + b"x" * LARGEST_BYTES, "larger than 256 KB"),
    ],
)
def test_a_file_that_cannot_be_settings_is_one_line(tmp_path, content, says):
    file = tmp_path / "run.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_mapping(file, "seed: 1")
    assert str(caught.value).startswith(f"{file}: ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\n", b"---\n", b"# nothing\n", b"\xef\xbb\xbf"])
def test_an_empty_file_has_no_settings(tmp_path, content):
    file = tmp_path / "run.yaml"
    file.write_bytes(content)
    assert read_mapping(file, "seed: 1") == {}


def test_a_byte_order_mark_and_the_line_ends_of_windows_are_no_trouble(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_bytes(b"\xef\xbb\xbfseed: 1\r\ntrain:\r\n  epochs: 2\r\n")
    assert read_mapping(file, "seed: 1") == {"seed": 1, "train": {"epochs": 2}}


def test_a_pipe_is_refused_without_waiting(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero"), tmp_path, Path("~nobody-of-this-name/x"), Path("a\0b")):
        with pytest.raises(ConfigError, match="cannot be read"):
            read_mapping(path, "seed: 1")


def test_a_missing_file_is_named_with_its_full_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        read_mapping(Path("runs/x.yaml"), "seed: 1")
    assert str(caught.value) == f"runs/x.yaml: no such config file ({tmp_path}/runs/x.yaml)"


def test_a_file_may_have_as_many_bytes_as_the_limit_and_no_more(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text("seed: 1\n".ljust(LARGEST_BYTES))
    assert read_mapping(file, "seed: 1") == {"seed": 1}
    file.write_text("seed: 1\n".ljust(LARGEST_BYTES + 1))
    with pytest.raises(ConfigError, match="larger than 256 KB"):
        read_mapping(file, "seed: 1")


@pytest.mark.parametrize(("length", "shown"), [(60, "0" * 60), (61, "0" * 57 + "...")])
def test_a_long_value_is_cut_in_a_message(length, shown):
    with pytest.raises(YamlError) as caught:
        parse("0" * length)
    assert f"line 1: {shown} is a number in base 8" in str(caught.value)
