"""Registered versions as users write them, with a stand-in for MLflow's client."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

from pipeline.errors import ConfigError
from pipeline.tracking.version_words import find_version, may_be_version

VERSIONS = {"cats": (1, 2), "team/dogs": (1,)}
ALIASES = {("cats", "champion"): 1, ("cats", "challenger"): 2, ("team/dogs", "champion"): 1, ("cats", "old one"): 1}


class Page(list):
    token = None


class Client:
    tracking_uri = ""

    def search_registered_models(self, query, page_token):
        return Page(SimpleNamespace(name=name) for name in VERSIONS)

    def search_model_versions(self, query, page_token):
        name = query.removeprefix("name = '").removesuffix("'")
        return Page(SimpleNamespace(version=n, tags={"n": str(n)}, source="") for n in VERSIONS.get(name, ()))

    def get_model_version_by_alias(self, name, alias):
        if (name, alias) not in ALIASES:
            raise MlflowException("none", RESOURCE_DOES_NOT_EXIST)
        return SimpleNamespace(version=ALIASES[name, alias])


@pytest.fixture
def find(tmp_path):
    connection = SimpleNamespace(
        settings=SimpleNamespace(is_gone=False),
        explaining=nullcontext,
        client=lambda *, to_write: Client(),
    )

    def words(word):
        found = find_version(connection, word, tmp_path)
        return None if found is None else found.words

    words.connection = connection
    return words


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("challenger", "cats/2"),
        ("cats@champion", "cats/1"),
        ("cats@old one", "cats/1"),
        ("cats/2", "cats/2"),
        ("team/dogs/1", "team/dogs/1"),
        ("team/dogs@champion", "team/dogs/1"),
        ("cats/3", None),
        ("birds/1", None),
        ("cats@nothing", None),
        ("small, 4 classes, seed 0", None),
    ],
)
def test_a_version_is_found_by_number_and_by_alias(find, word, found):
    assert find(word) == found


def test_an_alias_that_several_models_have_is_refused_with_what_to_write(find):
    with pytest.raises(ConfigError, match="say which: cats@champion, team/dogs@champion"):
        find("champion")


def test_a_store_that_is_gone_and_words_of_another_form_are_not_asked_for(find):
    find.connection.settings.is_gone = True
    assert find("cats/2") is None
    assert [word for word in ("f00ba4", "a/b", "it's@x", "/", "12") if may_be_version(word)] == []
