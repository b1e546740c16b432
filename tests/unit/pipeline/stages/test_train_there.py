"""A training that is sent to another laptop, which here is another folder: no Ray, and no process of its own."""

import dataclasses
import json
import pickle
import shutil
from contextlib import contextmanager

import pytest

from pipeline.errors import (
    BudgetExhaustedError,
    InterruptedRunError,
    MachineUnfitError,
    MemoryCapError,
    SeqpipeError,
    TrainingDivergedError,
    WorkspaceError,
)
from pipeline.search.trial import TrainTrial
from pipeline.stages import train, train_there
from pipeline.stages.context import TrainingNode
from pipeline.stages.train_there import INTERRUPTED, TIME_IS_UP, durable_offset
from pipeline.stop import StopToken
from pipeline.tracking import delivery_state
from pipeline.tracking.journal import FILE_NAME, read
from pipeline.training import numerics_file
from pipeline.training.checkpoint import load_weights
from tuning.capped.run_capped import Capped, CapTooLowError
from tuning.cluster.node_record import TrialOnNode
from tuning.errors import AskedToLeaveError, ClusterError, NodeLostError
from tuning.on_ray import cluster, remote_call
from tuning.on_ray.shared_files import SharedFiles
from tuning.remote_work import Fetched, Said, plain_files

NODE = TrainingNode("B", "192.168.1.10:6480", "token")


class There:
    """The other laptop. `leaves_at` is the question at which it asks the training to leave, and in which word."""

    def __init__(self, folder):
        self.folder = folder
        self.leaves_at = None
        self.raises = None
        self.ends = None
        self.joined = []
        self.call = None
        self.shown = []

    @contextmanager
    def join(self, address, should_stop, token):
        self.joined.append((address, token))
        yield

    def run(self, call, listener, stop_reason):
        self.call, self.listener, self.stop_reason = call, listener, stop_reason
        if self.raises is not None:
            raise self.raises
        if self.ends is not None:
            return self.ends
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(call.folder, self.folder)
        shared = self.folder.with_name("shared")
        shutil.rmtree(shared, ignore_errors=True)
        shared.mkdir()
        for path in call.shared_files:
            shutil.copy(path, shared)
        value = pickle.loads(pickle.dumps(call.function))(Work(self, shared))  # noqa: S301
        return capped(pickle.dumps(value))


class Work:
    """What the function has there; what it brings home is home at once."""

    cap_mb = 2000.0

    def __init__(self, there, shared):
        self.there, self.folder, self.shared_files = there, there.folder, shared
        self.questions = 0

    def send(self, message, *, passing=False):
        said = Said(pickle.dumps(message), passing)
        self.there.listener.on_message(pickle.loads(said.body))  # noqa: S301

    def show(self, task):
        self.there.shown.append(task)

    def bring_home(self):
        home = self.there.call.folder
        names = [path.name for path in plain_files(self.folder)]
        for name in names:
            shutil.copy(self.folder / name, home / name)
        for path in plain_files(home):
            if path.name not in names:
                path.unlink()
        self.there.listener.on_files()

    @property
    def stop_reason(self):
        self.questions += 1
        at, word = self.there.leaves_at or (None, None)
        return word if at is not None and self.questions >= at else None


def capped(value=None, outcome="completed", **words):
    return Capped(**{"error": None, "traceback": None, "signal": None, "stop_reason": None, "peak_mb": 900.0,
                     "floor_mb": 300.0, "cap_mb": 800.0, "duration_s": 1.0, "outcome": outcome, "value": value}
                  | words)  # fmt: skip


@pytest.fixture
def there(tmp_path, monkeypatch):
    made = There(tmp_path / "there")
    monkeypatch.setattr(cluster, "joined", made.join)
    monkeypatch.setattr(remote_call, "run_there", made.run)
    return made


@pytest.fixture
def away(context):
    """The context of a command with --on."""
    return dataclasses.replace(context, node=NODE)


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "stages" / "f00.partial"
    made.mkdir(parents=True)
    return made


@pytest.fixture
def here(config, prepared, context, tmp_path):
    """The same training, made here."""
    other = tmp_path / "stages" / "here.partial"
    other.mkdir(parents=True)
    return train.train(config, prepared, other, context)


def told(context, folder):
    record = delivery_state.read_run(context.workspace, json.loads((folder / "run.json").read_bytes())["key"])
    return record and (record.status, record.journals[f"train/{folder.name.removesuffix('.partial')}"].upto)


def same(one, other):
    return all(
        load_weights(one / name)[key].equal(value)
        for name in ("best.safetensors", "last.safetensors")
        for key, value in load_weights(other / name).items()
    )


