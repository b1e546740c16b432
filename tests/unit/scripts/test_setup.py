"""scripts/setup.sh with the real pip, in a clone that holds next to nothing, from indexes on loopback."""

import contextlib
import http.server
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest

pip = pytest.importorskip("pip")

SETUP = Path(__file__).parents[3] / "scripts" / "setup.sh"
TOOLS = ("sh", "cat", "cksum", "dirname", "env", "grep", "ln", "mv", "readlink", "rm", "sed", "tail", "tr")
PINNED = "2.13.99"  # a release that no index of this machine has

BACKEND = '''
import zipfile
def build_editable(folder, config_settings=None, metadata_directory=None):
    name = "clone-1-py3-none-any.whl"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        wheel.writestr("clone-1.dist-info/METADATA", """Metadata-Version: 2.1
Name: clone
Version: 1
Requires-Dist: torch
Requires-Dist: torchvision
Provides-Extra: compiler
Requires-Dist: ziglang; extra == "compiler"
""")
        wheel.writestr("clone-1.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("clone-1.dist-info/RECORD", "")
    return name
'''


class Clone:
    def __init__(self, folder: Path) -> None:
        self.folder = folder / "a clone"
        self.programs = folder / "programs"
        self.indexes = folder / "indexes"
        for made in (self.folder / "scripts", self.programs, self.indexes, folder / "home"):
            made.mkdir(parents=True)
        shutil.copy(SETUP, self.folder / "scripts")
        (self.folder / "pyproject.toml").write_text(
            '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
            '[project]\nname = "clone"\nversion = "1"\n'
        )
        (self.folder / "backend.py").write_text(BACKEND)
        (self.folder / "constraints.txt").write_text(f"torch=={PINNED}\ntorchvision==0.28\n")
        for tool in TOOLS:
            (self.programs / tool).symlink_to(shutil.which(tool))
        self.program("uname", "echo Linux")
        self.program("cc", 'while [ "$1" != -o ]; do shift; done; : >"$2"')
        self.program("python3.11", self.python_that_makes_environments_quickly())
        self.environment = {
            "PATH": str(self.programs),
            "HOME": str(folder / "home"),
            "XDG_CONFIG_DIRS": str(folder),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_RETRIES": "0",
        }

    def program(self, name: str, script: str) -> None:
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    @staticmethod
    def python_that_makes_environments_quickly() -> str:
        return f"""case "$*" in
            *"-m venv .venv") "{sys.executable}" -I -m venv --without-pip .venv &&
                ln -s "{Path(pip.__file__).parent}" .venv/lib/python3*/site-packages/ ;;
            *_base_executable*) readlink -f "$0" ;;
            *) exec "{sys.executable}" "$@" ;;
        esac"""

    def index(self, name: str, *wheels: str) -> None:
        """An index of these wheels, NAME-VERSION."""
        for wheel in wheels:
            project, version = wheel.split("-")
            folder = self.indexes / name / project
            folder.mkdir(parents=True)
            file = folder / f"{wheel}-py3-none-any.whl"
            info = f"{wheel}.dist-info"
            with zipfile.ZipFile(file, "w") as content:
                content.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n")
                content.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
                content.writestr(f"{info}/RECORD", "")
            (folder / "index.html").write_text(f'<a href="{file.name.replace("+", "%2B")}">{file.name}</a>')

    def set_up(self, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "scripts/setup.sh"],
            cwd=self.folder,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def installed(self) -> set[str]:
        """NAME-VERSION of what the environment holds."""
        found = self.folder.glob(".venv/lib/*/site-packages/*.dist-info")
        return {path.name.removesuffix(".dist-info") for path in found}


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def clone(tmp_path):
    """Two indexes: pip's default one, and torch's of CPU builds."""
    clone = Clone(tmp_path)
    clone.index("default", f"torch-{PINNED}", "torchvision-0.28", "ziglang-0.14")
    clone.index("cpu", f"torch-{PINNED}+cpu", "torchvision-0.28+cpu")

    def handler(*args):
        return QuietHandler(*args, directory=str(clone.indexes))

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        clone.environment |= {"PIP_INDEX_URL": f"{address}/default", "TORCH_CPU_INDEX_URL": f"{address}/cpu"}
        yield clone
        server.shutdown()


FROM_DEFAULT = {f"torch-{PINNED}", "torchvision-0.28", "clone-1"}
FROM_CPU_INDEX = {f"torch-{PINNED}+cpu", "torchvision-0.28+cpu", "clone-1"}


def test_on_linux_without_a_gpu_torch_comes_from_its_own_cpu_index_and_set_up_says_so_once(clone):
    first = clone.set_up()
    assert first.returncode == 0, first.stderr
    assert clone.installed() == FROM_CPU_INDEX
    assert first.stderr.count("torch is a CPU build") == 1
    assert "compiler" not in first.stderr, "there is one"
    again = clone.set_up(TORCH_CPU_INDEX_URL="http://127.0.0.1:9", PATH=str(without(clone, "cc")))
    assert (again.returncode, again.stderr) == (0, ""), "nothing has changed that needs a new installation"


def without(clone: Clone, program: str) -> Path:
    (clone.programs / program).unlink()
    return clone.programs


def test_with_an_nvidia_gpu_or_where_the_user_names_an_index_that_is_what_is_taken(clone):
    clone.program("nvidia-smi", "exit 0")
    with_gpu = clone.set_up()
    assert with_gpu.returncode == 0, with_gpu.stderr
    assert clone.installed() == FROM_DEFAULT
    named = clone.set_up(TORCH_INDEX_URL=clone.environment["TORCH_CPU_INDEX_URL"])
    assert named.returncode == 0, named.stderr
    assert clone.installed() == FROM_CPU_INDEX


