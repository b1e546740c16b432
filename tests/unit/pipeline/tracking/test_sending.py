"""What is sent to a store, with a stand-in for MLflow's client."""

from types import SimpleNamespace

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

from pipeline.tracking import delivery_state
from pipeline.tracking import settings as mlflow_settings
from pipeline.tracking.connection import StoreConnection
from pipeline.tracking.delivery_state import Delivered, JournalRecord, RunRecord, StoreRecord
from pipeline.tracking.journal import Journal
from pipeline.tracking.sending import RUN_KEY_TAG, Sender
from pipeline.workspace.paths import Workspace


class Client:
    """Keeps runs in memory, as far as they are sent."""

    def __init__(self):
        self.runs, self.calls = {}, []

    def create_run(self, experiment_id, start_time, tags, run_name):
        run_id = f"r{len(self.runs)}"
        run = SimpleNamespace(
            info=SimpleNamespace(run_id=run_id, status="RUNNING", lifecycle_stage="active", start_time=start_time),
            data=SimpleNamespace(params={}, tags=dict(tags), metrics=[]),
            name=run_name,
        )
        self.runs[run_id] = run
        return run

    def get_run(self, run_id):
        if run_id not in self.runs:
            raise MlflowException("gone", RESOURCE_DOES_NOT_EXIST)
        return self.runs[run_id]

    def search_runs(self, experiments, query, max_results):
        key = query.split("'")[1]
        return [run for run in self.runs.values() if run.data.tags[RUN_KEY_TAG] == key]

    def log_batch(self, run_id, metrics=(), params=(), tags=()):
        data = self.runs[run_id].data
        data.metrics += [(metric.key, metric.step, metric.value) for metric in metrics]
        for param in params:
            assert param.key not in data.params, "MLflow refuses to change a parameter"
            data.params[param.key] = param.value
        data.tags |= {tag.key: tag.value for tag in tags}

    def get_metric_history(self, run_id, key):
        return [SimpleNamespace(key=one, step=step) for one, step, _ in self.runs[run_id].data.metrics if one == key]

    def set_tag(self, run_id, key, value):
        self.runs[run_id].data.tags[key] = value

    def log_inputs(self, run_id, datasets):
        for one in datasets:
            given = one.dataset
            [context] = [tag.value for tag in one.tags if tag.key == "mlflow.data.context"]
            fields = (given.name, given.digest, given.source_type, given.source, given.schema, given.profile, context)
            self.calls.append(("input", fields))

    def log_artifact(self, run_id, path, folder):
        self.calls.append(("artifact", path.rpartition("/")[2], folder))

    def update_run(self, run_id, status):
        self.calls.append(("status", status))
        self.runs[run_id].info.status = status

    def set_terminated(self, run_id, status, end_time):
        self.calls.append(("status", status, end_time))
        self.runs[run_id].info.status = status


class ConnectionTo(StoreConnection):
    def __init__(self, client, settings, workspace):
        super().__init__(settings, workspace, print)
        self.fake = client

    def client(self, *, to_write=True):
        return self.fake

    def experiment_id(self):
        return "e1"


class Sending:
    """A run with a journal, and a store that it is sent to."""

    def __init__(self, root):
        self.workspace, self.client, self.reports = Workspace(root), Client(), []
        settings = mlflow_settings.load(self.workspace, {"MLFLOW_TRACKING_URI": "http://server"})
        self.sender = Sender(ConnectionTo(self.client, settings, self.workspace), self.workspace, self.reports.append)
        self.folder = self.workspace.stage("train") / "abc.partial"
        self.folder.mkdir(parents=True)
        self.journal = Journal(self.folder)

    def send(self, status="RUNNING", upto=None, **record):
        place = self.folder.relative_to(self.workspace.root).as_posix()
        journals = {"train/abc": JournalRecord(place, self.journal.offset if upto is None else upto)}
        self.sender.send(RunRecord("abc-1", "small", status, journals, **record))

    @property
    def run(self):
        [run] = [run for run in self.client.runs.values() if run.name == "small"]
        return run

    @property
    def store(self):
        return delivery_state.read_store(self.workspace, "abc-1", "http://server")


@pytest.fixture
def sending(tmp_path):
    sending = Sending(tmp_path)
    yield sending
    sending.journal.close()


def test_a_run_is_created_once_with_its_key_and_the_time_of_its_first_event(sending):
    sending.journal.metrics({"loss": 1.0}, 1)
    sending.send()
    sending.send()
    assert sending.run.data.tags[RUN_KEY_TAG] == "abc-1"
    assert sending.run.info.start_time == sending.store.last_event_ms
    assert sending.run.data.metrics == [("loss", 1, 1.0)]
    assert (sending.store.run_id, sending.store.experiment_id) == ("r0", "e1")


def test_a_run_whose_record_is_lost_is_found_by_its_key(sending):
    sending.journal.metrics({"loss": 1.0}, 1)
    sending.send()
    delivery_state.store_path(sending.workspace, "abc-1", "http://server").unlink()
    sending.send()
    assert len(sending.client.runs) == 1


@pytest.mark.parametrize("how", ["gone", "deleted"])
def test_a_run_that_was_deleted_is_created_again_whole(sending, how):
    sending.journal.metrics({"loss": 1.0}, 1)
    sending.send()
    if how == "gone":
        sending.client.runs.clear()
    else:
        old = sending.client.runs.pop("r0")
        old.info.lifecycle_stage, old.name, old.data.tags[RUN_KEY_TAG] = "deleted", "old", "none"
        sending.client.runs["r0"] = old
    sending.journal.metrics({"loss": 0.5}, 2)
    sending.send()
    assert sending.run.data.metrics == [("loss", 1, 1.0), ("loss", 2, 0.5)]


