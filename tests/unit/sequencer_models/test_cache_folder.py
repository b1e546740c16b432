from pathlib import Path

import pytest

from sequencer_models.cache_folder import cache_folder


def test_it_is_the_variable_s_folder_else_the_one_in_the_user_s_home(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert cache_folder() == Path("/caches/seqpipe")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", "/home/ada")
    assert cache_folder() == Path("/home/ada/.cache/seqpipe")


def test_a_user_without_a_home_has_none_that_could_be_created(monkeypatch):
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(NotADirectoryError):
        cache_folder().mkdir(parents=True, exist_ok=True)
