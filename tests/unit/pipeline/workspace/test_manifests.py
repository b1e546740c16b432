import errno
import shutil
from pathlib import Path

import pytest

from pipeline.errors import WorkspaceError
from pipeline.workspace.fingerprints import file_sha256
from pipeline.workspace.manifests import MANIFEST, Manifest, StageFolder, changed_files, read_manifest
from pipeline.workspace.paths import Workspace

MADE = Manifest("train", 1, "f00", {"seed": 0}, {"prepare": "abc"}, {"accuracy": 0.5}, seconds=1.5)


def made(workspace: Workspace, print_of: str = "f00") -> StageFolder:
    folder = StageFolder(workspace, "train", print_of)
    working = folder.begin()
    (working / "best.safetensors").write_bytes(b"weights")
    (working / "plots").mkdir(exist_ok=True)
    (working / "plots" / "a.png").write_bytes(b"picture")
    folder.finish(MADE)
    return folder


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
    (folder.partial / MANIFEST).write_text("{}")  # it was about to rename the folder
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
