import json

import pytest
from few_images import config_with
from ledgers import IDENTITY, end, write_ledger

from pipeline.search import store
from pipeline.search.store import SearchFolder, SearchStatus, stored_searches
from pipeline.stages import prepare
from pipeline.workspace.fingerprints import fingerprint
from pipeline.workspace.locks import exclusive
from tuning.ledger import Ledger
from tuning.space import Space


def started(folder, trials=3, values=(0.5, None)):
    """A search with some finished trials (None: at the cap), and one that runs."""
    folder.create()
    ends = [end("memory_cap") if value is None else end("completed", value) for value in values]
    write_ledger(folder.path, [*ends, None], trials)
    return folder


@pytest.mark.parametrize(
    "change", ["model.layers=2", "train.epochs=3", "seed=1", "data.fraction=0.5", "compute.precision=bf16"]
)
def test_other_settings_are_another_search(workspace, search, space, change):
    assert SearchFolder.of(workspace, config_with(change), space).path != search.path


@pytest.mark.parametrize(
    "change", ["compute.threads=2", "compute.max_time_s=9", "compute.max_memory_mb=900", "evaluate.mistakes=3"]
)
def test_what_a_training_does_not_read_is_no_other_search(workspace, search, space, change):
    assert SearchFolder.of(workspace, config_with(change), space).path == search.path


def test_another_space_or_version_is_another_search(workspace, base, search, space, monkeypatch):
    other = Space.parse(space.to_json() | {"model.hidden": {"choice": [8, 16]}})
    assert SearchFolder.of(workspace, base, other).path != search.path
    assert SearchFolder.of(workspace, base, Space.parse(space.to_json())).path == search.path
    monkeypatch.setattr(store, "VERSION", 99)
    assert SearchFolder.of(workspace, base, space).path != search.path


def test_how_far_a_search_is_comes_from_its_ledger_whole_or_being_written(search):
    assert search.status() is None
    started(search)
    assert search.status() == SearchStatus(target=3, proposed=3, finished=2, best=0.5)
    assert search.status().in_words() == "2 of 3 trials, best 50.00 %"
    with (search.path / "ledger.jsonl").open("ab") as file:
        file.write(b'{"event":"finished","row":2,"outco')
    assert search.status().finished == 2


def test_a_search_keeps_its_run_until_it_is_discarded(search):
    key = search.create()
    assert search.create() == key
    search.discard()
    assert not search.path.exists()
    assert search.create() != key


def test_the_search_before_is_named_with_what_differs(workspace, base, search, space):
    assert search.closest_other() is None
    started(SearchFolder.of(workspace, config_with("train.epochs=9", "model.layers=2"), space))
    near = started(
        SearchFolder.of(workspace, base, Space.parse(space.to_json() | {"train.weight_decay": {"uniform": [0, 1]}}))
    )
    SearchFolder.of(workspace, config_with("train.epochs=8"), space).create()  # never searched
    folder, differing = search.closest_other()
    assert (folder, differing) == (near.path, ["space.train.weight_decay"])
    other = SearchFolder.of(workspace, config_with("train.epochs=9"), space)
    assert other.closest_other()[1] == ["base.model.layers"]


def test_a_damaged_description_names_no_search_and_is_written_anew(search):
    key = search.create()
    (search.path / "search.json").write_text("{")
    assert list(store._descriptions(search.workspace)) == []
    assert search.create() != key
    assert json.loads((search.path / "search.json").read_bytes())["identity"] == search.identity


def test_every_search_of_a_workspace_is_told_the_newest_first(workspace, base, search, space, monkeypatch):
    other = started(SearchFolder.of(workspace, config_with("train.epochs=9"), space), values=(0.5, 0.6, 0.7))
    describe(other, created="2000-01-01 00:00:00")
    started(search)
    SearchFolder.of(workspace, config_with("train.epochs=5"), space).create()  # described, and nothing proposed
    newest, oldest = stored_searches(workspace)
    assert (newest.folder, newest.state, newest.status.in_words()) == (
        search.path, "unfinished", "2 of 3 trials, best 50.00 %"
    )  # fmt: skip
    assert (oldest.folder, oldest.state, oldest.status.is_done) == (other.path, "finished", True)
    with exclusive(search.lock, print, what="it"):
        assert [one.state for one in stored_searches(workspace)] == ["running", "finished"]
    assert newest.is_of_this_version
    monkeypatch.setattr(store, "VERSION", 99)
    assert not any(one.is_of_this_version for one in stored_searches(workspace))


def test_a_search_reads_the_data_that_its_config_prepares(workspace, base, search):
    started(search)
    expected = fingerprint(prepare.NAME, prepare.VERSION, prepare.reads(base), {})
    assert stored_searches(workspace)[0].prepared == expected


def describe(search, **changes):
    path = search.path / store.DESCRIPTION
    path.write_text(json.dumps(json.loads(path.read_bytes()) | changes))


def test_a_search_whose_space_is_tried_has_an_end(search):
    started(search, trials=9, values=(0.5, 0.6))
    with Ledger(search.path, IDENTITY) as ledger:
        ledger.exhaust()
        assert not search.status().is_done, "a trial has no end yet"
        ledger.finish(2, end("completed", 0.1))
    assert search.status().is_done
    assert stored_searches(search.workspace)[0].state == "finished"


def test_a_search_that_is_begun_anew_and_refused_leaves_the_one_before(search):
    started(search)
    key = search.create()
    search.set_aside()
    assert search.status() is None
    assert stored_searches(search.workspace) == []
    search.create()
    Ledger(search.path, IDENTITY).close()
    assert not search.drop_or_restore()
    assert search.create() == key
    assert search.status().finished == 2
    assert not search.drop_or_restore(), "there is nothing left to decide"


def test_a_search_that_is_begun_anew_replaces_the_one_before_with_its_first_trial(search):
    started(search)
    key = search.create()
    search.set_aside()
    started(search, values=())
    assert search.drop_or_restore()
    assert search.status().finished == 0
    assert search.create() != key
    assert not search.drop_or_restore()
