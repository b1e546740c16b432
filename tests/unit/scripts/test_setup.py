"""What set-up decides, with a stand-in for Python that notes what pip is asked to install."""

import contextlib
import http.server
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PIN = next(
    line.partition("==")[2]
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line.startswith("torch==")
)
TOOLS = ["sh", "cat", "sed", "grep", "tail", "rm", "mv", "mkdir", "cp", "chmod", "cksum", "dirname", "uname", "env"]
PYTHON = """#!/bin/sh
case "$1 $2" in
    "-m venv") mkdir -p .venv/bin; cp "$0" .venv/bin/python; exit 0 ;;
    "-m pip")
        [ "$3" != --version ] || exit 0
        echo "$*" >>calls
        env >environment
        case "$*" in *--index-url*) exit {index_code} ;; esac
        exit 0 ;;
esac
exec {python} "$@"
"""
WITHOUT_TORCH = """import importlib.metadata as m
def missing(name):
    raise m.PackageNotFoundError(name)
m.version = missing
"""


class Place:
    """A clone in which set-up runs with the tools that it needs, and others that a test adds."""

    def __init__(self, root):
        self.root = root
        self.bin = root / "bin"
        self.bin.mkdir()
        (root / "scripts").mkdir()
        for name in ("scripts/setup.sh", "pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, root / name)
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool))
        (root / "site").mkdir()
        (root / "site" / "sitecustomize.py").write_text(WITHOUT_TORCH)
        self.add("cc")
        self.python()

    def add(self, name, text="#!/bin/sh\n"):
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def python(self, index_code=0):
        real = f"env PYTHONPATH={self.root / 'site'} {sys.executable}"
        self.add("python3.11", PYTHON.format(python=real, index_code=index_code))

    def set_up(self, extras="", **environ):
        """What set-up said, and what pip was asked to install."""
        (self.root / "calls").unlink(missing_ok=True)
        # no proxy stands between the test and its own server
        environ = {"PATH": str(self.bin), "TORCH_CPU_INDEX_URL": "http://127.0.0.1:9", "no_proxy": "*", **environ}
        done = subprocess.run(
            ["sh", "scripts/setup.sh", *extras.split()],
            cwd=self.root,
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        calls = self.root / "calls"
        return done.stderr, calls.read_text().splitlines() if calls.exists() else []


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@contextlib.contextmanager
def index(page):
    """A package index on this machine whose page on torch is this."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/whl/cpu"
    finally:
        server.shutdown()
        server.server_close()


def wheel(version=PIN, tag=f"cp{sys.version_info.major}{sys.version_info.minor}"):
    name = f"torch-{version}%2Bcpu-{tag}-{tag}-manylinux_2_28_x86_64.whl"
    return f'<a href="/whl/cpu/{name}#sha256=00">{name}</a>'


ON_LINUX = pytest.mark.skipif(
    not sys.platform.startswith("linux") or os.path.exists("/proc/driver/nvidia"),  # noqa: PTH110
    reason="for Linux without an NVIDIA GPU",
)


@ON_LINUX
def test_without_a_gpu_torch_comes_from_its_index_of_cpu_builds(place):
    with index(wheel()) as address:
        said, calls = place.set_up(TORCH_CPU_INDEX_URL=address)
    assert "CPU build, from torch's own index" in said
    assert f"--index-url {address} torch torchvision" in calls[0]
    assert len(calls) == 2


@ON_LINUX
def test_with_a_gpu_it_comes_from_the_default_index(place):
    place.add("nvidia-smi")
    with index(wheel()) as address:
        said, calls = place.set_up(TORCH_CPU_INDEX_URL=address)
    assert "CPU build" not in said
    assert len(calls) == 1
    assert "--index-url" not in calls[0]


@ON_LINUX
@pytest.mark.parametrize("page", [wheel(version="1.0.0"), wheel(tag="cp27"), "<html>Sign in to this network</html>"])
def test_an_index_without_the_pinned_torch_for_this_python_is_left_alone(place, page):
    with index(page) as address:
        said, calls = place.set_up(TORCH_CPU_INDEX_URL=address)
    assert "torch comes from the default index" in said
    assert len(calls) == 1


@ON_LINUX
def test_an_index_that_does_not_answer_costs_three_seconds(place):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        said, calls = place.set_up(TORCH_CPU_INDEX_URL=f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert "does not answer" in said
    assert len(calls) == 1
    assert 2.5 < time.monotonic() - began < 10


@ON_LINUX
def test_an_index_that_fails_half_way_is_not_the_end(place):
    place.python(index_code=1)
    with index(wheel()) as address:
        said, calls = place.set_up(TORCH_CPU_INDEX_URL=address)
    assert "could not be installed" in said
    assert "torch comes from the default index" in said
    assert len(calls) == 2


def test_the_index_that_the_user_names_is_taken(place):
    _, calls = place.set_up(TORCH_INDEX_URL="http://127.0.0.1:9/mine")
    assert "--force-reinstall --index-url http://127.0.0.1:9/mine torch torchvision" in calls[0]


def test_without_a_compiler_one_is_installed(place):
    said, calls = place.set_up("dev")
    assert calls[-1].endswith(".[dev]")
    assert "compiler" not in said
    (place.bin / "cc").unlink()
    (place.root / ".venv" / "installed").unlink()
    said, calls = place.set_up("dev")
    assert calls[-1].endswith(".[dev,compiler]")
    assert "no C compiler here" in said


def test_nothing_is_done_twice(place):
    place.set_up("dev")
    assert place.set_up("dev") == ("", [])
    assert place.set_up("") == ("", [])


def test_what_would_lead_pip_astray_does_not_reach_it(place):
    given = {
        "PIP_TARGET": "/x", "PIP_PREFIX": "/x", "PIP_USER": "1", "PIP_DRY_RUN": "1", "PIP_NO_DEPS": "1",
        "CDPATH": "/",
        "PYTHONPATH": "/x", "PYTHONHOME": "/x", "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
    }  # fmt: skip
    place.set_up(**given)
    kept = dict(line.partition("=")[::2] for line in (place.root / "environment").read_text().splitlines())
    assert kept["PIP_INDEX_URL"] == given["PIP_INDEX_URL"]
    assert kept["PIP_USER"] == "0"
    assert not kept.keys() & (given.keys() - {"PIP_INDEX_URL", "PIP_USER"})
