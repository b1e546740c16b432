"""Searches that are killed, interrupted, out of time, or in which everything fails: nothing lost, nothing twice."""

import contextlib
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
from product import SEQPIPE, Place, Terminal, leave, tiny

SPACE = "train.learning_rate: {uniform: [0.001, 0.01]}\n"
# about 4 s a trial
WORDS = [*tiny("vanilla", train__epochs=6, train__batch_size=4, data__fraction=0.5), "--space", "space.yaml"]
SEARCH = ["tune", *WORDS, "--trials", "3", "--scheduler", "none", "--concurrency", "1"]


@pytest.fixture
def place(place):
    (place.root / "space.yaml").write_text(SPACE)
    return place


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("undisturbed"))
    (place.root / "space.yaml").write_text(SPACE)
    done = place.run(*SEARCH, timeout_s=240)
    assert done.code == 0, done.err
    return figures(place)


def ledger(place):
    found = list((place.root / ".seqpipe" / "searches").glob("*/ledger.jsonl"))
    if not found:
        return []
    lines = found[0].read_bytes().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def reports(place, row):
    return [each for each in ledger(place) if each["event"] == "report" and each["row"] == row]


def kept_checkpoints(place, row):
    return list((place.root / ".seqpipe" / "searches").glob(f"*/checkpoints/row-{row:05d}/[0-9]*"))


def figures(place):
    """Configurations and every epoch's figures, the timings aside; an epoch that was told again counts once."""
    rows = {}
    for each in ledger(place):
        if each["event"] == "proposed":
            rows[each["row"]] = {"config": each["config"]}
        elif each["event"] == "report":
            metrics = {key: value for key, value in each["metrics"].items() if key != "images_per_second"}
            told = {"value": each["value"], **metrics}
            assert rows[each["row"]].setdefault(each["epoch"], told) == told
    return rows


def statuses(place):
    records = [
        json.loads(path.read_bytes())
        for path in (place.root / ".seqpipe" / "runs").glob("search-*.json")
        if "@" not in path.name
    ]
    return {record["name"]: record["status"] for record in records}


def family(process):
    """Everything that a command has started, the guarded trials included."""
    below = psutil.Process(process.pid).children(recursive=True)
    trials = []
    for each in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if "tuning.capped.watchdog" in " ".join(each.cmdline()) and each.cwd().startswith(_ray_of(below)):
                trials += [each, *each.children(recursive=True)]
    return [*below, *trials]


def _ray_of(below):
    for each in below:
        with contextlib.suppress(psutil.Error):
            found = re.search(r"(/\S*/ray-[^/\s]+)/", " ".join(each.cmdline()))
            if found:
                return found[1]
    return "no ray"


def gone(processes, within_s):
    _, left = psutil.wait_procs(processes, timeout=within_s)
    return [each for each in left if each.is_running() and each.status() != psutil.STATUS_ZOMBIE] == []


def in_the_second_trial(place):
    process = place.start(*SEARCH)
    assert place.wait_for(lambda: len(reports(place, 1)) >= 2 and kept_checkpoints(place, 1), process, 90, 0.05)
    return process


def test_killed_a_search_goes_on_from_its_checkpoints_and_tells_everything_once(place, undisturbed):
    process = in_the_second_trial(place)
    others = family(process)
    assert len(others) > 5
    process.kill()
    process.wait()
    assert gone(others, 15), "no process outlives the search"
    assert statuses(place)["trial 001"] == "RUNNING"
    place.set(MLFLOW_TRACKING_URI=None)
    done = place.run(*SEARCH, timeout_s=240)
    assert done.code == 0, done.err
    assert "going on: 1 of 3 trials" in done.err
    assert figures(place) == undisturbed
    starts = [each["row"] for each in ledger(place) if each["event"] == "started"]
    assert starts == [0, 1, 1, 2], "what was done stays done, what was interrupted goes on"
    assert set(statuses(place).values()) == {"FINISHED"}
    client = _client(place)
    found = client.search_runs(["1"], max_results=50)
    assert len(found) == 4
    for run in found:
        if run.data.tags["seqpipe.kind"] == "trial":
            epochs = [each.step for each in client.get_metric_history(run.info.run_id, "validation/accuracy")]
            assert sorted(epochs) == [1, 2, 3, 4, 5, 6]


def _client(place):
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{place.root}/mlflow.db")


