"""Registered versions as users write them beside the names of runs, with a stand-in for MLflow's client."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from pipeline.errors import ConfigError
from pipeline.tracking import model_versions
from pipeline.tracking.version_choice import StoredVersion, choose
from pipeline.tracking.version_words import find_version, may_be_version

VERSIONS = {
    "cats": {"1": StoredVersion("cats", "1", ("champion", "old one"), None, ""),
             "2": StoredVersion("cats", "2", ("challenger",), None, "")},
    "dogs": {"1": StoredVersion("dogs", "1", ("champion",), None, "")},
}  # fmt: skip


class Client:
    tracking_uri = ""

    def get_model_version(self, name, number):
        return SimpleNamespace(version=number, tags={"n": number}, source="")


@pytest.fixture
def find(tmp_path, monkeypatch):
    connection = SimpleNamespace(explaining=nullcontext, client=lambda *, to_write: Client())

    def words(word, names=tuple(VERSIONS)):
        monkeypatch.setattr(
            model_versions, "find_version", lambda choice, _: choose(choice, list(names), lambda name: VERSIONS[name])
        )
        found = find_version(connection, word, tmp_path)
        return None if found is None else found.words

    return words


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("cats@champion", "cats/1"),
        ("cats@old one", "cats/1"),
        ("cats/2", "cats/2"),
        ("dogs@champion", "dogs/1"),
        ("cats/3", None),
        ("birds/1", None),
        ("cats@nothing", None),
        ("a run+cats@champion", None),
        ("small, 4 classes, seed 0", None),
    ],
)
def test_a_version_is_found_by_number_and_by_alias(find, word, found):
    assert find(word) == found


def test_an_alias_alone_is_of_the_only_model(find):
    assert find("challenger", ["cats"]) == "cats/2"
    with pytest.raises(ConfigError, match="name one of cats, dogs"):
        find("champion")
    with pytest.raises(ConfigError, match="dogs has no challenger"):
        find("challenger", ["dogs"])


def test_where_nothing_is_registered_and_for_words_of_another_form_there_is_none(find):
    assert find("champion", []) is None
    assert [word for word in ("f00ba4", "a/b", "it's@x", "/", "12") if may_be_version(word)] == []
