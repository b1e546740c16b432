"""A trial, in this process: the same training as the stage's."""

import dataclasses
import json
import shutil

import pytest
import torch
from few_images import config_with, few_images, prepared_in

from pipeline.errors import MemoryCapError
from pipeline.progress import SilentReporter
from pipeline.search.trial import TrainTrial, warm_up
from pipeline.stages import train
from pipeline.stages.context import Context
from pipeline.stop import StopToken
from pipeline.tracking import settings as mlflow_settings
from pipeline.tracking.delivery import Tracker
from pipeline.training import checkpoint as checkpoints
from pipeline.training import memory_plan
from pipeline.training.memory_forecast import LIBRARIES_MB, Line, StepMemory, TrainingMemory
from pipeline.training.numerics import Numerics
from pipeline.training.numerics_file import FILE_NAME
from pipeline.workspace.paths import Workspace
from tuning.forecast import Forecast
from tuning.trial import WORK, CheckpointReady, Described, Diverged, Fitted, Paused, Reported, Trial

pytestmark = pytest.mark.usefixtures("round_memory_figures")

VALUES = {"train.learning_rate": 0.004, "model.hidden": 12}
CONFIG = config_with("train.epochs=3", "train.ema_decay=0.9")


@pytest.fixture(autouse=True)
def _few_images(monkeypatch):
    few_images(monkeypatch)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    made = prepared_in(tmp_path_factory.mktemp("prepared"), CONFIG)
    for path in made.folder.glob("test_*"):
        path.unlink()  # a search never looks at the test split
    return made


@dataclasses.dataclass
class Told:
    """A trial at work in a scratch folder, and what it said."""

    scratch: object
    messages: list = dataclasses.field(default_factory=list)
    stop_after: int = 10**9
    """Epochs after which it is asked to leave."""

    def trial(self, values=VALUES, **words):
        return Trial(
            values, self.scratch, self.messages.append, lambda: len(self.reports) >= self.stop_after, **words
        )

    @property
    def fitted(self):
        return [message.forecast for message in self.messages if isinstance(message, Fitted)]

    @property
    def reports(self):
        return [message.report for message in self.messages if isinstance(message, Reported)]

    def resume_in(self, scratch):
        """What the supervisor does: the newest checkpoint into an empty folder."""
        ready = [message.folder for message in self.messages if isinstance(message, CheckpointReady)]
        shutil.copytree(ready[-1], scratch)
        return Told(scratch)


@pytest.fixture
def told(tmp_path):
    (tmp_path / "scratch").mkdir()
    return Told(tmp_path / "scratch")


