import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import WorkspaceError
from pipeline.workspace import locks
from pipeline.workspace.durable_files import write_atomically, write_json, writing
from pipeline.workspace.fingerprints import canonical_json, file_sha256, fingerprint
from pipeline.workspace.locks import exclusive, if_free, is_held
from pipeline.workspace.manifests import MANIFEST, Manifest, StageFolder, changed_files, read_manifest
from pipeline.workspace.paths import Workspace

MADE = Manifest("train", 1, "f00", {"seed": 0}, {"prepare": "abc"}, {"accuracy": 0.5}, seconds=1.5)

HOLDER = """
import sys
from pathlib import Path
from pipeline.workspace.locks import exclusive

with exclusive(Path(sys.argv[1]), print, what="it"):
    print("held", flush=True)
    sys.stdin.read()
"""


def made(workspace: Workspace, print_of: str = "f00") -> StageFolder:
    folder = StageFolder(workspace, "train", print_of)
    working = folder.begin()
    (working / "best.safetensors").write_bytes(b"weights")
    (working / "plots").mkdir(exist_ok=True)
    (working / "plots" / "a.png").write_bytes(b"picture")
    folder.finish(MADE)
    return folder


def test_the_workspace_is_the_nearest_folder_above_with_the_marker(tmp_path):
    (tmp_path / "mlflow.yaml").touch()
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert Workspace.find(tmp_path / "a" / "b").root == tmp_path
    (tmp_path / "a" / "mlflow.yaml").touch()
    assert Workspace.find(tmp_path / "a" / "b").root == tmp_path / "a"


def test_without_a_marker_the_workspace_is_where_one_starts(tmp_path, monkeypatch):
    assert Workspace.find(tmp_path).root == tmp_path
    monkeypatch.chdir(tmp_path)
    assert Workspace.find().root == Path.cwd()


