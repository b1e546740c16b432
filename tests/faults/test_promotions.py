"""Promotions that are killed, that meet each other, and that go to a server."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow_server import mlflow_server
from versions_of_a_model import NAME, champions_of, connected, with_versions

from pipeline.tracking.champion_store import champion_store
from pipeline.tracking.champions import Reason, history, make_champion, registry_lock, roll_back

KILLS, LEAST_KILLS, KILLING_S, ROUNDS = 100, 20, 240, 200
"""On a machine that is busy fewer kills than wanted are made in the time, but at least so many."""
REPOSITORY = Path(__file__).parents[2]
SUPPORT = REPOSITORY / "tests" / "support"
KILL_PROMOTIONS = """
import json, os, random, signal, sys, time
from pathlib import Path
from versions_of_a_model import NAME, champions_of, connected
from pipeline.tracking.champions import Reason, history, make_champion, registry_lock
import mlflow.store.model_registry.sqlalchemy_store, mlflow.store.tracking.sqlalchemy_store  # what is forked has them

root, kind, (kills, least, seconds) = Path(sys.argv[1]), sys.argv[2], map(int, sys.argv[3:])
until = time.monotonic() + seconds
draws = random.Random(5)


def forked(work):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        try:
            work(write)
        finally:
            os._exit(0)
    os.close(write)
    return child, read


def said_by(child, read):
    said = b""
    while piece := os.read(read, 65536):
        said += piece
    os.close(read)
    os.waitpid(child, 0)
    return said.decode()


def look(write):
    connection = connected(root)
    champion = connection.client().get_registered_model(NAME).aliases["champion"]
    changes = history(champions_of(connection, kind), NAME)
    os.write(write, json.dumps([str(champion), [[change.version, change.kind] for change in changes]]).encode())


def promote(champion):
    # Each round makes another version champion than the one that is: begun is `b3`, ended `e3`.
    def work(write):
        connection = connected(root)
        store = champions_of(connection, kind)
        version = champion
        while True:
            version = str(1 + int(version) % 3)
            os.write(write, b"b" + version.encode())
            with registry_lock(connection.workspace):
                make_champion(store, NAME, version, Reason("promoted", "because"))
            os.write(write, b"e" + version.encode())

    return work


champion, before = json.loads(said_by(*forked(look)))
took, killed_inside, done = None, 0, 0
for kill in range(1, kills + 1):
    child, read = forked(promote(champion))
    said = os.read(read, 2).decode()  # it works now
    began = time.monotonic()
    if took is None:  # the first time it is not killed before it has promoted something
        said += os.read(read, 2).decode()
        took = time.monotonic() - began
    time.sleep(draws.uniform(0, 2 * took))
    os.kill(child, signal.SIGKILL)
    ran_s = time.monotonic() - began
    said += said_by(child, read)
    words = [said[at : at + 2] for at in range(0, len(said), 2)]
    ended = [word[1] for word in words if word[0] == "e"]
    # about what one promotion takes, so that kills are spread over all of it
    took = ran_s / (len(ended) + 0.5) if ended else 1.3 * took
    was, (champion, changes) = ended[-1] if ended else champion, json.loads(said_by(*forked(look)))
    if words[-1][0] == "b":
        assert champion in (was, words[-1][1]), (champion, was, words[-1])
        killed_inside += 1
        if champion != was:
            done += 1
            ended.append(champion)
    assert changes == before + [[version, "promoted"] for version in ended], (changes[-5:], before[-5:], ended)
    assert changes[-1][0] == champion, (changes[-5:], champion)
    before = changes
    if kill >= least and time.monotonic() > until:
        break
print(json.dumps({"kills": kill, "killed inside": killed_inside, "of these done": done}))
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
    killer = script(KILL_PROMOTIONS, tmp_path, kind, KILLS, LEAST_KILLS, KILLING_S)
    told, _ = killer.communicate(timeout=1500)
    assert killer.returncode == 0
    found = json.loads(told)
    print(found)
    assert found["killed inside"] > found["kills"] / 4
    assert 0 < found["of these done"] < found["killed inside"], "some kills came too soon for the promotion, some not"


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


def test_a_server_as_registry_works_like_the_file(tmp_path):
    with mlflow_server(tmp_path) as port:
        works_like_the_file(tmp_path / "workspace", {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}"})


def works_like_the_file(root, environ):
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
