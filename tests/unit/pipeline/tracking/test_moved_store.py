"""Addresses follow a workspace that was moved or copied; everything else stays."""

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from product import sha256

from pipeline.errors import TrackingError
from pipeline.tracking import delivery_state, moved_store
from pipeline.tracking import settings as mlflow_settings
from pipeline.tracking.delivery_state import StoreRecord
from pipeline.tracking.sqlite_files import sqlite_uri
from pipeline.workspace.paths import Workspace

TABLES = {
    "experiments": ("experiment_id", "artifact_location", "creation_time"),
    "runs": ("run_uuid", "artifact_uri"),
    "logged_models": ("model_id", "artifact_location"),
    "model_versions": ("name", "source", "storage_location"),
    "trace_tags": ("key", "value"),
}

FOLLOW = """
import sys, pathlib
from pipeline.tracking import moved_store
from pipeline.tracking import settings as mlflow_settings
from pipeline.workspace.paths import Workspace
{}
workspace = Workspace(pathlib.Path(sys.argv[1]))
moved_store.update_addresses(mlflow_settings.load(workspace, {{}}), workspace, print)
"""


def follow(root, said=None, **environ):
    workspace = Workspace(root)
    say = said.append if said is not None else lambda text: None
    moved_store.update_addresses(mlflow_settings.load(workspace, environ), workspace, say)


def make_store(root, name="mlflow.db", files=True):
    """A store as MLflow makes it, as far as addresses go, and the record of what it was told of a run."""
    at = (root / "mlartifacts").as_uri()
    model = f"{at}/models/m-1/artifacts"
    root.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(root / name)) as store, store:
        for table, columns in TABLES.items():
            store.execute(f"CREATE TABLE {table} ({', '.join(columns)})")
        store.execute("INSERT INTO experiments VALUES (0, ?, 17), (1, ?, 18)", (f"{at}/0", at))
        store.execute("INSERT INTO runs VALUES ('r1', ?)", (f"{at}/r1/artifacts",))
        store.execute("INSERT INTO logged_models VALUES ('m-1', ?)", (model,))
        store.execute("INSERT INTO model_versions VALUES ('m', ?, ?)", (model, model))
        store.execute("INSERT INTO trace_tags VALUES ('mlflow.artifactLocation', ?)", (f"{at}/traces/t1",))
    if files:
        (root / "mlartifacts" / "r1" / "artifacts").mkdir(parents=True)
    workspace = Workspace(root)
    address = sqlite_uri(root / name)
    delivery_state.write_store(workspace, "key-1", StoreRecord(address, "r1", "1", "FINISHED"))


def addresses(root, name="mlflow.db"):
    with closing(sqlite3.connect(root / name)) as store:
        return [
            value
            for table, columns in TABLES.items()
            for row in store.execute(f"SELECT {', '.join(columns)} FROM {table}")
            for value in row
            if "/" in str(value)
        ]


def insert(root, statement, *values):
    with closing(sqlite3.connect(root / "mlflow.db")) as store, store:
        store.execute(statement, values)


def all_under(root, name="mlflow.db"):
    return all(address.startswith((root / "mlartifacts").as_uri()) for address in addresses(root, name))


@pytest.mark.parametrize(("before", "after"), [("ws", "ws2"), ("in a", "grüße 100% x"), ("ä 50%", "a+b #1?")])
def test_all_addresses_follow_a_workspace_that_was_moved(tmp_path, before, after):
    make_store(tmp_path / before)
    old = addresses(tmp_path / before)
    (tmp_path / before).rename(tmp_path / after)
    said = []
    follow(tmp_path / after, said)
    assert len(addresses(tmp_path / after)) == 7
    assert all_under(tmp_path / after)
    assert len(said) == 1
    assert f"from {tmp_path / before}: 7 addresses" in said[0]
    assert addresses(tmp_path / after, "mlflow.db.before-move") == old, "as it was, beside it"
    follow(tmp_path / after, said)
    assert len(said) == 1, "there is nothing left to do"


def test_many_moves_keep_one_copy(tmp_path):
    make_store(tmp_path / "0")
    for number in range(3):
        (tmp_path / str(number)).rename(tmp_path / str(number + 1))
        follow(tmp_path / str(number + 1))
    assert sorted(path.name for path in (tmp_path / "3").iterdir()) == [
        ".seqpipe", "mlartifacts", "mlflow.db", "mlflow.db.before-move",
    ]  # fmt: skip


def test_a_copy_leaves_its_original_as_it_is(tmp_path):
    make_store(tmp_path / "ws")
    before = sha256(tmp_path / "ws" / "mlflow.db")
    shutil.copytree(tmp_path / "ws", tmp_path / "copy")
    follow(tmp_path / "copy")
    follow(tmp_path / "ws")
    assert all_under(tmp_path / "copy")
    assert sha256(tmp_path / "ws" / "mlflow.db") == before
    assert not (tmp_path / "ws" / "mlflow.db.before-move").exists()


