"""A registry that is read-only, or a server that goes away in the middle: done or not done, told in one line."""

import json
import shutil
import subprocess

import pytest
from mlflow_server import BreakingProxy, mlflow_server
from product import ONE_EPOCH, Place
from versions_of_a_model import NAME, connected, with_versions

from pipeline.tracking.champion_store import champion_store
from pipeline.tracking.champions import Reason, history, make_champion
from pipeline.tracking.sqlite_files import sqlite_uri

TAG, ALIAS = ("POST /api/2.0/mlflow/registered-models/" + what for what in ("set-tag", "alias"))


@pytest.fixture(scope="module")
def proxy(tmp_path_factory):
    """The way to a server."""
    with mlflow_server(tmp_path_factory.mktemp("server")) as port:
        proxy = BreakingProxy(port)
        yield proxy
        proxy.close()


def with_two_champions(root, name, environ=None):
    """Three versions; the second has become champion after the first."""
    connection = with_versions(root, 3, name, environ)
    store = champion_store(connection, to_write=True)
    make_champion(store, name, "2", Reason("promoted", "better"))
    return store


def changes_in(place, name):
    done = place.run("models", "history", name, "--json")
    assert done.code == 0, done.err
    return [(change["version"], change["kind"]) for change in json.loads(done.out)["changes"]]


@pytest.mark.parametrize("only_the_registry", [False, True])
def test_a_read_only_registry_can_be_looked_at_and_changes_of_it_are_refused(mounted, tmp_path, only_the_registry):
    with_two_champions(tmp_path / "made", NAME)
    database = mounted.root / "mlflow.db"
    shutil.copyfile(tmp_path / "made" / "mlflow.db", database)  # this process keeps its own open
    place = mounted
    place.set(MLFLOW_TRACKING_URI=None)
    if only_the_registry:
        place = Place(tmp_path / "another workspace", mlflow=True, MLFLOW_REGISTRY_URI=sqlite_uri(database))
    assert len(changes_in(place, NAME)) == 2
    subprocess.run(["mount", "-o", "remount,ro", mounted.root], check=True)
    before = database.read_bytes()
    for words in (["models", "promote", "3"], ["models", "rollback"]):
        done = place.run(*words)
        assert (done.code, len(done.errors)) == (1, 1), done.err
        assert "ead-only" in done.errors[0]
    assert changes_in(place, NAME) == [("1", "by hand"), ("2", "promoted")]
    done = place.run("models", "show", "champion", "--json")
    assert (done.code, json.loads(done.out)["version"]) == (0, "2"), done.err
    assert database.read_bytes() == before
    subprocess.run(["mount", "-o", "remount,rw", mounted.root], check=True)
    assert place.run("models", "promote", "3").code == 0
    assert changes_in(place, NAME)[2:] == [("3", "promoted")]
    place.end()


def test_what_a_read_only_registry_did_not_take_is_registered_once_it_can_be_written(mounted, finished, tmp_path):
    with_versions(tmp_path / "made", 1)
    database = mounted.root / "registry.db"
    shutil.copyfile(tmp_path / "made" / "mlflow.db", database)
    place = Place(tmp_path / "place", mlflow=True, MLFLOW_REGISTRY_URI=sqlite_uri(database))
    shutil.copytree(finished.root, place.root, dirs_exist_ok=True)
    assert changes_in(place, NAME) == [("1", "by hand")]
    subprocess.run(["mount", "-o", "remount,ro", mounted.root], check=True)
    done = place.run("run", "register", *ONE_EPOCH)
    assert (done.code, len(done.errors)) == (1, 1), done.err
    assert f"{database}: {mounted.root} is on a file system that is mounted read-only" in done.errors[0]
    assert done.errors[0].endswith("; then repeat the command")
    subprocess.run(["mount", "-o", "remount,rw", mounted.root], check=True)
    done = place.run("run", "register", *ONE_EPOCH, "--json")
    assert done.code == 0, done.err
    [model] = json.loads(done.out)["models"]
    assert [one["status"] for one in model["stages"].values()] == ["skipped", "skipped", "skipped", "done"]
    assert changes_in(place, "synthetic-airplane-automobile-bird-cat") == [("1", "registered")]
    place.end()


