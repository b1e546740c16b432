"""Kills inside deliveries to a local store, and stores of other releases: each step is there once in the end."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

KILLS = 100
REPOSITORY = Path(__file__).parents[2]
KILL_DELIVERIES = """
import os, random, signal, sys, time
from pathlib import Path

from pipeline.tracking import settings as mlflow_settings
from pipeline.tracking.delivery import RunIdentity, Tracker
from pipeline.tracking.journal import Journal
from pipeline.tracking.new_store import create_store
from pipeline.workspace.paths import Workspace

workspace, kills = Workspace(Path(sys.argv[1])), int(sys.argv[2])
settings = mlflow_settings.load(workspace, {})
create_store(settings, workspace)
import mlflow.store.tracking.sqlalchemy_store  # once: what is forked has it

RUN = RunIdentity("abc-1", "killed again and again")
folder = workspace.stage("train") / "abc.partial"
folder.mkdir(parents=True)
journal = Journal(folder)
draws = random.Random(11)
began = inside = 0


def deliver(ready=None):
    said = []
    tracker = Tracker(settings, workspace, said.append)
    if ready is not None:
        tracker.connection.client()
        os.write(ready, b"1")
    return tracker.deliver(RUN, "train/abc", folder, upto=journal.offset, force=True), said


def forked(work):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = work()
        finally:
            os._exit(code)
    return child


took = 0.3
for step in range(1, kills + 1):
    for sub in range(8):
        journal.metrics({f"m{number:03}": float(step) for number in range(150)}, 8 * step + sub)
    read, write = os.pipe()
    child = forked(lambda: 0 if deliver(write)[0] else 1)
    os.close(write)
    os.read(read, 1)
    os.close(read)
    time.sleep(draws.uniform(0, took))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    left = workspace.root / "mlflow.db-journal"
    inside += left.exists() and left.stat().st_size > 0
    if step % 4 == 0:  # the next command, of which a kill is the exception
        def again():
            done, said = deliver()
            sys.stderr.write("\\n".join(said))
            return 0 if done and not said else 1
        began = time.monotonic()
        assert os.waitpid(forked(again), 0)[1] == 0, f"after kill {step}"
        took = time.monotonic() - began
print(f"{inside} of {kills} kills left a journal")
journal.metrics({"m000": 0.0}, 1)
done, said = deliver()
assert done and not said, said
"""


def rows(database, query):
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return connection.execute(query).fetchall()


def test_a_hundred_kills_of_a_delivery_lose_and_double_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", KILL_DELIVERIES, str(tmp_path), str(KILLS)],
        cwd=REPOSITORY, env=os.environ | {"MLFLOW_TRACKING_URI": ""}, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert int(done.stdout.split()[0]) > 0, "no kill met a commit: the test tests nothing"
    found = rows(tmp_path / "mlflow.db", "SELECT key, step, count(*) FROM metrics WHERE step > 1 GROUP BY key, step")
    assert len(found) == 150 * 8 * KILLS
    assert {count for _, _, count in found} == {1}
    assert rows(tmp_path / "mlflow.db", "SELECT count(*) FROM runs") == [(1,)]