@contextlib.contextmanager
def an_address_that_never_answers():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_an_index_that_never_answers_is_waited_for_three_seconds_and_done_without(clone):
    with an_address_that_never_answers() as address:
        started = time.monotonic()
        outcome = clone.set_up(TORCH_CPU_INDEX_URL=address)
        took_s = time.monotonic() - started
    assert outcome.returncode == 0, outcome.stderr
    assert clone.installed() == FROM_DEFAULT
    assert outcome.stderr.count("did not answer within 3 s") == 1
    assert 3 < took_s < 60, "not pip's own patience, minutes"


@pytest.mark.parametrize("reason", ["refused", "broken proxy"])
def test_without_an_answer_of_that_index_torch_comes_from_the_default_one(clone, reason):
    nobody = "http://127.0.0.1:9"
    if reason == "refused":
        outcome = clone.set_up(TORCH_CPU_INDEX_URL=nobody)
    else:
        outcome = clone.set_up(http_proxy=nobody, PIP_INDEX_URL=(clone.indexes / "default").as_uri())
    assert outcome.returncode == 0, outcome.stderr
    assert clone.installed() == FROM_DEFAULT
    assert outcome.stderr.count("did not answer within 3 s") == 1


def test_an_index_without_a_build_for_this_python_is_done_without(clone):
    shutil.rmtree(clone.indexes / "cpu")
    clone.index("cpu", "torch-2.12+cpu", "torchvision-0.28+cpu")
    outcome = clone.set_up()
    assert outcome.returncode == 0, outcome.stderr
    assert clone.installed() == FROM_DEFAULT
    assert "did not give the pinned torch for this Python" in outcome.stderr


def test_without_a_compiler_one_comes_from_a_wheel_and_set_up_says_so(clone):
    clone.program("gcc", "echo 'fatal error: math.h: No such file' >&2; exit 1")  # Debian's, without its headers
    outcome = clone.set_up(PATH=str(without(clone, "cc")))
    assert outcome.returncode == 0, outcome.stderr
    assert "ziglang-0.14" in clone.installed()
    assert outcome.stderr.count("no C compiler here: took one from a wheel") == 1


def test_without_a_compiler_and_without_that_wheel_set_up_says_what_it_costs(clone):
    shutil.rmtree(clone.indexes / "default" / "ziglang")
    outcome = clone.set_up(PATH=str(without(clone, "cc")))
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stderr.count("no C compiler here, and none from a wheel") == 1


UNWANTED = {
    "user": "true",
    "target": "elsewhere",
    "prefix": "elsewhere",
    "root": "elsewhere",
    "no-deps": "true",
    "dry-run": "true",
    "require-hashes": "true",
    "require-virtualenv": "true",
}


def test_set_up_works_whatever_the_environment_says_of_pip_and_python(clone, tmp_path):
    (tmp_path / "shadow").mkdir()
    for shadow in ("torch-9.dist-info", "sitecustomize.py"):
        (tmp_path / "shadow" / shadow).write_text("raise SystemExit(1)")
    outcome = clone.set_up(
        **{"PIP_" + key.upper().replace("-", "_"): value for key, value in UNWANTED.items()},
        PIP_PYTHON="/usr/bin/python3",
        PYTHONHOME="/nowhere",
        PYTHONPATH=str(tmp_path / "shadow"),
        PYTHONSAFEPATH="1",
        PYTHONWARNINGS="error",
        VIRTUAL_ENV=str(tmp_path),
        CONDA_PREFIX=str(tmp_path),
        CDPATH=str(tmp_path),
    )
    assert outcome.returncode == 0, outcome.stderr
    assert clone.installed() == FROM_CPU_INDEX
    assert not list(clone.folder.glob("**/elsewhere"))


@pytest.mark.parametrize("place", ["home/.config/pip/pip.conf", "named.conf"])
def test_set_up_works_whatever_pips_own_files_say(clone, tmp_path, place):
    """The user's, and the one that PIP_CONFIG_FILE names; an index in them is still the one asked."""
    file = tmp_path / place
    file.parent.mkdir(parents=True, exist_ok=True)
    settings = "\n".join(f"{key} = {value}" for key, value in UNWANTED.items())
    index = clone.environment.pop("PIP_INDEX_URL")
    file.write_text(f"[global]\n{settings}\nindex-url = {index}\n[install]\n{settings}\n")
    del clone.environment["PIP_CONFIG_FILE"]
    named = {"PIP_CONFIG_FILE": str(file)} if place == "named.conf" else {}
    outcome = clone.set_up(**named, TORCH_CPU_INDEX_URL="")
    assert outcome.returncode == 0, outcome.stderr
    assert clone.installed() == FROM_DEFAULT
    assert not list(clone.folder.glob("**/elsewhere"))


def test_an_environment_that_is_active_and_broken_is_made_anew_by_the_python_that_it_came_from(clone, tmp_path):
    assert clone.set_up().returncode == 0
    shutil.rmtree(next(clone.folder.glob(".venv/lib/*/site-packages/clone-1.dist-info")))
    for noted in ("installed", "made-in"):
        (clone.folder / ".venv" / noted).unlink()
    installed = (clone.programs / "python3.11").rename(tmp_path / "python3.11")
    own = clone.folder / ".venv" / "bin" / "python3.11"
    own.unlink(missing_ok=True)
    own.symlink_to(installed)
    outcome = clone.set_up(PATH=f"{own.parent}:{clone.programs}", VIRTUAL_ENV=f"{clone.folder}/.venv")
    assert outcome.returncode == 0, outcome.stderr
    assert clone.installed() == FROM_CPU_INDEX
