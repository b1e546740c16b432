"""A report in MLflow: recorded in the workspace, delivered when the store is there, and none of the listed runs."""

import pytest
from offline_store import offline_tracker
from reported import report_of, training

from pipeline.reports.group_facts import GroupFacts
from pipeline.reports.report_run import keep
from pipeline.tracking import delivery_state, journal, run_list
from pipeline.tracking import settings as mlflow_settings
from pipeline.workspace.paths import Workspace

GROUPS = (GroupFacts("A", (training([1, 1, 0]), training([1, 0, 0], 1))),)


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


@pytest.fixture
def settings(workspace):
    return mlflow_settings.load(workspace, {})


def test_a_report_waits_for_a_store_that_is_away_and_is_no_run_of_the_list(workspace, settings):
    report = report_of(GROUPS)
    identity = keep(report, "the page", "the card", offline_tracker(settings, workspace))
    folder = workspace.hidden / "reports" / report.key
    assert (folder / "report.html").read_text() == "the page"
    assert [record.key for record in delivery_state.pending(workspace, settings.address)] == [identity.key]
    assert run_list.list_runs(workspace, settings) == []
    events = list(journal.read(folder / journal.FILE_NAME))
    assert [event.content["file"] for event in events if event.kind == "artifact"] == ["report.html", "model_card.md"]
    tags = events[0].content["values"]
    assert tags["seqpipe.about"] == "f0-0, f0-1"
    assert "| A | vanilla |" in tags["mlflow.note.content"]


def test_the_same_report_made_again_is_the_same_run_with_more_to_deliver(workspace, settings):
    tracker = offline_tracker(settings, workspace)
    first = keep(report_of(GROUPS), "old", None, tracker)
    [before] = delivery_state.every(workspace)
    second = keep(report_of(GROUPS), "new", None, tracker)
    [after] = delivery_state.every(workspace)
    assert first.key == second.key
    assert after.journals[first.key].upto > before.journals[first.key].upto, "the new page is sent again"
    other = keep(report_of([GroupFacts("A", GROUPS[0].trainings[:1])]), "less", None, tracker)
    assert other.key != first.key
