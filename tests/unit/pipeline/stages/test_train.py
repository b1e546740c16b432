import dataclasses
import json

import pytest
import torch

from pipeline.errors import BudgetExhaustedError, InterruptedRunError, TrainingDivergedError, WorkspaceError
from pipeline.stages import train
from pipeline.stages.results import TrainedModel
from pipeline.stop import StopToken
from pipeline.tracking import delivery_state
from pipeline.tracking.journal import FILE_NAME, read
from pipeline.training.checkpoint import load_weights
from pipeline.training.models import build_model
from pipeline.training.optimizer import Optimizer
from pipeline.training.time_forecast import TotalWork
from pipeline.workspace.manifests import StageFolder
from sequencer_models import kernels
from sequencer_models.capabilities import this_machine
from sequencer_models.flops import training_flops


class LeaveAfter(StopToken):
    """Asks to leave at the given question after so many more epochs, once."""

    def __init__(self, reporter, epochs: int, questions: int, error: BaseException) -> None:
        super().__init__()
        self.reporter, self.questions, self.error = reporter, questions, error
        self.epochs = len(reporter.epochs) + epochs

    def reason(self):
        self.questions -= len(self.reporter.epochs) == self.epochs
        if self.questions == 0:
            self.epochs = -1
            return self.error
        return None


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def told(context, folder) -> tuple[str, int]:
    """What the store should be told of the run in a folder: its status, and how much of the journal."""
    record = delivery_state.read_run(context.workspace, json.loads((folder / "run.json").read_bytes())["key"])
    return record.status, record.journals[f"train/{folder.name.removesuffix('.partial')}"].upto


def tags_of(folder) -> dict[str, str]:
    return {
        name: value
        for event in read(folder / FILE_NAME)
        if event.kind == "tags"
        for name, value in event.content["values"].items()
    }


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "stages" / "f00.partial"
    made.mkdir(parents=True)
    return made


def left(context, epochs: int = 0, questions: int = 2, error: BaseException | None = None):
    token = LeaveAfter(context.reporter, epochs, questions, error or BudgetExhaustedError("enough"))
    return dataclasses.replace(context, stop_token=token)


def same(one: TrainedModel, other: TrainedModel) -> bool:
    pairs = [
        (load_weights(result.weights), load_weights(result.folder / "last.safetensors")) for result in (one, other)
    ]
    return all(
        torch.equal(value, pairs[1][place][name])
        for place, weights in enumerate(pairs[0])
        for name, value in weights.items()
    )


def test_a_training_leaves_weights_figures_and_what_it_was_made_with(config, prepared, context, folder):
    result = train.train(config, prepared, folder, context)
    assert (result.model, result.epochs, result.folder) == ("vanilla", 2, folder)
    assert result.parameters == sum(value.numel() for value in load_weights(result.weights).values())
    rows = json.loads(result.epochs_file.read_bytes())
    assert [row["epoch"] for row in rows] == [1, 2]
    assert result.validation_accuracy == max(row["validation/accuracy"] for row in rows)
    assert result.validation_loss == rows[result.best_epoch - 1]["validation/loss"]
    assert result.numerics == json.loads((folder / "numerics.json").read_bytes())
    model = build_model(config, 4)
    work = TotalWork(2, prepared.images_in("train"), prepared.images_in("validation"))
    of_optimizer = Optimizer(model, config.train).flops / 16  # a step has 16 images
    assert result.pflop == work.pflop(training_flops(model, torch.zeros(1, 3, 32, 32)) + of_optimizer)
    assert of_optimizer > 0
    model.load_state_dict(load_weights(folder / "last.safetensors"))
    assert told(context, folder) == ("FINISHED", (folder / FILE_NAME).stat().st_size)


def test_the_journal_begins_with_what_the_runs_page_shows(config, prepared, context, folder):
    train.train(config, prepared, folder, context)
    events = list(read(folder / FILE_NAME))
    assert [event.kind for event in events[:7]] == ["params", "tags", *3 * ["dataset"], *2 * ["artifact"]]
    assert events[0].content["values"]["train.batch_size"] == 16
    assert events[1].content["values"]["seqpipe.data_hash"] == prepared.data_hash
    assert events[1].content["values"]["numerics.precision"] == "fp32"
    assert [event.content["values"]["context"] for event in events[2:5]] == ["train", "validation", "test"]
    for event in events[5:7]:
        assert (folder / event.content["file"]).is_file()
    assert [event.content["step"] for event in events if event.kind == "metrics"] == [1, 2]


