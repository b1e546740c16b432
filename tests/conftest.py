"""What every test stands on: threads that sleep while they wait, as the command line sets them, and an own cache."""

import os
import shutil
import subprocess
import tempfile

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

# where the kernel is built, once for all tests and the commands that they run
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="seqpipe-tests-")

import pytest
from product import LONG, Place

AS_ROOT = os.geteuid() == 0 and shutil.which("mount") is not None


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ["XDG_CACHE_HOME"], ignore_errors=True)


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