@pytest.mark.parametrize("lost", [".seqpipe", "nothing"])
def test_the_old_place_may_exist_again(tmp_path, lost):
    make_store(tmp_path / "ws")
    (tmp_path / "ws").rename(tmp_path / "ws2")
    (tmp_path / "ws").mkdir()
    (tmp_path / "ws" / "notes.txt").write_text("something else")
    if lost == "nothing":  # what was delivered where is known, so that even another store there is no doubt
        make_store(tmp_path / "ws")
        insert(tmp_path / "ws", "UPDATE experiments SET creation_time = 99")
    shutil.rmtree(tmp_path / "ws2" / lost, ignore_errors=True)
    follow(tmp_path / "ws2")
    assert all_under(tmp_path / "ws2")


@pytest.mark.parametrize(("before", "after"), [("ws", "ws/sub"), ("ws/sub", "ws")])
def test_a_workspace_may_move_into_its_own_folder_and_out_of_it(tmp_path, before, after):
    make_store(tmp_path / before)
    (tmp_path / after).mkdir(exist_ok=True)
    for name in ("mlflow.db", "mlartifacts", ".seqpipe"):
        shutil.move(tmp_path / before / name, tmp_path / after / name)
    said = []
    follow(tmp_path / after, said)
    follow(tmp_path / after, said)
    assert all_under(tmp_path / after)
    assert len(said) == 1


def test_what_lies_elsewhere_stays(tmp_path):
    make_store(tmp_path / "ws")
    elsewhere = [
        "s3://bucket/mlartifacts", "mlflow-artifacts:/5", "http://host/ws/mlartifacts", "models:/m-1",
        (tmp_path / "big disk" / "mlartifacts").as_uri(), str(tmp_path / "ws-2" / "mlartifacts" / "7"),
    ]  # fmt: skip
    for number, address in enumerate(elsewhere, 2):
        insert(tmp_path / "ws", "INSERT INTO experiments VALUES (?, ?, 1)", number, address)
        insert(tmp_path / "ws", "INSERT INTO runs VALUES (?, ?)", f"e{number}", address)
    follow(tmp_path / "ws")
    assert not (tmp_path / "ws" / "mlflow.db.before-move").exists()
    (tmp_path / "ws").rename(tmp_path / "moved")
    follow(tmp_path / "moved")
    assert [address for address in addresses(tmp_path / "moved") if "moved" not in address] == elsewhere * 2


def test_a_users_own_folder_in_the_workspace_follows_if_it_came_along(tmp_path):
    make_store(tmp_path / "ws")
    for number, name in enumerate(("mlruns", "stayed"), 2):
        (tmp_path / "ws" / name).mkdir()
        insert(tmp_path / "ws", "INSERT INTO experiments VALUES (?, ?, 1)", number, str(tmp_path / "ws" / name))
    shutil.copytree(tmp_path / "ws", tmp_path / "copy", ignore=shutil.ignore_patterns("stayed"))
    follow(tmp_path / "copy")
    assert str(tmp_path / "copy" / "mlruns") in addresses(tmp_path / "copy")
    assert str(tmp_path / "ws" / "stayed") in addresses(tmp_path / "copy")


def test_another_name_for_the_same_place_is_no_move(tmp_path):
    make_store(tmp_path / "ws")
    (tmp_path / "link").symlink_to("ws")
    before = sha256(tmp_path / "ws" / "mlflow.db")
    follow(tmp_path / "link")
    assert sha256(tmp_path / "ws" / "mlflow.db") == before


def test_a_store_that_never_lay_there_is_not_taken_for_moved(tmp_path):
    make_store(tmp_path / "ws")
    shutil.rmtree(tmp_path / "ws" / ".seqpipe")
    make_store(tmp_path / "other")
    insert(tmp_path / "other", "UPDATE experiments SET creation_time = 99")
    at = (tmp_path / "other" / "mlartifacts" / "0").as_uri()
    insert(tmp_path / "ws", "UPDATE experiments SET artifact_location = ? WHERE experiment_id = 0", at)
    follow(tmp_path / "ws")
    assert at in addresses(tmp_path / "ws")


def test_the_registrys_own_file_follows_too(tmp_path):
    root = tmp_path / "ws"
    make_store(root)
    make_store(root, "registry.db", files=False)
    (root / "mlflow.yaml").write_text("registry_uri: sqlite:///registry.db\n")
    root.rename(tmp_path / "ws2")
    said = []
    follow(tmp_path / "ws2", said)
    assert all_under(tmp_path / "ws2", "registry.db")
    assert all_under(tmp_path / "ws2")
    assert len(said) == 2


