"""What a report is about: by words, of the last runs, or all."""

import pytest
from ledgers import end, write_ledger

from pipeline.config.resolution import resolve
from pipeline.errors import ConfigError
from pipeline.reports.named_runs import RunFinder
from pipeline.reports.report_choice import Chooser
from pipeline.search.space import space_for
from pipeline.search.store import SearchFolder
from pipeline.stages import last_runs
from pipeline.stages.results import TrainedModel


def config_of(*sets):
    return resolve("vanilla", sets=["data.source=synthetic", *sets])


@pytest.fixture
def keys(house):
    """Of three seeds, and of a training with more epochs."""
    settings = ("seed=0", "seed=1", "seed=2", "train.epochs=5")
    return [house.run(one, through="train").results[TrainedModel].run_key for one in settings]


@pytest.fixture
def chooser(house):
    mlflow = house.context.mlflow
    return Chooser(RunFinder(house.workspace, mlflow.address), mlflow)


def search_in(house, seed):
    """A search with one trial; its id."""
    config = config_of(f"seed={seed}")
    folder = SearchFolder.of(house.workspace, config, space_for(config))
    folder.create()
    write_ledger(folder.path, [end(value=0.5)], 1)
    return folder.fingerprint


def keys_of(choice):
    return [[run.key for run in group] for group in choice.groups]


def test_words_name_trainings_which_are_grouped_by_what_they_share_beside_the_seed(chooser, keys):
    assert keys_of(chooser.named([keys[2], keys[3], keys[0], keys[2][:12]])) == [[keys[0], keys[2]], [keys[3]]]
    assert keys_of(chooser.named([f"{keys[1]}:seeds"])) == [keys[:3]]


def test_a_search_is_named_by_its_id_the_beginning_of_it_or_as_tune_shows_it(chooser, house, keys):
    one, other = search_in(house, 0), search_in(house, 1)
    for word in (one, one[:8], f"search {one}"):
        choice = chooser.named([word])
        assert [search.folder.name for search in choice.searches] == [one]
        assert choice.groups == ()
    both = chooser.named([other, keys[0], one, other])
    assert [search.folder.name for search in both.searches] == [other, one]
    assert keys_of(both) == [[keys[0]]]


def test_a_word_for_nothing_is_refused_with_what_there_is(chooser, keys):
    with pytest.raises(ConfigError, match="no training here is called 'nonsense'"):
        chooser.named(["nonsense"])


def test_without_words_it_is_the_last_run_of_each_model_and_its_newest_search(chooser, house, keys):
    search = search_in(house, 0)
    last_runs.write(house.workspace, [config_of("seed=0"), config_of("seed=2")])
    choice = chooser.last()
    assert keys_of(choice) == [[keys[0], keys[2]]]
    assert [one.folder.name for one in choice.searches] == [search]


def test_where_the_last_runs_are_not_known_it_is_the_newest_training_with_its_seeds(chooser, house, keys):
    (house.workspace.hidden / last_runs.NAME).unlink(missing_ok=True)
    [group] = keys_of(chooser.last())
    assert group in (keys[:3], keys[3:])


def test_all_is_everything_and_an_empty_workspace_is_told_how_to_begin(chooser, house, request):
    for choose in (chooser.last, chooser.all):
        with pytest.raises(ConfigError, match="`seqpipe run all` trains a model"):
            choose()
    keys = request.getfixturevalue("keys")
    search_in(house, 0)
    choice = chooser.all()
    assert sorted(map(sorted, keys_of(choice))) == sorted([sorted(keys[:3]), keys[3:]])
    assert len(choice.searches) == 1
