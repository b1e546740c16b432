import json
import os
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import WorkspaceError
from pipeline.tracking import journal as journals
from pipeline.tracking.journal import FILE_NAME, Journal, read


def values(folder, **limits) -> list[object]:
    return [event.content.get("values") for event in read(folder / FILE_NAME, **limits)]


def filled(folder, lines: int) -> list[int]:
    """A journal of so many metrics; the offset behind each."""
    offsets = []
    with Journal(folder) as journal:
        for step in range(lines):
            journal.metrics({"loss": step / 3, "naïve": 1.0}, step=step)
            offsets.append(journal.offset)
    return offsets


def test_events_come_back_in_order_with_their_kind_and_time(tmp_path):
    (tmp_path / "plots").mkdir()
    before = time.time_ns() // 1_000_000
    with Journal(tmp_path) as journal:
        journal.params({"train.epochs": 12})
        journal.tags({"device": "cpu"})
        journal.metrics({"loss": 0.25}, step=3)
        journal.dataset({"name": "cifar10"})
        journal.artifact(tmp_path / "plots" / "confusion.png", "plots")
    events = list(read(tmp_path / FILE_NAME))
    assert [event.kind for event in events] == ["params", "tags", "metrics", "dataset", "artifact"]
    assert events[0].content == {"values": {"train.epochs": 12}}
    assert events[2].content == {"step": 3, "values": {"loss": 0.25}}
    assert events[4].content == {"file": "plots/confusion.png", "folder": "plots"}
    assert all(before <= event.time_ms <= time.time_ns() // 1_000_000 for event in events)
    assert events[-1].end == (tmp_path / FILE_NAME).stat().st_size


def test_what_is_written_can_be_read_before_the_journal_is_closed(tmp_path):
    journal = Journal(tmp_path)
    journal.tags({"a": "1"})
    assert values(tmp_path) == [{"a": "1"}]
    journal.close()


def test_a_journal_that_is_opened_again_goes_on_behind_its_end(tmp_path):
    filled(tmp_path, 2)
    with Journal(tmp_path) as journal:
        journal.metrics({"loss": 9.0}, step=2)
    assert [event.content["step"] for event in read(tmp_path / FILE_NAME)] == [0, 1, 2]


def test_truncating_cuts_off_what_is_behind_the_offset_and_goes_on_there(tmp_path):
    offsets = filled(tmp_path, 3)
    with Journal(tmp_path) as journal:
        journal.truncate(offsets[0])
        assert journal.offset == offsets[0]
        journal.metrics({"loss": 7.0}, step=1)
    assert [event.content["step"] for event in read(tmp_path / FILE_NAME)] == [0, 1]
    assert values(tmp_path)[1] == {"loss": 7.0}


def test_truncating_never_makes_a_journal_longer(tmp_path):
    offsets = filled(tmp_path, 2)
    with Journal(tmp_path) as journal:
        journal.truncate(offsets[-1] + 100)
        journal.metrics({"loss": 7.0}, step=2)
    assert [event.content["step"] for event in read(tmp_path / FILE_NAME)] == [0, 1, 2]


def test_a_part_is_read_between_two_offsets(tmp_path):
    offsets = filled(tmp_path, 4)
    steps = [event.content["step"] for event in read(tmp_path / FILE_NAME, start=offsets[0], end=offsets[2])]
    assert steps == [1, 2]
    steps = [event.content["step"] for event in read(tmp_path / FILE_NAME, end=offsets[2] - 1)]
    assert steps == [0, 1]


def test_a_journal_that_is_not_there_has_no_events(tmp_path):
    assert list(read(tmp_path / FILE_NAME)) == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(st.data())
def test_torn_at_any_byte_only_the_torn_line_is_lost(tmp_path, data):
    path = tmp_path / FILE_NAME
    path.unlink(missing_ok=True)
    offsets = [0, *filled(tmp_path, 3)]
    cut = data.draw(st.integers(0, offsets[-1]))
    os.truncate(path, cut)
    whole = sum(offset <= cut for offset in offsets) - 1
    assert [event.content["step"] for event in read(path)] == list(range(whole))
    with Journal(tmp_path) as journal:
        assert journal.offset == offsets[whole]
        journal.metrics({"loss": 5.0}, step=whole)
    assert [event.content["step"] for event in read(path)] == list(range(whole + 1))


def test_a_figure_that_is_not_finite_comes_back_as_it_was(tmp_path):
    with Journal(tmp_path) as journal:
        journal.metrics({"loss": float("inf")}, step=0)
    assert values(tmp_path) == [{"loss": float("inf")}]


def test_a_line_is_one_json_object(tmp_path):
    filled(tmp_path, 2)
    lines = (tmp_path / FILE_NAME).read_text().splitlines()
    assert [sorted(json.loads(line)) for line in lines] == [["kind", "step", "time_ms", "values"]] * 2


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(WorkspaceError, match="cannot be written"):
        Journal(tmp_path / "missing")


def test_what_stands_behind_a_damaged_line_is_cut_off(tmp_path):
    with Journal(tmp_path) as journal:
        journal.metrics({"a": 1.0}, 1)
        whole = journal.offset
        journal.metrics({"a": 2.0}, 2)
    with (tmp_path / FILE_NAME).open("r+b") as file:
        file.seek(whole + 3)
        file.write(b"\0\0\0\0")  # as a power loss may leave it
    with Journal(tmp_path) as journal:
        assert journal.offset == whole


def test_syncing_cutting_and_closing_reach_the_disk(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(journals.os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    journal = Journal(tmp_path)
    journal.metrics({"loss": 1.0}, step=1)
    end = journal.offset
    assert synced == []
    journal.sync()
    assert synced == [end]
    journal.truncate(0)
    assert synced == [end, 0]
    journal.close()
    assert synced == [end, 0, 0]
