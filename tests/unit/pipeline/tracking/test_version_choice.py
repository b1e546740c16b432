"""How a version is named, and which one that is."""

import pytest

from pipeline.errors import ConfigError, ModelError
from pipeline.tracking.version_choice import StoredVersion, VersionChoice, choose


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("cifar10-cat@champion", VersionChoice("cifar10-cat", "champion")),
        ("cifar10-cat@best of all", VersionChoice("cifar10-cat", "best of all")),
        ("cifar10-cat", VersionChoice("cifar10-cat", "champion")),
        ("cifar10-cat/12", VersionChoice("cifar10-cat", number="12")),
        ("models:/cifar10-cat/12", VersionChoice("cifar10-cat", number="12")),
        ("models:/cifar10-cat@challenger", VersionChoice("cifar10-cat", "challenger")),
        ("@challenger", VersionChoice(None, "challenger")),
        ("/3", VersionChoice(None, number="3")),
        ("my_model.v2", VersionChoice("my_model.v2")),
    ],
)
def test_a_version_is_named_by_alias_or_number(text, choice):
    assert VersionChoice.parse(text) == choice


@pytest.mark.parametrize(
    "text", ["", "models:/", "a/b", "a/0", "a/01", "a/-1", "a/1/2", "a@", "@", "/", "a/latest", "a:b"]
)
def test_anything_else_is_refused_with_what_would_do(text):
    with pytest.raises(ConfigError, match="write NAME@champion, NAME@ALIAS or NAME/NUMBER"):
        VersionChoice.parse(text)


def stored(name: str, number: str, *aliases: str) -> StoredVersion:
    return StoredVersion(name, number, aliases, "r", "file:///x")


VERSIONS = {
    "m": {"1": stored("m", "1"), "2": stored("m", "2", "champion"), "3": stored("m", "3", "challenger")},
    "n": {},
}


def chosen(text: str, *names: str) -> str:
    return choose(VersionChoice.parse(text), names, VERSIONS.__getitem__).number


def test_a_version_is_found_by_alias_and_by_number():
    assert chosen("m@champion", "m", "n") == chosen("m", "m", "n") == chosen("@champion", "m") == "2"
    assert chosen("m/1", "m", "n") == chosen("/1", "m") == "1"
    assert chosen("@challenger", "m") == "3"


@pytest.mark.parametrize(
    ("text", "names", "error", "says"),
    [
        ("m", (), ModelError, "no model is registered here yet: `seqpipe run all` trains one"),
        ("@champion", (), ModelError, "no model is registered"),
        ("@champion", ("n", "m"), ConfigError, r"several models are registered: name one of m, n"),
        ("mm", ("m", "n"), ConfigError, "no model 'mm' is registered"),
        ("m/7", ("m",), ConfigError, "m has no version 7; versions: 1, 2, 3"),
        ("m@best", ("m",), ConfigError, "m has no best; aliases: champion, challenger; versions: 1, 2, 3"),
        ("n", ("n",), ConfigError, "n has no champion; it has no aliases; it has no versions"),
    ],
)
def test_what_is_not_there_is_told_with_what_is(text, names, error, says):
    with pytest.raises(error, match=says) as caught:
        chosen(text, *names)
    assert "\n" not in str(caught.value)


def test_a_version_says_what_it_is():
    assert str(stored("m", "2", "challenger", "champion")) == "m, version 2 (challenger, champion)"
    assert str(stored("m", "1")) == "m, version 1"