def test_it_leaves_here_what_a_training_here_would(config, prepared, away, folder, there, here):
    result = train.train(config, prepared, folder, away)
    assert there.joined == [(NODE.address, NODE.token)]
    assert same(folder, here.folder)
    assert {path.name for path in folder.iterdir()} == {path.name for path in here.folder.iterdir()}
    assert result.epochs == here.epochs
    assert result.parameters == here.parameters
    assert result.validation_accuracy == here.validation_accuracy
    assert told(away, folder) == ("FINISHED", (folder / FILE_NAME).stat().st_size)
    assert [row["epoch"] for row in away.reporter.epochs] == [1, 2, 1, 2], "here before"


def test_its_page_is_that_of_the_code_here_and_says_where_it_ran(config, prepared, away, folder, there, monkeypatch):
    monkeypatch.setattr(train_there, "git_commit", lambda: "c0ffee")
    monkeypatch.setattr("pipeline.stages.training_work.git_commit", lambda: "not this")
    result = train.train(config, prepared, folder, away)
    events = list(read(folder / FILE_NAME))
    tags = next(event for event in events if event.kind == "tags").content["values"]
    assert (tags["seqpipe.node"], tags["mlflow.source.git.commit"]) == ("B", "c0ffee")
    assert result.git_commit == "c0ffee"
    for event in events:
        if event.kind == "artifact":
            assert (folder / event.content["file"]).is_file()


def test_what_is_sent_is_what_a_search_sends_so_that_a_node_has_it_once(config, prepared, away, folder, there):
    train.train(config, prepared, folder, away)
    assert (
        SharedFiles.of(there.call.shared_files).key == SharedFiles.of(TrainTrial(config, prepared).shared_files).key
    )


def test_limits_go_with_it(changed, prepared, away, folder, there):
    train.train(changed("compute.max_memory_mb=1500", "compute.threads=1"), prepared, folder, away)
    assert (there.call.node, there.call.folder, there.call.cap_mb, there.call.cpus) == ("B", folder, 1500, 1)


def test_the_memory_that_it_gets_there_is_what_it_is_fitted_to(config, prepared, away, folder, there, monkeypatch):
    seen = []
    original = numerics_file.numerics_of

    def watching(*arguments, trial_mb=None, **words):
        seen.append(trial_mb)
        return original(*arguments, trial_mb=trial_mb, **words)

    monkeypatch.setattr(numerics_file, "numerics_of", watching)
    train.train(config, prepared, folder, away)
    assert seen == [2000.0]


def test_where_it_stands_is_shown_there(config, prepared, away, folder, there):
    train.train(config, prepared, folder, away)
    assert [(one.epoch, one.epochs, one.value is None) for one in there.shown] == [
        (0, 2, True),
        (1, 2, False),
        (2, 2, False),
    ]
    assert isinstance(there.shown[0], TrialOnNode)


def test_lines_from_there_carry_its_name(config, prepared, away, folder, there):
    train.train(config, prepared, folder, away)
    assert away.reporter.notes[0].startswith("B: on cpu in")


def test_images_that_are_sent_and_words_about_memory_are_passed_on(config, prepared, away, folder, there):
    shown = []
    away.reporter.bytes_done = lambda *what: shown.append(what)
    train.train(config, prepared, folder, away)
    there.listener.on_message(Fetched(1, 2))
    there.listener.on_message("waits for room on B")
    there.listener.on_message(("warn", "slow"))
    assert shown == [("the images, to B", 1, 2)]
    assert away.reporter.notes[-1] == "waits for room on B"
    assert away.reporter.warnings == ["B: slow"]


@pytest.mark.parametrize("word", [TIME_IS_UP, INTERRUPTED, "the node leaves"])
@pytest.mark.parametrize("goes_on", ["there", "here"])
def test_a_training_that_left_goes_on_there_or_here_to_the_same_weights(
    config, prepared, away, context, folder, there, here, word, goes_on
):
    there.leaves_at = (20, word)
    with pytest.raises(MachineUnfitError, match="B is leaving the cluster"):
        train.train(config, prepared, folder, away)
    status, upto = told(away, folder)
    assert (status, upto) == ("KILLED", durable_offset(folder))
    key = json.loads((folder / "run.json").read_bytes())["key"]
    there.leaves_at = None
    result = train.train(config, prepared, folder, away if goes_on == "there" else context)
    assert same(folder, here.folder)
    assert result.run_key == key
    assert told(context, folder)[0] == "FINISHED"
    assert [event.content["step"] for event in read(folder / FILE_NAME) if event.kind == "metrics"] == [1, 2]


