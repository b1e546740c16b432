import pytest

from pipeline.errors import ConfigError, TrackingError
from pipeline.tracking import delivery_state, run_list, store_file
from pipeline.tracking import settings as mlflow_settings
from pipeline.tracking.delivery import Tracker
from pipeline.tracking.delivery_state import Delivered, JournalRecord, RunRecord, StoreRecord
from pipeline.tracking.journal import FILE_NAME
from pipeline.tracking.run_figures import RunFigures
from pipeline.tracking.run_list import (
    DeliveryResult,
    ListedRun,
    chosen,
    deliver_pending,
    list_runs,
    pending_text,
)
from pipeline.workspace.paths import Workspace


@pytest.fixture
def workspace(tmp_path):
    """Two runs, of which the server has one."""
    workspace = Workspace(tmp_path)
    for key in ("a", "b"):
        delivery_state.write_run(workspace, RunRecord(key, f"run {key}", "FINISHED", {"x": JournalRecord("x", 9)}))
    store = StoreRecord("http://server", "r1", "1", "FINISHED", delivered={"x": Delivered(9, "t")})
    delivery_state.write_store(workspace, "a", store)
    return workspace


@pytest.fixture
def settings(workspace):
    return mlflow_settings.load(workspace, {"MLFLOW_TRACKING_URI": "http://server"})


def test_every_run_is_listed_with_its_id_and_whether_the_store_has_it(workspace, settings):
    nothing_more = [RunFigures({"name": f"run {key}", "status": "FINISHED"}, {}) for key in "ab"]
    assert list_runs(workspace, settings) == [
        ListedRun("a", "run a", "FINISHED", "r1", True, nothing_more[0]),
        ListedRun("b", "run b", "FINISHED", None, False, nothing_more[1]),
    ]


def test_a_run_shows_what_its_durable_journal_says_and_runs_are_chosen_by_it(workspace, settings):
    folder = workspace.root / "x"
    folder.mkdir()
    (folder / FILE_NAME).write_text('{"kind":"metrics","time_ms":1,"step":1,"values":{"test/accuracy":0.5}}\n')
    assert [run.figures.get("accuracy") for run in list_runs(workspace, settings)] == [None, None], (
        "9 bytes are durable"
    )
    delivery_state.write_run(workspace, RunRecord("b", "run b", "FINISHED", {"x": JournalRecord("x", 999)}))
    listed = list_runs(workspace, settings)
    assert [run.key for run in chosen(listed, "accuracy>0.4", None)] == ["b"]
    assert [run.key for run in chosen(listed, None, "accuracy")] == ["b", "a"]
    assert [run.key for run in chosen(listed, None, "name", reverse=True)] == ["b", "a"]
    assert listed[1].to_json() == {
        **listed[1].figures.columns, "key": "b", "name": "run b", "status": "FINISHED", "run_id": None,
        "delivered": False,
    }  # fmt: skip
    with pytest.raises(ConfigError):
        chosen(listed, None, "acuracy")
    assert chosen([], "anything=1", "anything") == []


def test_a_store_that_is_gone_has_no_run(workspace):
    local = mlflow_settings.load(workspace, {})
    delivery_state.readdress_store(workspace, "http://server", local.address, ["r1"])
    local.database.touch()
    assert [run.delivered for run in list_runs(workspace, local)] == [True, False]
    local.database.unlink()
    assert [(run.run_id, run.delivered) for run in list_runs(workspace, local)] == [(None, False)] * 2


def test_the_line_about_pending_runs_says_why_or_what_delivers_them(settings, monkeypatch):
    assert "2 run(s)" in pending_text(settings, 2)
    assert "the next `seqpipe run`, or `seqpipe runs deliver`" in pending_text(settings, 2)
    monkeypatch.setattr(store_file, "fault_of", lambda settings: TrackingError("its disk is full"))
    assert pending_text(settings, 2).endswith(": its disk is full")


@pytest.fixture
def delivering(monkeypatch):
    """Set how many runs a delivery gets through with, and the problem that it meets."""

    def set_to(delivered, problem=None, *lines):
        def deliver(self):
            self.problem = problem
            for line in (*lines, *([str(problem)] if problem else [])):
                self._on_problem(line)
            return delivered

        monkeypatch.setattr(Tracker, "deliver_pending", deliver)

    return set_to


def test_the_problem_of_a_delivery_is_returned_and_other_lines_are_reported(workspace, settings, delivering):
    problem, lines = TrackingError("away"), []
    delivering(0, problem, "a file was removed")
    assert deliver_pending(workspace, settings, lines.append) == DeliveryResult(1, 0, problem)
    assert lines == ["a file was removed"]


def test_runs_that_another_command_delivers_are_a_problem_too(workspace, settings, delivering):
    delivering(0)
    result = deliver_pending(workspace, settings, print)
    assert "another command is at work on the others" in str(result.problem)


def test_a_store_that_has_everything_is_not_opened(workspace, settings, monkeypatch):
    delivery_state.write_store(
        workspace, "b", StoreRecord("http://server", "r2", "1", "FINISHED", delivered={"x": Delivered(9, "t")})
    )
    monkeypatch.setattr(run_list.Tracker, "deliver_pending", lambda self: pytest.fail("opened"))
    assert deliver_pending(workspace, settings, print) == DeliveryResult(0, 0)
