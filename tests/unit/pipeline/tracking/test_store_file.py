import importlib.util
import os
import shlex
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager

import pytest

from pipeline.errors import TrackingError
from pipeline.tracking import mlflow_schema, new_store, store_file
from pipeline.tracking import settings as mlflow_settings
from pipeline.workspace.paths import Workspace

NOBODY = 65534
KILLED_INSIDE_A_COMMIT = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size = 1")  # so that changed pages reach the file before the commit
connection.execute("BEGIN")
connection.execute("UPDATE metrics SET value = -1")
connection.executemany("INSERT INTO metrics VALUES (?, ?)", ((f"half {i}" * 50, i) for i in range(2000)))
os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_inside_a_commit(database):
    done = subprocess.run([sys.executable, "-c", KILLED_INSIDE_A_COMMIT, str(database)], check=False)
    assert done.returncode == -9
    assert database.with_name("mlflow.db-journal").stat().st_size


@pytest.fixture
def settings(tmp_path):
    return mlflow_settings.load(Workspace(tmp_path), {})


@pytest.fixture
def made(settings):
    """A stand-in for a store: the tables that are looked at, and some figures."""
    write(
        settings.database, "CREATE TABLE experiments (name)", "CREATE TABLE runs (id)", "INSERT INTO runs VALUES (1)"
    )
    write(settings.database, "CREATE TABLE metrics (key, value)", "CREATE TABLE alembic_version (version_num)")
    write(settings.database, f"INSERT INTO alembic_version VALUES ('{mlflow_schema.schema_revisions()[1]}')")
    with closing(sqlite3.connect(settings.database)) as connection, connection:
        connection.executemany("INSERT INTO metrics VALUES (?, ?)", ((f"m{i}" * 50, i) for i in range(2000)))
    return settings


