"""Promotions that are killed, that meet each other, and that go to a server."""

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from versions_of_a_model import NAME, champions_of, connected, with_versions

from pipeline.tracking.champion_store import champion_store
from pipeline.tracking.champions import Reason, history, make_champion, registry_lock, roll_back

KILLS, ROUNDS = 100, 200
REPOSITORY = Path(__file__).parents[2]
SUPPORT = REPOSITORY / "tests" / "support"
KILL_PROMOTIONS = """
import json, os, random, signal, sys, time
from pathlib import Path
from versions_of_a_model import NAME, champions_of, connected
from pipeline.tracking.champions import Reason, history, make_champion, registry_lock
import mlflow.store.model_registry.sqlalchemy_store, mlflow.store.tracking.sqlalchemy_store  # what is forked has them

root, kills, kind = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
draws = random.Random(5)


def forked(work):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work(write)
        finally:
            os._exit(0)
    os.close(write)
    return child, read


def look(write):
    connection = connected(root)
    client = connection.client()
    changes = history(champions_of(connection, kind), NAME)
    champion = client.get_registered_model(NAME).aliases.get("champion")
    kinds = [change.kind for change in changes]
    os.write(write, json.dumps([str(champion), [change.version for change in changes], kinds]).encode())


def promote(write):
    connection = connected(root)
    store = champions_of(connection, kind)
    for number in range(10**6):
        version = str(1 + number % 3)
        os.write(write, b"b" + version.encode())
        with registry_lock(connection.workspace):
            make_champion(store, NAME, version, Reason("promoted", "because"))
        os.write(write, b"e" + version.encode())


done = open_ended = 0
for kill in range(kills):
    child, read = forked(promote)
    said = os.read(read, 2)  # it works now
    time.sleep(draws.uniform(0, 0.1))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while piece := os.read(read, 65536):
        said += piece
    os.close(read)
    words = [said[at : at + 2].decode() for at in range(0, len(said), 2)]
    looker, told = forked(look)
    champion, versions, kinds = json.loads(os.read(told, 10**6))
    os.close(told)
    os.waitpid(looker, 0)
    assert versions[-1] == champion, (versions[-5:], champion)
    assert set(kinds[1:]) <= {"promoted"}, kinds[-5:]
    last = words[-1]
    if last[0] == "e":
        assert champion == last[1]
    else:
        before = [word[1] for word in words if word[0] == "e"][-1:]
        open_ended += 1
        done += champion == last[1]
        assert champion == last[1] or not before or champion == before[0]
print(json.dumps({"killed inside": open_ended, "of these done": done}))
"""
PROMOTE_MANY = """
import sys
from pathlib import Path
from versions_of_a_model import NAME, champions_of, connected
from pipeline.tracking.champions import Reason, make_champion, registry_lock

connection = connected(Path(sys.argv[1]))
store = champions_of(connection, sys.argv[4])
for number in range(int(sys.argv[2])):
    with registry_lock(connection.workspace):
        make_champion(store, NAME, str(int(sys.argv[3]) + number % 2), Reason("promoted", f"round {number}"))
    assert store.model(NAME).champion is not None
"""


def script(code, *words):
    environ = os.environ | {"PYTHONPATH": f"{SUPPORT}:{REPOSITORY}"}
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)], env=environ, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("kind", ["sqlite", "mlflow"])
def test_a_promotion_that_is_killed_at_any_moment_is_done_or_not_and_the_history_agrees(tmp_path, kind):
    with_versions(tmp_path, 3)
    killer = script(KILL_PROMOTIONS, tmp_path, KILLS, kind)
    told, _ = killer.communicate(timeout=540)
    assert killer.returncode == 0
    found = json.loads(told)
    print(found)
    assert found["killed inside"] > KILLS / 4


@pytest.mark.parametrize("kinds", [("sqlite", "sqlite"), ("sqlite", "mlflow")], ids=str)
def test_two_processes_that_promote_at_once_leave_one_champion_and_a_history_of_all(tmp_path, kinds):
    connection = with_versions(tmp_path, 4)
    both = [script(PROMOTE_MANY, tmp_path, ROUNDS, first, kind) for first, kind in zip((1, 3), kinds, strict=True)]
    for each in both:
        each.communicate(timeout=500)
        assert each.returncode == 0
    client = connection.client()
    changes = history(champions_of(connection, "sqlite"), NAME)
    assert changes == history(champions_of(connection, "mlflow"), NAME)
    assert client.get_registered_model(NAME).aliases == {"champion": int(changes[-1].version)}
    assert all(change.is_done for change in changes)
    assert all(one.version != other.version for one, other in itertools.pairwise(changes))
    whys = [change.why for change in changes if change.kind == "promoted"]
    assert len(whys) > ROUNDS


@pytest.fixture
def server(tmp_path):
    """A real `mlflow server`, and the workspace that uses it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ["-m", "mlflow", "server", "--port", str(port), "--backend-store-uri", f"sqlite:///{tmp_path}/server.db"]
    words += ["--artifacts-destination", str(tmp_path / "artifacts"), "--workers", "1"]
    environ = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    process = subprocess.Popen([sys.executable, *words], env=environ, cwd=tmp_path, start_new_session=True)
    try:
        until = time.monotonic() + 90
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert time.monotonic() < until
                assert process.poll() is None
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def test_a_server_as_registry_works_like_the_file(tmp_path, server):
    environ = {"MLFLOW_TRACKING_URI": server}
    root = tmp_path / "workspace"
    root.mkdir()
    store = champion_store(with_versions(root, 3, environ=environ), to_write=True)
    with registry_lock(connected(root).workspace):
        make_champion(store, NAME, "2", Reason("promoted", "größer; 二", comparison="by 1.0 point"))
        make_champion(store, NAME, "3", Reason("promoted", "again"))
        changes = roll_back(store, NAME, "worse on cats")
    assert [change.version for change in changes] == ["1", "2", "3", "2"]
    assert [change.kind for change in changes] == ["by hand", "promoted", "promoted", "rolled back"]
    again = connected(root, environ)
    store = champion_store(again, to_write=True)
    assert history(store, NAME) == changes
    again.client().set_registered_model_alias(NAME, "champion", "1")
    assert [(change.version, change.kind) for change in history(store, NAME)][-1] == ("1", "by hand")
    assert history(store, NAME)[1].why == "größer; 二"