def test_ctrl_c_and_sigterm_leave_in_order_and_the_same_command_goes_on(place, undisturbed):
    for number, name in ((signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")):
        process = place.start(*SEARCH)
        known = len(ledger(place))
        assert place.wait_for(
            lambda known=known: [one for one in ledger(place)[known:] if one["event"] == "report"], process, 90, 0.05
        )
        others = family(process)
        left = leave(process, number, timeout_s=60)
        assert left.code == 128 + number, left.err
        assert left.errors == [f"seqpipe: interrupted ({name}); the same command resumes from where it was"]
        assert left.seconds < 15
        assert gone(others, 5)
        assert set(statuses(place).values()) <= {"KILLED", "FINISHED"}
    done = place.run(*SEARCH, timeout_s=240)
    assert done.code == 0, done.err
    assert figures(place) == undisturbed


def test_a_closed_terminal_leaves_in_order_and_a_reader_that_left_is_not_missed(place, undisturbed):
    terminal = Terminal(place, SEQPIPE, *SEARCH)
    assert place.wait_for(lambda: reports(place, 0), terminal, 90, 0.05)
    others = psutil.Process(terminal.pid).children(recursive=True)
    terminal.close()
    assert terminal.wait(20) == 129
    assert gone(others, 5)
    assert kept_checkpoints(place, 0)
    assert set(statuses(place).values()) <= {"KILLED", "FINISHED"}
    process = place.start(*SEARCH)
    process.stderr.close()
    process.stdout.close()
    assert process.wait(240) == 0
    assert figures(place) == undisturbed


def test_a_second_ctrl_c_ends_at_once_and_loses_nothing_durable(place, undisturbed):
    process = in_the_second_trial(place)
    others = family(process)
    process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    left = leave(process, signal.SIGINT)
    assert left.code == 130, left.err
    assert "Traceback" not in left.err
    assert gone(others, 15)
    done = place.run(*SEARCH, timeout_s=240)
    assert done.code == 0, done.err
    assert figures(place) == undisturbed


def test_out_of_time_a_search_leaves_with_4_and_what_it_has(place, undisturbed):
    done = place.run(*SEARCH, "--max-time", "14s")
    assert done.code == 4, done.err
    assert done.errors == ["seqpipe: --max-time of 14 s is used up; the same command resumes from the checkpoint"]
    assert "trial  outcome" in done.out
    done = place.run(*SEARCH, timeout_s=240)
    assert done.code == 0, done.err
    assert figures(place) == undisturbed


def test_when_every_trial_fails_the_first_error_is_said_once(place):
    assert place.run("run", "prepare", *WORDS[:-2]).code == 0
    array = place.whole("prepare") / "train_labels.npy"
    whole = array.read_bytes()
    array.write_bytes(whole[:-1] + b"\7")
    done = place.run(*SEARCH, timeout_s=120)
    assert done.code == 1, done.err
    assert done.err.count("altered since it was prepared") == 1
    assert "every trial failed, the first with: " in done.errors[0]
    assert "Traceback" not in done.err
    assert set(statuses(place).values()) == {"FAILED"}
    array.unlink()
    done = place.run(*SEARCH, timeout_s=120)
    assert done.code == 1, done.err
    [line] = done.errors
    assert "train_labels.npy: missing since it was prepared; remove the folder" in line
    array.write_bytes(whole)
    done = place.run(*SEARCH, timeout_s=240)
    assert done.code == 0, done.err
    assert "3 of 3 trials (3 completed)" in done.out, "what is mended is tried again"


def test_a_cap_below_the_imports_is_refused_with_the_floor_and_nothing_begun(place):
    done = place.run(*SEARCH, "--trial-memory-mb", "60")
    assert done.code == 6, done.err
    [line] = done.errors
    assert 60 < int(re.search(r"its imports alone take (\d+) MB", line)[1]) < 600
    assert not list((place.root / ".seqpipe" / "searches").glob("*/*"))


def test_fresh_says_what_it_discards_and_begins_anew(place):
    words = ["tune", *tiny("vanilla", train__epochs=1), "--space", "space.yaml", "--trials", "1"]
    assert place.run(*words).code == 0
    [key] = [name.stem for name in (place.root / ".seqpipe/runs").glob("search-*.json") if name.stem.count("-") == 2]
    first = ledger(place)
    done = place.run(*words, "--fresh")
    assert done.code == 0, done.err
    assert re.search(r"--fresh, in place of 1 of 1 trials, best \d", done.err)
    assert re.search(r"the search \w+ from before is discarded", done.err)
    assert [each["event"] for each in ledger(place)] == [each["event"] for each in first]
    assert ledger(place) != first
    keys = {name.stem for name in (place.root / ".seqpipe/runs").glob("search-*.json") if name.stem.count("-") == 2}
    assert key in keys
    assert len(keys) == 2, "other runs in MLflow: those of before keep what they had"


def test_two_at_once_the_second_waits_and_has_nothing_to_do(place):
    words = ["tune", *tiny("vanilla", train__epochs=1), "--space", "space.yaml", "--trials", "1"]
    first = place.start(*words)
    assert place.wait_for(lambda: ledger(place), first, 60)
    second = place.run(*words)
    assert first.wait(60) == 0
    assert second.code == 0, second.err
    assert re.search(rf"waiting for search \w+: held by process {first.pid}", second.err)
    assert "nothing to do" in second.out


def test_one_seed_proposes_the_same_configurations(place, undisturbed):
    done = place.run(*SEARCH, timeout_s=240)
    assert done.code == 0, done.err
    assert figures(place) == undisturbed


@pytest.fixture
def head(place):
    """A Ray cluster of two cores that the search did not start."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place.set(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="0" * 32)
    folder = tempfile.mkdtemp(prefix="r-", dir="/tmp")
    words = [
        str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--port", str(port),
        "--num-cpus", "2", "--memory", "3000000000", "--object-store-memory", "80000000",
        "--include-dashboard", "false", "--temp-dir", folder, "--node-ip-address", "127.0.0.1",
    ]  # fmt: skip
    ray = subprocess.Popen(words, env=place.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        time.sleep(0.2)
    time.sleep(4)
    yield f"127.0.0.1:{port}"
    below = psutil.Process(ray.pid).children(recursive=True)
    ray.terminate()
    ray.wait(30)
    gone(below, 10)
    shutil.rmtree(folder, ignore_errors=True)


def test_the_same_search_runs_on_a_cluster_that_is_there_already(place, head, undisturbed):
    done = place.run(*SEARCH, "--address", head, "--trial-memory-mb", "700", timeout_s=240)
    assert done.code == 0, done.err
    assert figures(place) == undisturbed
    refused = place.run(*SEARCH, "--extend", "1", "--address", head, "--trial-memory-mb", "9000")
    assert refused.code == 6, refused.err
    assert "the largest cap that fits now is " in refused.errors[0]