def test_the_first_value_of_a_parameter_stays_and_the_last_of_a_tag(sending):
    sending.journal.params({"epochs": 3})
    sending.journal.tags({"note": "a" * 9000})
    sending.send()
    assert sending.run.data.tags["note"] == "a" * 8000
    sending.journal.params({"epochs": 4, "seed": 1, "long": "x" * 7000})
    sending.journal.params({"seed": 2})
    sending.journal.tags({"note": "b"})
    sending.journal.tags({"note": "c"})
    sending.send()
    assert sending.run.data.params == {"epochs": "3", "seed": "1", "long": "x" * 6000}
    assert sending.run.data.tags["note"] == "c"


def test_only_what_comes_before_the_offset_is_sent(sending):
    sending.journal.metrics({"loss": 1.0}, 1)
    durable = sending.journal.offset
    sending.journal.metrics({"loss": 0.5}, 2)
    sending.send(upto=durable)
    assert sending.run.data.metrics == [("loss", 1, 1.0)]
    assert sending.store.delivered["train/abc"].offset == durable


def test_a_journal_that_was_written_again_gives_only_steps_that_the_store_lacks(sending):
    sending.journal.metrics({"loss": 1.0}, 1)
    kept = sending.journal.offset
    sending.journal.metrics({"loss": 0.5}, 2)
    sending.send()
    sending.journal.truncate(kept)
    sending.journal.metrics({"loss": 0.55}, 2)
    sending.journal.metrics({"loss": 0.4}, 3)
    sending.send()
    assert sending.run.data.metrics == [("loss", 1, 1.0), ("loss", 2, 0.5), ("loss", 3, 0.4)]


def test_a_data_set_is_an_input_of_the_run_and_what_is_no_text_is_written_as_json(sending):
    sending.journal.dataset(
        {"name": "cifar10 test", "digest": "d" * 50, "context": "test", "source": "npm", "profile": {"b": 1, "a": 2}}
    )
    sending.journal.dataset({"name": "other", "digest": "d0", "schema": [1]})
    sending.send()
    [one, other] = [given for call, given in sending.client.calls if call == "input"]
    assert one == ("cifar10 test", "d" * 36, "local", "npm", None, '{"a": 2, "b": 1}', "test")
    assert other == ("other", "d0", "local", "{}", "[1]", None, "training")


def test_files_are_sent_once_and_one_that_is_gone_is_reported(sending):
    for name in ("a.png", "gone.png"):
        (sending.folder / name).write_bytes(b"x")
        sending.journal.artifact(sending.folder / name, "plots")
    sending.journal.artifact(sending.folder / "a.png", "plots")
    (sending.folder / "gone.png").unlink()
    sending.send()
    assert sending.client.calls == [("artifact", "a.png", "plots")]
    assert [report.partition("gone.png was removed")[1] for report in sending.reports] == ["gone.png was removed"]


def test_a_journal_that_is_gone_is_reported_once_and_only_if_the_store_lacks_some_of_it(sending):
    sending.journal.metrics({"loss": 1.0}, 1)
    sending.send()
    sending.journal.path.unlink()
    sending.send()
    assert sending.reports == []
    for _ in range(2):
        sending.send(upto=sending.journal.offset + 10)
    assert len(sending.reports) == 1


def test_the_status_is_sent_when_it_changes_with_the_time_of_the_last_event(sending):
    sending.journal.metrics({"loss": 1.0}, 1)
    for status in ("RUNNING", "FINISHED", "FINISHED", "RUNNING"):
        sending.send(status)
    assert sending.client.calls == [
        ("status", "FINISHED", sending.store.last_event_ms), ("status", "RUNNING"),
    ]  # fmt: skip


def test_the_run_that_one_is_shown_under_is_sent_first(sending):
    delivery_state.write_run(
        sending.workspace, RunRecord("search-1", "search", journals={"x": JournalRecord("x", 0)})
    )
    sending.journal.metrics({"loss": 1.0}, 1)
    sending.send(parent="search-1")
    parent = next(run for run in sending.client.runs.values() if run.name == "search")
    assert sending.run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert parent.info.run_id == "r0"


def test_a_parent_without_a_record_is_left_out(sending):
    sending.journal.metrics({"loss": 1.0}, 1)
    sending.send(parent="lost", is_moved=True)
    assert "mlflow.parentRunId" not in sending.run.data.tags
    assert sending.store.parent == "lost", "nothing waits for it"


def test_a_run_that_is_there_is_moved_under_its_parent_once(sending):
    sending.journal.metrics({"loss": 1.0}, 1)
    sending.send()
    delivery_state.write_run(sending.workspace, RunRecord("seeds-1", "seeds", journals={"x": JournalRecord("x", 0)}))
    sending.send(parent="seeds-1", is_moved=True)
    parent = next(run for run in sending.client.runs.values() if run.name == "seeds")
    assert sending.run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    sending.run.data.tags.clear()
    sending.send(parent="seeds-1", is_moved=True)
    assert sending.run.data.tags == {}


def test_what_was_sent_before_is_not_sent_again(sending):
    sending.journal.metrics({"loss": 1.0}, 1)
    sending.send()
    digest = sending.store.delivered["train/abc"].tail
    store = StoreRecord(
        "http://server", "r0", "e1", delivered={"train/abc": Delivered(sending.journal.offset, digest)}
    )
    delivery_state.write_store(sending.workspace, "abc-1", store)
    sending.run.data.metrics.clear()
    sending.journal.metrics({"loss": 0.5}, 2)
    sending.send()
    assert sending.run.data.metrics == [("loss", 2, 0.5)]
