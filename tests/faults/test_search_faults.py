"""What a search survives: drivers, trials and nodes that are killed, clusters that are not its own."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import toy_search
from control_groups import control_group
from toy_search import EPOCHS, Toy, search

from tuning import ledger
from tuning.errors import AllTrialsFailedError, ClusterError
from tuning.observer import Observer
from tuning.on_ray import cluster
from tuning.on_ray.cleanup import MARK, end_marked, marked
from tuning.space import Space

LINE = Space.parse({"x": {"uniform": [0, 1]}})
TOKEN = "0123456789abcdef0123456789abcdef"


class Driver:
    """A search in a process of its own, in the foreground of a process group, as a shell starts it."""

    def __init__(self, folder, environment=None, **words):
        self.mark = os.urandom(8).hex()
        self._known = []
        self._process = subprocess.Popen(
            [sys.executable, toy_search.__file__, str(folder), json.dumps(words)],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=os.environ | {"TOY_MARK": self.mark} | (environment or {}),
        )

    def wait_for(self, line):
        for said in self._process.stdout:
            if said.strip() == line:
                return
        raise AssertionError(f"never said {line!r}")

    def wait_for_part(self, words):
        for said in self._process.stdout:
            if words in said:
                return
        raise AssertionError(f"never said {words!r}")

    def kill(self):
        self._known = psutil.Process(self._process.pid).children(recursive=True)
        self._process.kill()
        self._process.wait()

    def interrupt(self):
        self._known = psutil.Process(self._process.pid).children(recursive=True)
        os.killpg(self._process.pid, signal.SIGINT)  # as a terminal does: to everything in the foreground
        return self._process.wait(timeout=60)

    def end(self):
        said = self._process.stdout.read()
        assert self._process.wait(timeout=120) == 0, said
        return said

    def left(self):
        """Everything below it that is alive, whoever its parent is now."""
        found = [each for each in self._known if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
        for process in psutil.process_iter():
            try:
                if process.environ().get("TOY_MARK") == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    def gone_within(self, seconds):
        deadline = time.monotonic() + seconds
        while self.left() and time.monotonic() < deadline:
            time.sleep(0.1)
        return self.left() == []


def rows(folder):
    return ledger.read(folder).rows


def did(trace):
    return [json.loads(line) for line in trace.read_text().splitlines()]


@pytest.mark.parametrize("moment", ["started 0", "reported 0 2", "finished 0 completed", "started 2", "reported 0 5"])
def test_a_driver_killed_at_any_moment_leaves_nothing_running_and_goes_on(tmp_path, moment):
    trace = tmp_path / "trace"
    toy = {"epoch_s": 0.3, "trace": str(trace)}
    driver = Driver(tmp_path / "s", toy=toy, trials=4)
    driver.wait_for(moment)
    driver.kill()
    assert driver.gone_within(20), driver.left()
    before = rows(tmp_path / "s")
    again = Driver(tmp_path / "s", toy=toy, trials=4)
    assert "ended finished" in again.end()
    after = rows(tmp_path / "s")
    assert len({row.key for row in after}) == len(after) == 4
    for then, now in zip(before, after, strict=False):
        assert now.config == then.config
        if then.finish:
            assert now == then  # what was finished is kept, and not run again
    for row in after:
        if row.finish.outcome != "completed":
            continue
        assert row.finish.value == pytest.approx(row.config["x"] * EPOCHS)
        assert [report.epoch for report in row.reports] == list(range(1, EPOCHS + 1))
        epochs = [each["did"] for each in did(trace) if each["x"] == row.config["x"] and each["did"] != "begin"]
        assert len(epochs) <= EPOCHS + 1  # at most the epoch that was under way was made again


def test_ctrl_c_without_a_handler_ends_everything_and_goes_on(tmp_path):
    driver = Driver(tmp_path / "s", toy={"epoch_s": 0.3}, trials=3)
    driver.wait_for("reported 0 3")
    assert driver.interrupt() in (-signal.SIGINT, 1, 130)
    assert driver.left() == []
    again = Driver(tmp_path / "s", toy={"epoch_s": 0.3}, trials=3)
    assert "reported 0 1\n" not in again.end()


class Killing(Observer):
    """Kills something in the middle of the first trial."""

    def __init__(self, kill):
        self.kill = kill
        self.notes = []

    def reported(self, row, report):
        if row.number == 0 and report.epoch == 2 and row.starts == 1:
            self.kill()

    def noted(self, text):
        self.notes.append(text)


def below_me(word):
    return [process for process in psutil.Process().children(recursive=True) if word in " ".join(process.cmdline())]


@pytest.mark.parametrize(("what", "notes"), [("ImplicitFunc", 1), ("CheckpointStore", 0)])
def test_a_worker_that_is_killed_costs_a_restart_from_the_checkpoint(tmp_path, what, notes):
    def kill():
        [worker] = below_me(what)
        worker.kill()

    observer = Killing(kill)
    trace = tmp_path / "trace"
    result = search(
        tmp_path / "s", Toy(epoch_s=0.4, trace=str(trace)), LINE, {"x": 0.5}, trials=1, observer=observer
    )  # fmt: skip
    assert result.rows[0].finish.outcome == "completed"
    assert result.rows[0].starts == 1 + notes
    assert len(observer.notes) == notes
    assert len([each for each in did(trace) if each["did"].startswith("epoch")]) <= EPOCHS + 1
    assert list((tmp_path / "s" / "checkpoints").rglob("work/epoch"))


def test_a_trial_whose_process_is_lost_is_started_again_a_few_times(tmp_path):
    observer = Killing(lambda: None)
    with pytest.raises(AllTrialsFailedError, match=r"lost 2 times.*SIGKILL"):
        search(tmp_path, Toy(fails="die"), LINE, {"x": 0.5}, trials=1, restarts=1, observer=observer)
    assert "started again" in observer.notes[0]
    assert "SIGKILL" in observer.notes[0]


def test_diverged_and_failed_trials_are_outcomes_and_not_retried(tmp_path):
    result = search(tmp_path, Toy(fails="diverge"), LINE, {"x": 0.5}, trials=2, concurrency=1)
    assert [(row.finish.outcome, row.starts) for row in result.rows] == [("diverged", 1)] * 2
    assert result.rows[0].finish.error == "diverged: the loss is nan"
    assert result.best is None


def test_an_error_of_the_observers_own_ends_the_search_as_itself_and_resumable(tmp_path):
    def full():
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        search(tmp_path, Toy(epoch_s=0.2), LINE, {"x": 0.5}, trials=1, observer=Killing(full))
    assert search(tmp_path, Toy(), LINE, {"x": 0.5}, trials=1).ended == "finished"


# -- a cluster that is not the search's own


class Nodes:
    """A head and, if wished, a second node, each with one core and 600 MB for trials."""

    def __init__(self, folder):
        self.mark = os.urandom(8).hex()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.environment = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": TOKEN,
            "RAY_memory_monitor_refresh_ms": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_health_check_period_ms": "500",
        }
        self.folder = folder
        self.processes = []
        port = self.address.rpartition(":")[2]
        self.start("--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={folder}")
        self.wait_for(1)

    def start(self, *arguments, within=(), preexec_fn=None):
        self.processes.append(
            subprocess.Popen(
                [*within, str(Path(sys.executable).with_name("ray")), "start", "--block", "--num-cpus=1",
                 "--node-ip-address=127.0.0.1", "--memory=600000000", "--object-store-memory=80000000", *arguments],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                env=os.environ | self.environment | {MARK: self.mark}, preexec_fn=preexec_fn,
            )
        )  # fmt: skip

    def add_in(self, group):
        """A second node, inside a control group."""
        self.start(f"--address={self.address}", preexec_fn=group.enter)
        self.wait_for(2)

    def add(self, hidden):
        """A second node, which does not see what lies in a folder: no disk is shared."""
        hiding = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(hidden)]
        self.start(f"--address={self.address}", within=hiding)
        self.wait_for(2)
        return self.processes[-1]

    def wait_for(self, count):
        deadline = time.monotonic() + 60
        while self.alive() < count:
            assert time.monotonic() < deadline, "the nodes did not come up"
            time.sleep(0.5)

    def alive(self):
        script = (
            "import sys\nfrom ray._raylet import GcsClient\n"
            "print(sum(n.state == 0 for n in GcsClient(address=sys.argv[1]).get_all_node_info().values()))"
        )
        asked = subprocess.run(
            [sys.executable, "-c", script, self.address],
            capture_output=True, text=True, check=False, timeout=60, env=os.environ | self.environment,
        )  # fmt: skip
        return int(asked.stdout) if asked.returncode == 0 else 0


@contextmanager
def nodes():
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    started = None
    try:
        started = Nodes(folder)
        yield started
    finally:
        if started:
            end_marked(started.mark, str(folder))
            for process in started.processes:
                process.wait()
            assert marked(started.mark, str(folder)) == []
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs the right to mount")
def test_a_search_on_a_cluster_of_two_nodes_without_a_shared_disk(tmp_path):
    with nodes() as two:
        second = two.add(hidden=tmp_path)
        (tmp_path / "tmp").mkdir()
        (tmp_path / "scale").write_text("2")
        environment = two.environment | {"TMPDIR": str(tmp_path / "tmp")}
        words = {
            "toy": {"epoch_s": 0.8, "reads": True},
            "shared_files": [str(tmp_path / "scale")],
            "address": two.address,
            "concurrency": None,
            "space": LINE.to_json(),
        }
        began = time.monotonic()
        driver = Driver(tmp_path / "s", environment, trials=4, **words)
        driver.wait_for("reported 0 2")
        driver.kill()  # the cluster is not the driver's: it stays, and the trials go
        assert driver.gone_within(20), driver.left()
        assert two.alive() == 2
        driver = Driver(tmp_path / "s", environment, trials=4, **words)
        assert "ended finished" in driver.end()
        print("two searches took", round(time.monotonic() - began, 1), "s")
        # a node is lost in the middle of a trial: it goes on elsewhere
        driver = Driver(tmp_path / "s", environment, trials=4, extend=4, **words)
        driver.wait_for("reported 5 2")
        second.kill()
        assert "ended finished" in driver.end()
    after = rows(tmp_path / "s")
    assert len({row.key for row in after}) == len(after) == 8
    for row in after:
        assert row.finish.outcome == "completed", row
        assert row.finish.value == pytest.approx(row.config["x"] * EPOCHS * 2), "what it reads came with it"
    assert driver.gone_within(10), driver.left()
    (carried,) = (Path(os.environ["XDG_CACHE_HOME"]) / "seqpipe" / "inputs").iterdir()
    assert (carried / "scale").read_text() == "2"


def test_a_row_that_left_a_node_short_of_memory_goes_on_on_another(tmp_path):
    gate = tmp_path / "gate"
    with control_group(1500, 2.0) as group, nodes() as two:
        two.add_in(group)
        driver = Driver(
            tmp_path / "s",
            two.environment,
            toy={"epoch_s": 0.2, "ends_after": str(gate)},
            trials=2,
            address=two.address,
            concurrency=None,
            reserve_mb=400,
            space=LINE.to_json(),
        )
        for _ in range(2):
            driver.wait_for_part("started")
        with group.with_little_left(150):
            driver.wait_for_part("short of memory")
            gate.touch()
            assert "ended finished" in driver.end(), "though the node is short of memory until then"
    assert [row.finish.outcome for row in rows(tmp_path / "s")] == ["completed", "completed"]
    assert sorted(row.starts for row in rows(tmp_path / "s")) == [1, 2]


def test_a_cluster_that_does_not_let_us_in_or_runs_something_else_is_one_clear_line():
    with nodes() as one:
        for environment, words in (
            ({"RAY_AUTH_TOKEN": "f" * 32}, "token"),
            ({"RAY_AUTH_MODE": "disabled"}, "token"),
        ):
            script = "import sys; from tuning.on_ray import cluster; cluster.check(sys.argv[1])"
            began = time.monotonic()
            asked = subprocess.run(
                [sys.executable, "-c", script, one.address],
                capture_output=True, text=True, check=False, timeout=60,
                env=os.environ | one.environment | environment,
            )  # fmt: skip
            assert time.monotonic() - began < 10
            assert asked.returncode == 1
            assert asked.stderr.strip().splitlines()[-1].startswith("tuning.errors.ClusterError: what answers at")
            assert words in asked.stderr.strip().splitlines()[-1]


def test_a_server_that_is_no_ray_is_one_clear_line():
    with socket.create_server(("127.0.0.1", 0)) as server:
        began = time.monotonic()
        with pytest.raises(ClusterError, match="no Ray cluster"):
            cluster.check(f"127.0.0.1:{server.getsockname()[1]}")
        assert time.monotonic() - began < 15