def test_a_training_of_several_seeds_is_recorded_under_their_run(config, prepared, context, folder):
    train.train(config, prepared, folder, dataclasses.replace(context, parent_run="seeds-f00"))
    key = json.loads((folder / "run.json").read_bytes())["key"]
    record = delivery_state.read_run(context.workspace, key)
    assert (record.parent, record.is_moved) == ("seeds-f00", False)


def test_training_needs_no_file_of_the_test_split(config, prepared, context, folder):
    for path in prepared.folder.glob("test_*"):
        path.unlink()
    assert train.train(config, prepared, folder, context).epochs == 2


def test_training_on_altered_images_is_refused(config, prepared, context, folder):
    path = prepared.folder / "validation_labels.npy"
    content = bytearray(path.read_bytes())
    content[-8] ^= 1  # the last label
    path.write_bytes(content)
    with pytest.raises(WorkspaceError, match=r"validation_labels\.npy: altered"):
        train.train(config, prepared, folder, context)


@pytest.mark.parametrize(("epochs", "questions"), [(0, 1), (0, 15), (1, 5)])
def test_a_training_that_left_goes_on_to_the_same_weights_in_the_same_run(
    config, prepared, context, tmp_path, folder, epochs, questions
):
    other = tmp_path / "stages" / "whole.partial"
    other.mkdir()
    whole = train.train(config, prepared, other, context)
    with pytest.raises(BudgetExhaustedError):
        train.train(config, prepared, folder, left(context, epochs, questions))
    key = json.loads((folder / "run.json").read_bytes())["key"]
    result = train.train(config, prepared, folder, context)
    assert same(result, whole)
    assert result.run_key == key != whole.run_key
    assert told(context, folder)[0] == "FINISHED"
    assert [event.content["step"] for event in read(folder / FILE_NAME) if event.kind == "metrics"] == [1, 2]
    assert sum(event.kind == "params" for event in read(folder / FILE_NAME)) == 1


def test_a_training_that_goes_on_does_not_repeat_the_epochs_that_are_done(config, prepared, context, folder):
    with pytest.raises(BudgetExhaustedError):
        train.train(config, prepared, folder, left(context, epochs=1))
    done = [row["epoch"] for row in context.reporter.epochs]
    assert done == [1]
    train.train(config, prepared, folder, context)
    assert [row["epoch"] for row in context.reporter.epochs] == [1, 2]


def test_a_training_that_fails_in_its_first_step_has_told_what_it_was_made_with(
    config, prepared, context, folder, monkeypatch
):
    def fail(training) -> None:
        raise TrainingDivergedError("nan")

    monkeypatch.setattr("pipeline.training.loop.Training.fit", fail)
    with pytest.raises(TrainingDivergedError):
        train.train(config, prepared, folder, context)
    assert told(context, folder) == ("FAILED", (folder / FILE_NAME).stat().st_size)
    assert [event.kind for event in read(folder / FILE_NAME)][:2] == ["params", "tags"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (BudgetExhaustedError("enough"), "KILLED"),
        (InterruptedRunError("Ctrl-C"), "KILLED"),
        (TrainingDivergedError("nan"), "FAILED"),
    ],
)
def test_the_store_is_told_how_a_training_ended_and_no_more_than_is_durable(
    config, prepared, context, folder, error, status
):
    with pytest.raises(type(error)):
        train.train(config, prepared, folder, left(context, error=error))
    described = max(folder.glob("step-*.json"))
    assert told(context, folder) == (status, json.loads(described.read_bytes())["journal_offset"])


def test_a_resume_keeps_the_numerics_that_it_started_with_and_says_so(changed, config, prepared, context, folder):
    with pytest.raises(BudgetExhaustedError):
        train.train(config, prepared, folder, left(context))
    other = "eager" if this_machine().native_kernel[0] else "native"
    asked = changed("compute.threads=2", "compute.micro_batch_size=17", f"compute.kernel={other}")
    result = train.train(asked, prepared, folder, context)
    assert (result.numerics["threads"], result.numerics["micro_batch_size"]) == (1, 16)
    assert [warning.split(" and goes on so")[0] for warning in context.reporter.warnings] == [
        "this training was started with threads 1",
        f"this training was started with kernel {result.numerics['recurrence']}",
        "this training was started with micro_batch_size 16",
    ]


