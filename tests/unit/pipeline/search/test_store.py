import json

import pytest
from few_images import config_with

from pipeline.search import store as places
from pipeline.search.store import SearchPlace, Standing
from pipeline.stages import prepare
from pipeline.workspace.fingerprints import fingerprint
from pipeline.workspace.locks import exclusive
from tuning.ledger import Finish, Ledger
from tuning.space import Space


def begun(place, trials=3, values=(0.5, None)):
    """A search of which some trials have ended; None: at the cap."""
    place.begin()
    with Ledger(place.folder, {"any": "thing"}) as ledger:
        ledger.raise_target(trials)
        for number, value in enumerate(values):
            ledger.propose({"x": number}, "random")
            ledger.start(number, "here")
            ledger.finish(number, Finish("memory_cap" if value is None else "completed", value))
        ledger.propose({"x": len(values)}, "random")
    return place


@pytest.mark.parametrize(
    "change", ["model.layers=2", "train.epochs=3", "seed=1", "data.fraction=0.5", "compute.precision=bf16"]
)
def test_other_settings_are_another_search(workspace, place, space, change):
    assert SearchPlace.of(workspace, config_with(change), space).folder != place.folder


@pytest.mark.parametrize(
    "change", ["compute.threads=2", "compute.max_time_s=9", "compute.max_memory_mb=900", "evaluate.mistakes=3"]
)
def test_what_a_training_does_not_read_is_no_other_search(workspace, place, space, change):
    assert SearchPlace.of(workspace, config_with(change), space).folder == place.folder


def test_another_space_or_version_is_another_search(workspace, base, place, space, monkeypatch):
    other = Space.parse(space.to_json() | {"model.hidden": {"choice": [8, 16]}})
    assert SearchPlace.of(workspace, base, other).folder != place.folder
    assert SearchPlace.of(workspace, base, Space.parse(space.to_json())).folder == place.folder
    monkeypatch.setattr(places, "VERSION", 99)
    assert SearchPlace.of(workspace, base, space).folder != place.folder


def test_how_far_a_search_is_comes_from_its_ledger_whole_or_being_written(place):
    assert place.standing() is None
    begun(place)
    assert place.standing() == Standing(target=3, proposed=3, finished=2, best=0.5)
    assert place.standing().in_words() == "2 of 3 trials, best 50.00 %"
    with (place.folder / "ledger.jsonl").open("ab") as file:
        file.write(b'{"event":"finished","row":2,"outco')
    assert place.standing().finished == 2


def test_a_search_keeps_its_run_until_it_is_discarded(place):
    key = place.begin()
    assert place.begin() == key
    place.discard()
    assert not place.folder.exists()
    assert place.begin() != key


def test_the_search_before_is_named_with_what_differs(workspace, base, place, space):
    assert place.nearest_other() is None
    begun(SearchPlace.of(workspace, config_with("train.epochs=9", "model.layers=2"), space))
    near = begun(
        SearchPlace.of(workspace, base, Space.parse(space.to_json() | {"train.weight_decay": {"uniform": [0, 1]}}))
    )
    SearchPlace.of(workspace, config_with("train.epochs=8"), space).begin()  # never searched
    folder, differing = place.nearest_other()
    assert (folder, differing) == (near.folder, ["space.train.weight_decay"])
    other = SearchPlace.of(workspace, config_with("train.epochs=9"), space)
    assert other.nearest_other()[1] == ["base.model.layers"]


def test_a_damaged_description_names_no_search_and_is_written_anew(place):
    key = place.begin()
    (place.folder / "search.json").write_text("{")
    assert list(places.described(place.workspace)) == []
    assert place.begin() != key
    assert json.loads((place.folder / "search.json").read_bytes())["identity"] == place.identity


def test_every_search_of_a_workspace_is_told_the_newest_first(workspace, base, place, space, monkeypatch):
    other = begun(SearchPlace.of(workspace, config_with("train.epochs=9"), space), values=(0.5, 0.6, 0.7))
    describe(other, created="2000-01-01 00:00:00")
    begun(place)
    SearchPlace.of(workspace, config_with("train.epochs=5"), space).begin()  # described, and nothing proposed
    newest, oldest = places.begun(workspace)
    assert (newest.folder, newest.state, newest.standing.in_words()) == (
        place.folder, "unfinished", "2 of 3 trials, best 50.00 %"
    )  # fmt: skip
    assert (oldest.folder, oldest.state, oldest.standing.is_done) == (other.folder, "finished", True)
    with exclusive(place.lock, print, what="it"):
        assert [one.state for one in places.begun(workspace)] == ["running", "finished"]
    assert newest.is_of_this_version
    monkeypatch.setattr(places, "VERSION", 99)
    assert not any(one.is_of_this_version for one in places.begun(workspace))


def test_a_search_reads_the_data_that_its_config_prepares(workspace, base, place):
    begun(place)
    expected = fingerprint(prepare.NAME, prepare.VERSION, prepare.reads(base), {})
    assert places.begun(workspace)[0].prepared == expected


def describe(place, **changes):
    path = place.folder / places.DESCRIPTION
    path.write_text(json.dumps(json.loads(path.read_bytes()) | changes))


def test_a_search_whose_space_is_tried_has_an_end(place):
    begun(place, trials=9, values=(0.5, 0.6))
    with Ledger(place.folder, {"any": "thing"}) as ledger:
        ledger.exhaust()
        assert not place.standing().is_done, "a trial has no end yet"
        ledger.finish(2, Finish("completed", 0.1))
    assert place.standing().is_done
    assert places.begun(place.workspace)[0].state == "finished"


def test_a_search_that_is_begun_anew_and_refused_leaves_the_one_before(place):
    begun(place)
    key = place.begin()
    place.set_aside()
    assert place.standing() is None
    assert places.begun(place.workspace) == []
    place.begin()
    Ledger(place.folder, {"any": "thing"}).close()
    assert not place.settle()
    assert place.begin() == key
    assert place.standing().finished == 2
    assert not place.settle(), "there is nothing left to decide"


def test_a_search_that_is_begun_anew_replaces_the_one_before_with_its_first_trial(place):
    begun(place)
    key = place.begin()
    place.set_aside()
    begun(place, values=())
    assert place.settle()
    assert place.standing().finished == 0
    assert place.begin() != key
    assert not place.settle()
