"""What every test stands on: threads that sleep while they wait, as the command line sets them, and an own cache."""

import os
import shutil
import signal
import subprocess
import tempfile

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # by a shell that runs this in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which is not what the commands under test shall see

# where the kernel is built, once for all tests and the commands that they run
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="seqpipe-tests-")

import pytest
from product import LONG, ONE_EPOCH, Place

AS_ROOT = os.geteuid() == 0 and shutil.which("mount") is not None


def pytest_configure() -> None:
    """Have the commands of the tests hear what `nohup` or `&` around the tests would have them ignore."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ["XDG_CACHE_HOME"], ignore_errors=True)


@pytest.fixture(autouse=True)
def no_signal_from_an_earlier_test(monkeypatch):
    from pipeline import stop

    monkeypatch.setattr(stop, "_interruption", None)


@pytest.fixture
def native_kernel():
    """The kernel; what is tested of it is skipped where there is none."""
    from sequencer_models.capabilities import this_machine

    kernel, why_not = this_machine().native_kernel
    return kernel or pytest.skip(f"no native kernel: {why_not}")


@pytest.fixture
def place(tmp_path):
    """A workspace for the real commands; what they leave running is ended."""
    place = Place(tmp_path / "place")
    yield place
    place.end()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("undisturbed"))
    assert place.run("run", "train", *LONG).code == 0
    return place.result()


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A workspace in which everything is done, with a store of its own; its path and HOME are unusual ones."""
    place = Place(tmp_path_factory.mktemp("finished") / "Über uns, 100% grün", mlflow=True, HOME=None)
    done = place.run("run", "all", *ONE_EPOCH)
    assert done.code == 0, done.err
    return place


@pytest.fixture
def mounted(tmp_path):
    """A small file system of its own, which can be made read-only."""
    folder = tmp_path / "small disk"
    folder.mkdir()
    if (
        not AS_ROOT
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", folder], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("needs the right to mount")
    place = Place(folder)
    yield place
    place.end()
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def round_memory_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forecasts of memory without what was fitted to measurements: a step is its tensors alone."""
    from pipeline.training import memory_forecast

    monkeypatch.setattr(memory_forecast, "STEP_SHARE", 1.0)
    monkeypatch.setattr(memory_forecast, "WORKING_COPIES", 0.0)
