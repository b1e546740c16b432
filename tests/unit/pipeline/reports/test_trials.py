"""Trials of searches among the runs that are compared: on the validation split, and on no other."""

import json

import pytest
from ledgers import end, run_trial

from pipeline.config.keys import to_yaml
from pipeline.config.resolution import resolve
from pipeline.errors import ConfigError
from pipeline.reports import trials
from pipeline.reports.comparison_page import page
from pipeline.reports.comparison_words import sections
from pipeline.reports.named_runs import NamedRun, RunFinder
from pipeline.reports.validation_comparison import compare_on_validation, has_trials
from pipeline.search.space import configuration
from pipeline.search.store import SearchFolder, stored_searches
from pipeline.tracking import delivery_state
from pipeline.tracking.delivery_state import StoreRecord
from tuning.ledger import Ledger
from tuning.space import Space

ADDRESS = "sqlite:///here"
SPACE = Space.parse({"model.hidden": {"choice": [8, 16]}})
REGISTERED = NamedRun("k9", "task/9", "small", 10, None)


def searched(place, *sets):
    """A search of vanilla on the data of `place`: a whole trial, one that was stopped, one that has just begun."""
    base = resolve("vanilla", sets=["data.source=synthetic", *sets])
    folder = SearchFolder.of(place.workspace, base, SPACE)
    key = folder.create()
    with Ledger(folder.path, folder.identity) as ledger:
        ledger.raise_target(3)
        run_trial(ledger, {"model.hidden": 8}, end("completed", 0.75), [0.5, 0.75, 0.625])
        run_trial(ledger, {"model.hidden": 16}, end("stopped", 0.25), [0.25, float("nan")])
        run_trial(ledger, {"model.hidden": 16}, None)
        for row in ledger.rows:
            path = folder.path / "trials" / f"{row.number:03d}" / "config.yaml"
            path.parent.mkdir(parents=True)
            path.write_text(to_yaml(configuration(base, row.config)))
    delivery_state.write_store(place.workspace, f"{key}-00001", StoreRecord(ADDRESS, "f00ba4", "1"))
    return key


@pytest.fixture
def place(house):
    """A training of vanilla, and a search on the same data."""
    house.run("train.epochs=5", through="train")
    house.key = searched(house)
    return house


@pytest.fixture
def find(place):
    finder = RunFinder(
        place.workspace,
        ADDRESS,
        lambda word: REGISTERED if word == "champion" else None,
        lambda word: trials.named(place.workspace, word, ADDRESS),
    )
    return lambda *words: finder.find(words)


def words(found):
    return "\n".join(line for section in sections(found) for line in (section.heading, *section.lines))


def test_a_trial_is_found_by_its_name_its_key_and_its_id(find, place):
    for word, number in (("trial 001", 1), (f"{place.key}-00001", 1), ("f00ba4", 1), ("f00b", 1), ("trial 000", 0)):
        [side] = find(word)
        assert [(run.key, run.is_trial) for run in side.runs] == [(f"{place.key}-{number:05d}", True)]
    [search] = stored_searches(place.workspace)
    assert search.trial_key(1) == f"{place.key}-00001"


def test_trials_and_a_training_are_compared_on_the_validation_images(find):
    sides = find("run", "trial 000", "trial 001")
    assert has_trials(sides)
    assert not has_trials(find("run"))
    found = compare_on_validation(sides)
    assert (found.images, len(found.class_names)) == (12, 4)
    assert [(one.accuracy, one.epoch, one.trained) for one in found.sides] == [
        (0.5, 1, "5 epochs"),
        (0.75, 2, "trial, completed, 3 of 9 epochs"),
        (0.25, 1, "trial, stopped, 2 of 9 epochs"),
    ]
    better, worse = found.against
    changed = {one.key: (one.before, one.after) for one in better.settings}
    assert changed["train.epochs"] == (5, 9)
    assert changed["model.hidden"][1] == 8
    # Newcombe's table 2 has no such case; by hand from Wilson's limits of 6 and of 9 in 12
    assert [round(one, 4) for one in vars(better.accuracy).values()] == [0.25, -0.1246, 0.5442]
    assert worse.accuracy.estimate == -0.25
    text = words(found)
    assert "12 validation images" in text
    assert "to choose among trials by test figures would spend them" in text
    assert "no test is paired" in text
    content = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert (content["split"], content["sides"][1]["accuracy"]) == ("validation", 0.75)
    assert "<img" not in page(found, None)


def test_a_trial_that_says_nothing_yet_is_refused_with_the_reason(find, place):
    with pytest.raises(ConfigError, match=r"trial 002 \(.*\) has no whole epoch to compare: it has just begun"):
        find("trial 002")
    [search] = stored_searches(place.workspace)
    (search.trial_folder(0) / "config.yaml").unlink()
    with pytest.raises(ConfigError, match="has lost its settings"):
        find("trial 000")


def test_trials_of_one_name_in_two_searches_are_told_apart_by_their_keys(find, place):
    other = searched(place, "seed=7")
    with pytest.raises(ConfigError, match=rf"names 2 runs; say which by its key: .*{other}-00000"):
        find("trial 000")
    assert compare_on_validation(find(f"{place.key}-00000", f"{other}-00000")).against[0].accuracy.estimate == 0


def test_what_was_validated_on_other_images_is_refused(find, place):
    other = searched(place, "data.validation_fraction=0.3")
    with pytest.raises(ConfigError, match="their validation images differ, or their classes"):
        compare_on_validation(find("run", f"{other}-00000"))


def test_a_registered_version_from_elsewhere_and_a_group_are_refused_with_the_reason(find):
    with pytest.raises(ConfigError, match=r"task/9 \(k9\) was not trained here"):
        compare_on_validation(find("trial 000", "champion"))
    with pytest.raises(ConfigError, match="a group cannot be compared with trials"):
        compare_on_validation(find("run+trial 000", "trial 001"))
    with pytest.raises(ConfigError, match="its seeds are not known"):
        find("trial 000:seeds")


def test_without_the_prepared_data_the_number_of_images_is_not_known(find, place):
    for manifest in place.workspace.stage("prepare").glob("*/manifest.json"):
        manifest.unlink()
    with pytest.raises(ConfigError, match="their prepared data are gone"):
        compare_on_validation(find("run", "trial 000"))