def test_finding_a_workspace_makes_nothing(tmp_path):
    Workspace.find(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_working_directory_that_is_gone_is_told(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(WorkspaceError, match="no longer exists"):
        Workspace.find()


def test_a_workspace_that_cannot_be_made_is_told_in_one_line(tmp_path):
    (tmp_path / ".seqpipe").write_text("a file in the way")
    with pytest.raises(WorkspaceError, match="cannot be written") as caught:
        Workspace(tmp_path).create()
    assert "\n" not in str(caught.value)


plain = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
plain |= st.lists(plain, max_size=3) | st.dictionaries(st.text(max_size=5), plain, max_size=3)


@given(st.dictionaries(st.text(max_size=5), plain, min_size=2, max_size=5))
def test_the_order_of_keys_does_not_change_a_fingerprint(reads):
    turned = dict(reversed(reads.items()))
    assert fingerprint("train", 1, reads, {}) == fingerprint("train", 1, turned, {})
    assert json.loads(canonical_json(turned)) == reads


def test_a_fingerprint_depends_on_each_of_its_parts():
    prints = {
        fingerprint("train", 1, {"seed": 0}, {"prepare": "a"}),
        fingerprint("evaluate", 1, {"seed": 0}, {"prepare": "a"}),
        fingerprint("train", 2, {"seed": 0}, {"prepare": "a"}),
        fingerprint("train", 1, {"seed": 1}, {"prepare": "a"}),
        fingerprint("train", 1, {"seed": 0}, {"prepare": "b"}),
    }
    assert len(prints) == 5
    assert all(len(one) == 16 for one in prints)


def test_a_write_replaces_the_whole_file_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"a much longer content from before")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_who_reads_while_a_file_is_replaced_reads_the_old_content_to_its_end(tmp_path):
    path = tmp_path / "a.json"
    write_atomically(path, b"old content")
    with path.open("rb") as reader:
        write_atomically(path, b"new")
        assert reader.read() == b"old content"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_write_that_fails_half_way_leaves_the_old_content(tmp_path, monkeypatch, number):
    path = tmp_path / "a.json"
    write_atomically(path, b"old")

    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(WorkspaceError, match="cannot be written") as caught:
        write_atomically(path, b"new content")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    assert ("free some space" in str(caught.value)) == (number == errno.ENOSPC)


def test_json_that_cannot_be_kept_exactly_is_refused(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_the_refused_file_is_named(tmp_path):
    with pytest.raises(WorkspaceError) as caught, writing(tmp_path):
        (tmp_path / "missing" / "file").write_bytes(b"")
    assert str(tmp_path / "missing" / "file") in str(caught.value)


def test_a_finished_folder_is_renamed_and_says_what_it_holds(tmp_path):
    folder = made(Workspace(tmp_path))
    assert folder.whole.is_dir()
    assert not folder.partial.exists()
    manifest = folder.manifest()
    assert (manifest.stage, manifest.reads, manifest.result) == ("train", {"seed": 0}, {"accuracy": 0.5})
    assert sorted(manifest.files) == ["best.safetensors", "plots/a.png"]
    assert manifest.files["best.safetensors"] == {
        "bytes": 7,
        "sha256": file_sha256(folder.whole / "best.safetensors"),
    }
    assert manifest.created.endswith("Z")


def test_a_folder_that_is_not_finished_has_no_manifest_and_keeps_its_files(tmp_path):
    folder = StageFolder(Workspace(tmp_path), "train", "f00")
    (folder.begin() / "step-1").write_bytes(b"kept")
    assert folder.manifest() is None
    assert (folder.begin() / "step-1").read_bytes() == b"kept"


def test_what_a_killed_command_was_writing_is_cleared_away(tmp_path):
    folder = StageFolder(Workspace(tmp_path), "train", "f00")
    (folder.begin() / ".best.safetensors.tmp").touch()
    (folder.begin() / "best.safetensors").touch()
    assert [path.name for path in folder.begin().iterdir()] == ["best.safetensors"]


def test_fresh_empties_the_partial_folder_and_leaves_the_whole_one_until_the_new_one_is_finished(tmp_path):
    folder = made(Workspace(tmp_path))
    (folder.begin() / "step-1").touch()
    assert list(folder.begin(fresh=True).iterdir()) == []
    assert (folder.whole / "best.safetensors").exists()
    folder.finish(MADE)
    assert [path.name for path in folder.whole.iterdir()] == [MANIFEST]


def test_a_folder_that_is_removed_loses_its_manifest_first(tmp_path, monkeypatch):
    folder = made(Workspace(tmp_path))

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        folder.discard()
    assert folder.whole.exists()
    assert folder.manifest() is None


def test_discarding_removes_the_partial_and_the_whole_folder(tmp_path):
    folder = made(Workspace(tmp_path))
    folder.begin()
    folder.discard()
    assert list(folder.whole.parent.iterdir()) == []


def test_what_only_a_resume_needs_is_dropped_and_is_not_in_the_manifest(tmp_path):
    folder = StageFolder(Workspace(tmp_path), "train", "f00")
    working = folder.begin()
    for name in ("step-00000001.json", "step-00000001.safetensors", "best.json"):
        (working / name).touch()
    folder.finish(MADE, scratch=("step-*",))
    assert sorted(path.name for path in folder.whole.iterdir()) == ["best.json", MANIFEST]
    assert list(folder.manifest().files) == ["best.json"]


def test_what_a_resume_needs_is_kept_until_the_folder_is_whole(tmp_path, monkeypatch):
    folder = StageFolder(Workspace(tmp_path), "train", "f00")
    (folder.begin() / "step-00000001.json").touch()

    def fail(path: Path, target: Path) -> None:
        raise OSError(errno.EIO, "failed")

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(WorkspaceError):
        folder.finish(MADE, scratch=("step-*",))
    assert (folder.partial / "step-00000001.json").exists()


def test_a_whole_folder_whose_manifest_is_lost_is_replaced(tmp_path):
    folder = made(Workspace(tmp_path))
    (folder.whole / MANIFEST).unlink()
    assert folder.manifest() is None
    (folder.begin() / "new").touch()
    folder.finish(MADE)
    assert list(folder.manifest().files) == ["new"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"null", b"\xff\xfe", b'{"unknown": 1}', b'"text"'])
def test_a_damaged_manifest_is_an_error_that_names_the_folder_to_remove(tmp_path, content):
    folder = made(Workspace(tmp_path))
    (folder.whole / MANIFEST).write_bytes(content)
    with pytest.raises(WorkspaceError, match="damaged manifest") as caught:
        folder.manifest()
    assert f"remove the folder {folder.whole}" in str(caught.value)


def test_a_stray_file_among_the_stage_folders_is_no_manifest(tmp_path):
    (tmp_path / "file").touch()
    assert read_manifest(tmp_path / "file") is None
    assert read_manifest(tmp_path / "missing") is None


def test_files_that_are_altered_or_missing_are_told(tmp_path):
    folder = made(Workspace(tmp_path))
    assert changed_files(folder.whole, folder.manifest()) == []
    (folder.whole / "best.safetensors").write_bytes(b"WEIGHTS")
    (folder.whole / "plots" / "a.png").unlink()
    told = changed_files(folder.whole, folder.manifest())
    assert told == [f"{folder.whole}/best.safetensors: altered", f"{folder.whole}/plots/a.png: missing"]


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock until it is let go of."""
    path = tmp_path / "locks" / "train.lock"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield path, process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def test_who_waits_for_a_lock_is_told_who_holds_it_and_gets_it_when_it_is_let_go(holder):
    path, process = holder
    assert is_held(path)
    told = []

    def let_go(text: str) -> None:
        told.append(text)
        threading.Timer(0.1, process.stdin.close).start()

    with exclusive(path, let_go, what="train 0f"):
        assert is_held(path)
    assert len(told) == 1
    assert told[0].startswith(f"waiting for train 0f: held by process {process.pid} since ")
    assert not is_held(path)


def test_who_waits_for_a_lock_may_give_up(holder, monkeypatch):
    path, _ = holder
    monkeypatch.setattr(locks, "WAIT_S", 0.01)
    asked = []

    def ask() -> None:
        asked.append(1)
        if len(asked) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), exclusive(path, lambda text: None, what="it", while_waiting=ask):
        pytest.fail("got a lock that another process holds")
    assert len(asked) == 3
    assert is_held(path)


def test_a_lock_is_taken_only_if_nobody_holds_it(holder, tmp_path):
    path, _ = holder
    with if_free(path) as free:
        assert not free
    other = tmp_path / "other.lock"
    with exclusive(other, print, what="it"):
        pass
    with if_free(other) as free:
        assert free
        assert is_held(other)
    assert not is_held(other)


def test_a_lock_is_free_once_its_holder_was_killed(holder):
    path, process = holder
    process.kill()
    process.wait()
    assert not is_held(path)
    told = []
    with exclusive(path, told.append, what="train 0f"):
        pass
    assert told == []


def test_a_lock_is_let_go_after_an_error(tmp_path):
    path = tmp_path / "a.lock"

    def fail() -> None:
        with exclusive(path, print, what="it"):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not is_held(path)


def test_asking_for_a_lock_that_never_was_makes_no_file(tmp_path):
    assert not is_held(tmp_path / "never.lock")
    assert list(tmp_path.iterdir()) == []


def test_a_workspace_whose_name_libraries_would_refuse_is_refused_before_any_work(tmp_path):
    root = tmp_path / os.fsdecode(b"caf\xe9")
    with pytest.raises(WorkspaceError, match=r"not valid UTF-8.*rename the folder"):
        Workspace(root).create()
    assert not root.exists()