def test_a_server_is_not_asked(tmp_path):
    make_store(tmp_path / "ws")
    (tmp_path / "ws").rename(tmp_path / "ws2")
    follow(tmp_path / "ws2", MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert not all_under(tmp_path / "ws2")


def test_what_the_store_was_told_stays_known(tmp_path):
    make_store(tmp_path / "ws")
    elsewhere = StoreRecord(sqlite_uri(tmp_path / "ws" / "mlflow.db"), "of a run that is not there", "1")
    delivery_state.write_store(Workspace(tmp_path / "ws"), "key-2", elsewhere)
    (tmp_path / "ws").rename(tmp_path / "ws2")
    follow(tmp_path / "ws2")
    workspace = Workspace(tmp_path / "ws2")
    address = mlflow_settings.load(workspace, {}).address
    assert delivery_state.read_store(workspace, "key-1", address) == StoreRecord(address, "r1", "1", "FINISHED")
    assert delivery_state.read_store(workspace, "key-2", address) is None
    assert len(list((workspace.hidden / "runs").iterdir())) == 1


def test_artifacts_that_stayed_behind_are_said(tmp_path):
    make_store(tmp_path / "ws")
    shutil.copytree(tmp_path / "ws", tmp_path / "copy", ignore=shutil.ignore_patterns("mlartifacts"))
    said = []
    follow(tmp_path / "copy", said)
    assert all_under(tmp_path / "copy"), "nothing is ever written into the original"
    assert said[1].startswith("1 runs or models have files in")
    subprocess.run(["sh", "-c", said[1].split("`")[1]], check=True)
    assert (tmp_path / "copy" / "mlartifacts" / "r1" / "artifacts").is_dir()


def test_a_store_that_is_in_use_is_left_as_it_is_and_said(tmp_path, monkeypatch):
    monkeypatch.setattr(moved_store, "PATIENCE_S", 0.1)
    make_store(tmp_path / "ws")
    (tmp_path / "ws").rename(tmp_path / "ws2")
    with closing(sqlite3.connect(tmp_path / "ws2" / "mlflow.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(TrackingError, match=r"locked\), and nothing was changed: end the program that holds it"):
            follow(tmp_path / "ws2")
    assert not all_under(tmp_path / "ws2")
    follow(tmp_path / "ws2")
    assert all_under(tmp_path / "ws2")


def test_a_read_only_place_is_left_as_it_is_and_said(mounted):
    make_store(mounted.root / "ws")
    (mounted.root / "ws").rename(mounted.root / "ws2")
    subprocess.run(["mount", "-o", "remount,ro", mounted.root], check=True)
    with pytest.raises(TrackingError, match="nothing was changed: make it and its folder writable"):
        follow(mounted.root / "ws2")


@pytest.mark.parametrize("after_calls", [1, 8, 12])
def test_a_kill_in_the_middle_changes_nothing(tmp_path, after_calls):
    make_store(tmp_path / "ws")
    old = addresses(tmp_path / "ws")
    (tmp_path / "ws").rename(tmp_path / "ws2")
    killed = (
        "import os\n"
        "moved, calls = moved_store._moved, iter(range(int(sys.argv[2])))\n"
        "moved_store._moved = lambda *given: os._exit(9) if next(calls, None) is None else moved(*given)\n"
    )
    words = [sys.executable, "-c", FOLLOW.format(killed), str(tmp_path / "ws2"), str(after_calls)]
    done = subprocess.run(words, check=False)
    assert done.returncode == 9
    assert addresses(tmp_path / "ws2") == old
    follow(tmp_path / "ws2")
    assert all_under(tmp_path / "ws2")


def test_where_another_command_was_quicker_nothing_is_rewritten_or_kept(tmp_path):
    make_store(tmp_path / "ws")
    before = addresses(tmp_path / "ws")
    assert moved_store._rewrite(tmp_path / "ws" / "mlflow.db", [tmp_path / "gone"], tmp_path / "ws") == 0
    assert addresses(tmp_path / "ws") == before
    assert not list((tmp_path / "ws").glob("*before-move*"))


def test_commands_at_once_mend_once(tmp_path):
    make_store(tmp_path / "ws")
    (tmp_path / "ws").rename(tmp_path / "ws2")
    words = [sys.executable, "-c", FOLLOW.format(""), str(tmp_path / "ws2")]
    at_once = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [process.communicate()[0] for process in at_once]
    assert [process.returncode for process in at_once] == [0, 0, 0]
    assert sum("7 addresses" in one for one in said) == 1
    assert all_under(tmp_path / "ws2")


@pytest.mark.parametrize("content", [None, b"", b"no database at all, but long enough to be looked at by SQLite" * 9])
def test_a_store_that_is_not_there_or_damaged_is_for_others_to_say(tmp_path, content):
    if content is not None:
        (tmp_path / "mlflow.db").write_bytes(content)
    follow(tmp_path)
    assert content is not None or not (tmp_path / "mlflow.db").exists()


def test_addresses_of_other_kinds_have_no_path():
    assert moved_store.local_path("file:///a%20b/%25") == Path("/a b/%")
    assert moved_store.local_path("/a%20b") == Path("/a%20b")
    for address in ("s3://b/x", "mlflow-artifacts:/0", "file://host/x", "relative/x", "", None):
        assert moved_store.local_path(address) is None