def write(database, *statements):
    with closing(sqlite3.connect(database)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def values(database):
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return [value for (value,) in connection.execute("SELECT value FROM metrics")]


@contextmanager
def as_nobody(*folders):
    """What another user may do; the test's own folders are opened for everybody to look into."""
    if os.geteuid() != 0:
        pytest.skip("needs the right to be another user")
    for folder in folders:
        folder.chmod(0o755)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_to_all(tmp_path):
    for folder in [tmp_path, *tmp_path.parents]:
        if not folder.stat().st_mode & 0o001:  # pytest's own
            folder.chmod(0o755)
    return tmp_path


def test_a_look_rolls_back_what_a_kill_inside_a_commit_left(made):
    kill_inside_a_commit(made.database)
    with (
        pytest.raises(sqlite3.OperationalError),
        closing(sqlite3.connect(f"file:{made.database}?mode=ro", uri=True)) as c,
    ):
        c.execute("SELECT count(*) FROM metrics").fetchone()  # what only reads cannot even look
    assert store_file.state_of(made) == "ready"
    store_file.require_writable(made.database)
    assert values(made.database) == list(range(2000))
    assert not made.database.with_name("mlflow.db-journal").exists()


def test_what_a_kill_left_in_a_write_ahead_log_is_not_lost(made):
    script = (
        "import os, sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "connection.execute('PRAGMA journal_mode = WAL')\n"
        "connection.execute('UPDATE metrics SET value = 7')\n"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", script, str(made.database)], check=False)
    assert made.database.with_name("mlflow.db-wal").stat().st_size
    assert store_file.state_of(made) == "ready"
    assert set(values(made.database)) == {7}


def test_looking_and_trying_to_write_change_nothing(made):
    before = made.database.read_bytes()
    store_file.state_of(made)
    store_file.require_writable(made.database)
    assert made.database.read_bytes() == before
    assert [path.name for path in made.database.parent.iterdir()] == ["mlflow.db"]


@pytest.mark.parametrize("content", [None, b""])
def test_no_file_and_an_empty_one_are_no_store_yet(settings, content):
    if content is not None:
        settings.database.write_bytes(content)
    assert store_file.state_of(settings) == "missing"


def test_a_database_without_a_table_is_no_store_yet(settings):
    write(settings.database, "PRAGMA user_version = 1")
    assert settings.database.stat().st_size
    assert store_file.state_of(settings) == "missing"


def test_why_a_local_store_cannot_be_used_is_known_where_there_is_one(made, tmp_path):
    assert store_file.fault_of(made) is None
    with closing(sqlite3.connect(made.database)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert "is locked" in str(store_file.fault_of(made))
    write(made.database, "DROP TABLE experiments", "DROP TABLE alembic_version")
    assert "another program" in str(store_file.fault_of(made))
    made.database.unlink()
    assert store_file.fault_of(made) is None
    server = mlflow_settings.load(Workspace(tmp_path), {"MLFLOW_TRACKING_URI": "http://host:1"})
    assert store_file.fault_of(server) is None


def test_the_installed_mlflow_has_one_newest_schema():
    from alembic.script import ScriptDirectory

    known, newest = mlflow_schema.schema_revisions()
    [place] = importlib.util.find_spec("mlflow").submodule_search_locations
    scripts = ScriptDirectory(f"{place}/store/db_migrations")
    assert newest == scripts.get_current_head()
    assert known == {script.revision for script in scripts.walk_revisions()}


def test_a_store_of_a_newer_mlflow_asks_for_that_or_another_store(made):
    write(made.database, "UPDATE alembic_version SET version_num = 'ffffffffffff'")
    with pytest.raises(
        TrackingError, match=r"newer MLflow.*pip install --upgrade mlflow.*mv .*mlflow\.db\.newer"
    ) as raised:
        store_file.state_of(made)
    assert "db upgrade" not in str(raised.value)
    assert not raised.value.passes


def test_a_store_of_an_older_mlflow_names_the_command_that_keeps_a_copy_and_upgrades(made):
    known, newest = mlflow_schema.schema_revisions()
    write(made.database, f"UPDATE alembic_version SET version_num = '{min(known - {newest})}'")
    with pytest.raises(TrackingError, match=r"older MLflow.*`cp .* && .*mlflow db upgrade sqlite:////.*`") as raised:
        store_file.state_of(made)
    assert not raised.value.passes


@pytest.mark.parametrize("broken", ["DELETE FROM alembic_version", "DROP TABLE alembic_version"])
def test_an_interrupted_creation_starts_again_only_if_the_store_is_bare_and_nobody_is_creating_it(made, broken):
    write(made.database, broken)
    with pytest.raises(TrackingError, match="interrupted; move it away") as raised:  # a run is in it
        store_file.state_of(made)
    assert not raised.value.passes
    write(made.database, "DELETE FROM runs")
    with pytest.raises(TrackingError, match="made by another program") as raised:
        store_file.state_of(made)
    assert raised.value.passes
    an_hour_ago = made.database.stat().st_mtime - 3600
    os.utime(made.database, (an_hour_ago, an_hour_ago))
    assert store_file.state_of(made) == "unfinished"


def test_the_database_of_another_program_is_left_alone(settings):
    write(settings.database, "CREATE TABLE customers (name)")
    with pytest.raises(TrackingError, match="another program; name another file as tracking_uri"):
        store_file.state_of(settings)


def make_folder(path):
    path.mkdir()


def make_loop(path):
    path.symlink_to(path)


def make_link_to_nothing(path):
    path.symlink_to("/no/such/disk/mlflow.db")


def make_nonsense(path):
    path.write_bytes(b"no database at all " * 300)


def make_cut_off(path):
    path.write_bytes(path.read_bytes()[:9000])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (make_folder, "move it away"),
        (make_loop, "symbolic links"),
        (make_link_to_nothing, "a link to /no/such/disk/mlflow.db, which is not there"),
        (make_nonsense, "is damaged; move it away"),
        (make_cut_off, "is damaged; move it away"),
    ],
)
def test_what_is_no_database_needs_the_user_and_stays_as_it_is(made, make, words):
    content = made.database.read_bytes()
    made.database.unlink()
    if make is make_cut_off:
        made.database.write_bytes(content)
    make(made.database)
    before = made.database.lstat()
    with pytest.raises(TrackingError, match=words) as raised:
        store_file.state_of(made)
    assert not raised.value.passes
    assert "\n" not in str(raised.value)
    assert not made.is_gone, "nothing is told again to a store that may come back"
    assert (made.database.lstat().st_size, made.database.lstat().st_mtime) == (before.st_size, before.st_mtime)


def test_a_lock_of_another_program_passes_by_itself(made):
    with closing(sqlite3.connect(made.database)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert store_file.state_of(made) == "ready"
        with pytest.raises(TrackingError, match=r"is locked.*when the store answers again") as raised:
            store_file.require_writable(made.database, patience_s=0.1)
    assert raised.value.passes
    store_file.require_writable(made.database)


def test_the_store_of_another_owner_is_named_with_its_owner(made, open_to_all):
    open_to_all.chmod(0o777)
    made.database.chmod(0o644)
    with as_nobody():
        assert store_file.state_of(made) == "ready"
        with pytest.raises(
            TrackingError, match=r"mlflow.db belongs to root and cannot be written by .*chown"
        ) as raised:
            store_file.require_writable(made.database)
    assert not raised.value.passes
    made.database.chmod(0o600)
    with as_nobody(), pytest.raises(TrackingError, match=r"belongs to root and cannot be read by"):
        store_file.state_of(made)


def test_a_journal_of_another_owner_is_named(made, open_to_all):
    kill_inside_a_commit(made.database)
    open_to_all.chmod(0o777)
    made.database.chmod(0o666)
    made.database.with_name("mlflow.db-journal").chmod(0o600)
    with as_nobody(), pytest.raises(TrackingError, match=r"mlflow.db-journal belongs to root and cannot be read by"):
        store_file.state_of(made)
    assert store_file.state_of(made) == "ready"


def test_a_folder_that_takes_no_journal_is_named(made, open_to_all):
    made.database.chmod(0o666)
    with as_nobody(), pytest.raises(TrackingError, match=rf"{open_to_all} belongs to root and cannot be written"):
        store_file.require_writable(made.database)


def test_a_read_only_store_is_copied_with_its_journal_and_stays_as_it_is(made, tmp_path, open_to_all):
    kill_inside_a_commit(made.database)
    before = made.database.read_bytes()
    place = tmp_path / "copy"
    place.mkdir(mode=0o777)
    place.chmod(0o777)
    made.database.chmod(0o644)
    made.database.with_name("mlflow.db-journal").chmod(0o644)
    with as_nobody():
        copy = store_file.copy_to(made.database, place)
    assert values(copy) == list(range(2000))
    assert made.database.read_bytes() == before
    assert made.database.with_name("mlflow.db-journal").exists()


def test_a_journal_that_outlived_its_database_is_put_aside(made):
    kill_inside_a_commit(made.database)
    made.database.rename(made.database.with_name("mlflow.db.damaged"))
    torn = made.database.with_name(f".mlflow.db.{os.getpid()}.tmp-journal")
    torn.write_text("what a killed command was making")
    new_store.move_aside(made.database)
    assert {path.name for path in made.database.parent.iterdir()} == {"mlflow.db.damaged", "mlflow.db-journal.old"}


def test_the_command_that_moves_a_store_away_can_be_pasted(tmp_path):
    workspace = Workspace(tmp_path / "it's a place")
    workspace.root.mkdir()
    settings = mlflow_settings.load(workspace, {})
    make_nonsense(settings.database)
    with pytest.raises(TrackingError) as raised:
        store_file.state_of(settings)
    command = str(raised.value).partition("(")[2].partition("), and")[0]
    subprocess.run(shlex.split(command), check=True)
    assert settings.is_gone