@pytest.mark.parametrize("how", ["unheard", "unanswered"])
@pytest.mark.parametrize(("at", "comes"), [(TAG, 1), (ALIAS, 1), (TAG, 2)], ids=["intended", "alias", "done"])
def test_a_promotion_that_loses_its_server_is_done_or_not_and_the_history_agrees(proxy, tmp_path, at, comes, how):
    name = f"task {at[-3:]} {comes} {how}"
    environ = {"MLFLOW_TRACKING_URI": proxy.address}
    proxy.open()
    store = with_two_champions(tmp_path, name, environ)
    proxy.open(at, how, comes)
    connection = connected(tmp_path, environ)
    with pytest.raises(Exception, match="then repeat the command"), connection.explaining_to_repeat():
        make_champion(store, name, "3", Reason("promoted", "because"))
    assert proxy.is_broken
    proxy.open()
    changes, champion = history(store, name), store.model(name).champion
    is_done = (at, comes) == (TAG, 2) or (at, how) == (ALIAS, "unanswered")
    assert champion == ("3" if is_done else "2")
    assert [change.version for change in changes] == ["1", "2", *(["3"] if is_done else [])]
    again = make_champion(store, name, "3", Reason("promoted", "because"))
    assert [(change.version, change.kind) for change in again] == [
        ("1", "by hand"), ("2", "promoted"), ("3", "promoted"),
    ]  # fmt: skip
    assert history(store, name) == again
    assert all(change.is_done for change in again)


def test_a_promotion_on_the_command_line_that_loses_its_server_says_so_and_is_repeated(proxy, tmp_path):
    name = "by command"
    proxy.open()
    with_two_champions(tmp_path / "made", name, {"MLFLOW_TRACKING_URI": proxy.address})
    place = Place(tmp_path / "place", mlflow=True, MLFLOW_TRACKING_URI=proxy.address)
    proxy.open(ALIAS, "unanswered")
    done = place.run("models", "promote", f"{name}/3", "--why", "größer")
    assert (done.code, len(done.errors)) == (1, 1), done.err
    assert done.errors[0].startswith(f"seqpipe: MLflow store {proxy.address}: ")
    assert done.errors[0].endswith("; then repeat the command")
    assert "journals" not in done.errors[0]
    done = place.run("models", "rollback", name)
    assert (done.code, len(done.errors)) == (1, 1), done.err
    proxy.open()
    done = place.run("models", "promote", f"{name}/3", "--why", "größer")
    assert (done.code, done.out) == (0, f"{name}: version 3 is champion already\n"), done.err
    assert changes_in(place, name) == [("1", "by hand"), ("2", "promoted"), ("3", "promoted")]
    place.end()


def test_a_registration_that_loses_its_server_at_every_step_ends_in_one_version(proxy, finished, tmp_path):
    place = Place(tmp_path / "place", mlflow=True, MLFLOW_TRACKING_URI=proxy.address)
    shutil.copytree(finished.root, place.root, dirs_exist_ok=True)
    steps = [
        ("POST /api/2.0/mlflow/logged-models", "unanswered", 2),  # after the search for it
        ("artifacts/best.safetensors", "unheard", 1),
        ("POST /api/2.0/mlflow/model-versions/create", "unanswered", 1),
        ("PATCH /api/2.0/mlflow/model-versions/update", "unheard", 1),
        (TAG, "unanswered", 1),
    ]
    for at, how, comes in steps:
        proxy.open(at, how, comes)
        done = place.run("run", "register", *ONE_EPOCH)
        assert (done.code, len(done.errors), proxy.is_broken) == (1, 1, True), (at, done.err)
    proxy.open()
    done = place.run("run", "register", *ONE_EPOCH, "--json")
    assert done.code == 0, done.err
    name = "synthetic-airplane-automobile-bird-cat"
    listed = json.loads(place.run("models", "list", "--json").out)["models"]
    [version] = next(one["versions"] for one in listed if one["name"] == name)
    assert (version["version"], version["aliases"]) == ("1", ["challenger", "champion"])
    assert changes_in(place, name) == [("1", "registered")]
    place.end()