@pytest.mark.parametrize(
    ("field", "before", "said"),
    [
        ("cpu", "another one", "started with the processor another one"),
        ("recurrence", "native of another compiler", "started with the LSTM kernel native of another compiler"),
    ],
)
def test_a_resume_on_another_machine_says_that_the_bits_will_differ(
    config, prepared, context, folder, field, before, said
):
    with pytest.raises(BudgetExhaustedError):
        train.train(config, prepared, folder, left(context))
    path = folder / "numerics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: before}))
    train.train(config, prepared, folder, context)
    (warning,) = context.reporter.warnings
    assert said in warning
    assert "not be the same bit for bit" in warning


@pytest.mark.usefixtures("native_kernel")
def test_a_training_goes_on_without_the_kernel_that_is_gone(monkeypatch, config, prepared, context, folder):
    with pytest.raises(BudgetExhaustedError):
        train.train(config, prepared, folder, left(context))
    assert json.loads((folder / "numerics.json").read_text())["recurrence"].startswith("native ")
    monkeypatch.setattr(this_machine(), "native_kernel", (None, "no C compiler here"))
    train.train(config, prepared, folder, context)
    (warning,) = context.reporter.warnings
    assert "going on with eager" in warning
    assert kernels.selected().lstm == "eager"


def test_what_computes_is_told_and_recorded(config, prepared, context, folder, native_kernel):
    result = train.train(config, prepared, folder, context)
    assert context.reporter.notes[0].endswith(f", with the native LSTM kernel, built by {native_kernel.compiler}")
    assert tags_of(folder)["numerics.kernel_compiler"] == native_kernel.compiler
    assert result.numerics["kernel_compiler"] == native_kernel.compiler


def test_nothing_is_said_of_a_kernel_that_was_not_asked_for(changed, prepared, context, folder):
    train.train(changed("compute.kernel=eager"), prepared, folder, context)
    assert context.reporter.notes[0].endswith("1 threads")


def test_lstms_that_are_in_fp32_for_want_of_bf16_ones_are_told_and_recorded(
    monkeypatch, changed, prepared, context, folder
):
    monkeypatch.setattr(this_machine(), "has_bf16_lstm", False)
    result = train.train(changed("compute.kernel=eager", "compute.precision=bf16"), prepared, folder, context)
    assert "in bf16, 1 threads, the LSTMs in fp32 (this processor has none in bf16)" in context.reporter.notes[0]
    assert tags_of(folder)["numerics.lstm_precision"] == result.numerics["lstm_precision"] == "fp32"


def test_why_there_is_no_kernel_is_told(monkeypatch, config, prepared, context, folder):
    monkeypatch.setattr(this_machine(), "native_kernel", (None, "no C compiler here"))
    train.train(config, prepared, folder, context)
    assert "without the native LSTM kernel, which is faster (no C compiler here)" in context.reporter.notes[0]


@pytest.mark.parametrize("name", ["numerics.json", "run.json"])
def test_a_damaged_note_in_the_folder_is_written_anew(config, prepared, context, folder, name):
    (folder / name).write_text("{")
    train.train(config, prepared, folder, context)
    assert json.loads((folder / name).read_bytes())


def test_the_seed_decides_the_weights_and_nothing_else_in_the_process_does(config, changed):
    first = build_model(config, 4).state_dict()
    torch.rand(3)
    again = build_model(config, 4).state_dict()
    other = build_model(changed("seed=1"), 4).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_how_far_a_training_is_comes_from_its_newest_readable_checkpoint(tmp_path):
    assert train.progress_text(tmp_path) is None
    (tmp_path / "step-00000005.json").write_text('{"progress": {"epoch": 1, "step": 5}}')
    (tmp_path / "step-00000007.json").write_text("[]")
    (tmp_path / "step-00000009.json").write_text("{")
    assert train.progress_text(tmp_path) == "1 epochs done, step 5"


def test_an_unfinished_training_names_its_run(context):
    folder = StageFolder(context.workspace, "train", "f00")
    assert train.STAGE.unfinished_run(folder.partial) is None
    (folder.begin() / "run.json").write_text('{"key": "f00-1", "name": "n"}')
    assert train.STAGE.unfinished_run(folder.partial) == "f00-1"
    (folder.begin() / "run.json").write_text("[]")
    assert train.STAGE.unfinished_run(folder.partial) is None