@pytest.fixture
def plain(tmp_path, prepared):
    """The same configuration trained by the stage."""
    folder = tmp_path / "stages" / "f00.partial"
    folder.mkdir(parents=True)
    workspace = Workspace(tmp_path)
    settings = mlflow_settings.load(workspace, {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"})
    context = Context(
        workspace, SilentReporter(), StopToken(), settings, Tracker(settings, workspace, lambda text: None)
    )
    config = config_with("train.epochs=3", "train.ema_decay=0.9", "train.learning_rate=0.004", "model.hidden=12")
    shutil.copyfile(next(prepared.folder.glob("contact*")), folder / "contact_sheet.png")
    return train.train(config, prepared, folder, context)


def rows_of(plain):
    return [
        {key: value for key, value in row.items() if key != "images_per_second"}
        for row in json.loads(plain.epochs_file.read_bytes())
    ]


def rows_said(told):
    return [
        {"epoch": each.epoch, "validation/accuracy": each.value}
        | {key: value for key, value in each.metrics.items() if key != "images_per_second"}
        for each in told.reports
    ]


def test_on_a_node_without_the_prepared_folder_a_trial_reads_what_was_carried_there(told, prepared, tmp_path):
    here = TrainTrial(CONFIG, prepared)
    carried = tmp_path / "carried"
    carried.mkdir()
    for path in here.shared_files:
        shutil.copyfile(path, carried / path.name)
    elsewhere = TrainTrial(CONFIG, prepared.model_copy(update={"folder": tmp_path / "not here"}))
    trial = told.trial()
    trial.shared_files = carried
    elsewhere(trial)
    (tmp_path / "other").mkdir()
    other = Told(tmp_path / "other")
    here(other.trial())
    assert [each.value for each in told.reports] == [each.value for each in other.reports]


def test_a_trial_says_what_it_computes_with_each_time_that_it_starts(told, prepared, tmp_path):
    told.stop_after = 1
    with pytest.raises(Paused):
        TrainTrial(CONFIG, prepared)(told.trial())
    numerics = numerics_in(told)
    facts = {"device": "cpu", "precision": numerics.precision, "kernel": numerics.kernel.split()[0]}
    assert told.messages[0] == Described(facts)
    again = told.resume_in(tmp_path / "again")
    TrainTrial(CONFIG, prepared)(again.trial())
    assert again.messages[0] == Described(facts)


def test_a_trial_that_began_on_a_device_that_is_not_here_goes_on_with_what_is(told, prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    told.stop_after = 1
    with pytest.raises(Paused):
        TrainTrial(CONFIG, prepared)(told.trial())
    again = told.resume_in(tmp_path / "again")
    written = again.scratch / WORK / FILE_NAME
    written.write_text(json.dumps(json.loads(written.read_text()) | {"device": "mps"}))
    TrainTrial(CONFIG, prepared)(again.trial())
    assert numerics_in(again).device == "cpu"
    assert [report.epoch for report in again.reports] == [2, 3]


def last_weights(scratch):
    return checkpoints.latest(scratch / WORK, pytest.fail).tensors


def test_a_trial_is_the_plain_training_of_its_configuration_to_the_bit(told, plain, prepared):
    TrainTrial(CONFIG, prepared)(told.trial())
    assert rows_said(told) == rows_of(plain)
    kept = last_weights(told.scratch)
    expected = checkpoints.load_weights(plain.folder / "last.safetensors")
    assert all(torch.equal(kept[f"model.{name}"], value) for name, value in expected.items())


def test_each_epochs_report_comes_before_the_checkpoint_that_covers_it(told, prepared):
    TrainTrial(CONFIG, prepared)(told.trial())
    covered = []
    for message in told.messages:
        if isinstance(message, CheckpointReady):
            [described] = (message.folder / WORK).glob("step-*.json")  # one, and no best weights: it travels
            epoch = json.loads(described.read_bytes())["progress"]["epoch"]
            assert len(json.loads((message.folder / "reports.json").read_bytes())) >= epoch
            covered.append(epoch)
    assert covered == [1, 2, 3]
    assert not list(told.scratch.rglob("best.*"))


def test_asked_to_leave_a_trial_saves_in_the_middle_and_goes_on_to_the_same_figures(told, plain, prepared, tmp_path):
    told.stop_after = 2
    with pytest.raises(Paused):
        TrainTrial(CONFIG, prepared)(told.trial())
    again = told.resume_in(tmp_path / "again")
    checkpoint = checkpoints.latest(again.scratch / WORK, pytest.fail)
    assert checkpoint.progress.epoch == 2
    assert checkpoint.progress.batch == 0, "the first question after the epoch is in a step, which is dropped"
    TrainTrial(CONFIG, prepared)(again.trial())
    assert rows_said(told) + rows_said(again) == rows_of(plain)


def test_early_stopping_knows_the_best_epoch_after_a_resume(told, prepared, tmp_path):
    config = config_with("train.epochs=9", "train.early_stopping_patience=2", "train.learning_rate=1e-9")
    told.stop_after = 2
    with pytest.raises(Paused):
        TrainTrial(config, prepared)(told.trial({}))
    again = told.resume_in(tmp_path / "again")
    TrainTrial(config, prepared)(again.trial({}))
    assert [each.epoch for each in (*told.reports, *again.reports)] == [1, 2, 3]


def test_a_trial_that_was_done_goes_on_to_its_end_without_a_word(told, prepared, tmp_path):
    TrainTrial(CONFIG, prepared)(told.trial())
    again = told.resume_in(tmp_path / "again")
    TrainTrial(CONFIG, prepared)(again.trial())
    assert again.reports == []


def test_a_loss_that_is_no_longer_finite_is_an_outcome(told, prepared, monkeypatch):
    monkeypatch.setattr("torch.nn.functional.cross_entropy", lambda logits, *_, **__: logits.sum() * float("nan"))
    with pytest.raises(Diverged, match=r"^the loss became nan in step 1 \(epoch 1\)$"):
        TrainTrial(CONFIG, prepared)(told.trial())


def test_memory_that_was_refused_is_told_so_that_the_cap_is_seen(told, prepared, monkeypatch):
    def refuse(training):
        raise MemoryCapError("out of memory with 16 images at once")

    monkeypatch.setattr("pipeline.training.loop.Training.fit", refuse)
    with pytest.raises(MemoryError):
        TrainTrial(CONFIG, prepared)(told.trial())


@pytest.fixture
def made_up_memory(monkeypatch):
    """10 MB an image beside 1000, whatever the model."""
    step = StepMemory((Line(0.0, 10.0),), (Line(0.0, 0.1),))
    memory = TrainingMemory(0.0, step, None, 1e9)
    monkeypatch.setattr(memory_plan, "memory_of", lambda config, classes, numerics: memory)
    monkeypatch.setattr(memory_plan, "tree_memory_mb", lambda pid: 1000.0 - LIBRARIES_MB)


def numerics_in(told):
    return Numerics.from_json(json.loads((told.scratch / WORK / FILE_NAME).read_bytes()))


@pytest.mark.usefixtures("made_up_memory")
def test_a_trial_says_first_how_it_is_fitted_to_its_memory(told, prepared):
    TrainTrial(CONFIG, prepared)(told.trial(memory_mb=1080.0))
    assert [type(message) for message in told.messages[:2]] == [Described, Fitted]
    assert told.fitted == [Forecast(1080.0, "8 images at once")]
    assert numerics_in(told).micro_batch_size == 8


@pytest.mark.usefixtures("made_up_memory")
def test_a_trial_that_has_room_says_that_nothing_is_changed(told, prepared):
    TrainTrial(CONFIG, prepared)(told.trial(memory_mb=5000.0))
    assert told.fitted == [Forecast(1160.0, "")]


@pytest.mark.usefixtures("made_up_memory")
def test_a_trial_without_a_cap_says_nothing(told, prepared):
    TrainTrial(CONFIG, prepared)(told.trial())
    assert told.fitted == []


@pytest.mark.usefixtures("made_up_memory")
def test_a_trial_that_has_no_room_takes_the_least_and_goes_on(told, prepared):
    TrainTrial(CONFIG, prepared)(told.trial(memory_mb=10.0))
    assert told.fitted == [Forecast(1010.0, "1 image at once")]
    assert len(told.reports) == 3


@pytest.mark.usefixtures("made_up_memory")
def test_a_trial_that_hit_its_cap_goes_on_from_its_checkpoint_with_half(told, prepared, tmp_path):
    told.stop_after = 1
    with pytest.raises(Paused):
        TrainTrial(CONFIG, prepared)(told.trial(memory_mb=1080.0))
    again = told.resume_in(tmp_path / "again")
    again.stop_after = 1
    with pytest.raises(Paused):
        TrainTrial(CONFIG, prepared)(again.trial(memory_mb=1080.0, halvings=1))
    last = again.resume_in(tmp_path / "last")
    TrainTrial(CONFIG, prepared)(last.trial(memory_mb=1080.0, halvings=1))
    assert again.fitted == last.fitted == [Forecast(1040.0, "4 images at once")]
    assert [each.epoch for each in (*told.reports, *again.reports, *last.reports)] == [1, 2, 3]


def test_what_is_loaded_first_is_what_a_trial_needs(prepared):
    warm_up(CONFIG)