@pytest.mark.parametrize(
    ("error", "word"),
    [(BudgetExhaustedError("time"), TIME_IS_UP), (InterruptedRunError("Ctrl-C"), INTERRUPTED)],
)
def test_what_stops_a_command_here_stops_the_training_there_and_is_the_command_s_end(
    config, prepared, away, folder, there, error, word
):
    class Asked(StopToken):
        def reason(self):
            return error

    there.leaves_at = (20, word)
    with pytest.raises(type(error)) as raised:
        train.train(config, prepared, folder, dataclasses.replace(away, stop_token=Asked()))
    assert raised.value is error
    assert there.stop_reason() == word
    assert told(away, folder)[0] == "KILLED"


def test_nothing_stops_a_training_that_nobody_asked_to_stop(config, prepared, away, folder, there):
    train.train(config, prepared, folder, away)
    assert there.stop_reason() is None


def test_the_first_signal_is_only_noted_while_a_training_runs_there(
    config, prepared, away, folder, there, monkeypatch
):
    seen = []

    def run(*arguments):
        seen.append(away.stop_token._deferring)
        return there.run(*arguments)

    monkeypatch.setattr(remote_call, "run_there", run)
    train.train(config, prepared, folder, away)
    assert seen == [True]


def test_an_error_there_is_one_here_with_its_name_and_this_folder(config, prepared, away, folder, there, monkeypatch):
    def fail(training):
        raise TrainingDivergedError(f"nan in {there.folder}")

    monkeypatch.setattr("pipeline.training.loop.Training.fit", fail)
    with pytest.raises(TrainingDivergedError, match=f"^on B: nan in {folder}$"):
        train.train(config, prepared, folder, away)
    assert told(away, folder)[0] == "FAILED"


@pytest.mark.parametrize(
    ("raises", "kind", "said"),
    [
        (NodeLostError("B was lost"), MachineUnfitError, "B was lost; what had come home is kept"),
        (ClusterError("no node named B"), MachineUnfitError, "no node named B"),
        (CapTooLowError(700.0, 500.0), MemoryCapError, "500 MB are too few on B"),
        (OSError(28, "No space left on device"), WorkspaceError, "No space left on device; free some space"),
        (AskedToLeaveError(), MachineUnfitError, "B is leaving the cluster"),
    ],
)
def test_what_goes_wrong_on_the_way_is_one_of_our_errors(config, prepared, away, folder, there, raises, kind, said):
    there.raises = raises
    with pytest.raises(kind, match=said) as raised:
        train.train(config, prepared, folder, away)
    assert type(raised.value) is kind
    assert told(away, folder) is None, "nothing had come home, so there is no run yet"


@pytest.mark.parametrize(
    ("end", "kind", "said"),
    [
        (capped(outcome="memory_cap"), MemoryCapError, "held 900 MB on B and was ended at its cap of 800 MB"),
        (
            capped(outcome="killed", error="ended by SIGKILL"),
            SeqpipeError,
            r"did not end by itself \(ended by SIGKILL",
        ),
        (capped(outcome="failed", error="TypeError: x"), SeqpipeError, r"by itself \(TypeError: x"),
    ],
)
def test_how_its_process_ended_is_one_of_our_errors(config, prepared, away, folder, there, end, kind, said):
    there.ends = end
    with pytest.raises(kind, match=said) as raised:
        train.train(config, prepared, folder, away)
    assert type(raised.value) is kind


def test_one_that_was_killed_since_it_did_not_leave_in_time_ends_as_asked(config, prepared, away, folder, there):
    class Asked(StopToken):
        def reason(self):
            return BudgetExhaustedError("time")

    there.ends = capped(outcome="killed", error="ended by SIGKILL")
    with pytest.raises(BudgetExhaustedError):
        train.train(config, prepared, folder, dataclasses.replace(away, stop_token=Asked()))


def test_how_much_of_the_journal_is_covered_comes_from_the_newest_readable_checkpoint(tmp_path):
    assert durable_offset(tmp_path) is None
    (tmp_path / "step-00000005.json").write_text('{"journal_offset": 50}')
    (tmp_path / "step-00000007.json").write_text('{"journal_offset": 70}')
    (tmp_path / "step-00000009.json").write_text("{")
    assert durable_offset(tmp_path) == 70


def test_a_command_without_on_sends_nothing(config, prepared, context, folder, there):
    train.train(config, prepared, folder, context)
    assert there.call is None


def test_the_token_is_not_shown():
    assert "s3cret" not in repr(TrainingNode("B", "a:1", "s3cret"))
