import errno
import json
import threading
import time
import weakref

import pytest
import torch

from pipeline.errors import WorkspaceError
from pipeline.training import checkpoint as checkpoints
from pipeline.training import checkpoint_writer
from pipeline.training.checkpoint import Progress, latest, load_weights
from pipeline.training.checkpoint_writer import CheckpointWriter

NUMERICS = {"device": "cpu", "threads": 1}


def write(folder, *steps: int) -> None:
    writer = CheckpointWriter(folder, before=lambda: None, durable=lambda offset: None)
    for step in steps:
        writer.submit({"model.a": torch.zeros(1)}, Progress(step=step), NUMERICS, 0)
    writer.close()


def names_in(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_progress_that_is_handed_over_may_go_on_changing(tmp_path):
    held = threading.Event()
    writer = CheckpointWriter(tmp_path, before=held.wait, durable=lambda offset: None)
    progress = Progress(step=1, rows=[{"epoch": 1}])
    writer.submit({"model.a": torch.zeros(1)}, progress, NUMERICS, 0)
    progress.step = 2
    progress.rows[0]["epoch"] = 9
    held.set()
    writer.close()
    assert latest(tmp_path, pytest.fail).progress == Progress(step=1, rows=[{"epoch": 1}])


def test_the_two_newest_are_kept(tmp_path):
    write(tmp_path, 5, 10, 100)
    assert names_in(tmp_path) == [f"step-{step:08d}.{kind}" for step in (10, 100) for kind in ("json", "safetensors")]
    assert latest(tmp_path, pytest.fail).progress.step == 100


def test_the_description_is_written_last_so_that_half_a_checkpoint_does_not_exist(tmp_path, monkeypatch):
    write(tmp_path, 1)

    def fail(path, content) -> None:
        raise WorkspaceError("killed before the JSON")

    monkeypatch.setattr(checkpoint_writer, "write_json", fail)
    with pytest.raises(WorkspaceError):
        write(tmp_path, 2)
    assert (tmp_path / "step-00000002.safetensors").exists()
    assert latest(tmp_path, pytest.fail).progress.step == 1


def test_the_journal_is_synced_before_a_checkpoint_covers_it_and_delivered_after(tmp_path):
    order = []

    def described() -> bool:
        return (tmp_path / "step-00000003.json").exists()

    writer = CheckpointWriter(
        tmp_path,
        before=lambda: order.append(("synced", described())),
        durable=lambda offset: order.append((offset, described())),
    )
    writer.submit({"model.a": torch.zeros(1)}, Progress(step=3), NUMERICS, 42)
    writer.close()
    assert order == [("synced", False), (42, True)]
    assert writer.durable_offset == 42


def test_the_best_weights_are_on_disk_before_the_checkpoint_that_names_them(tmp_path):
    there = []
    writer = CheckpointWriter(
        tmp_path, before=lambda: there.append((tmp_path / "best.json").exists()), durable=lambda offset: None
    )
    progress = Progress(epoch=4, step=3, best_epoch=4, best_accuracy=0.75)
    writer.submit({"model.a": torch.zeros(1)}, progress, NUMERICS, 0, best={"a": torch.ones(2)})
    writer.close()
    assert there == [True]
    assert torch.equal(load_weights(tmp_path / "best.safetensors")["a"], torch.ones(2))
    described = json.loads((tmp_path / "best.json").read_bytes())
    assert (described["epoch"], described["validation_accuracy"]) == (4, 0.75)


def test_a_write_that_fails_reaches_the_next_submit_and_close(tmp_path, monkeypatch):
    def full(tensors, path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    writer = CheckpointWriter(tmp_path, before=lambda: None, durable=lambda offset: None)
    monkeypatch.setattr(checkpoints, "save_file", full)
    writer.submit({"model.a": torch.zeros(1)}, Progress(step=1), NUMERICS, 0)
    while writer.busy:
        pass
    with pytest.raises(WorkspaceError, match="free some space"):
        writer.submit({"model.a": torch.zeros(1)}, Progress(step=2), NUMERICS, 0)
    with pytest.raises(WorkspaceError):
        writer.close()
    assert names_in(tmp_path) == []


def test_at_most_one_snapshot_waits_for_the_one_that_is_written(tmp_path):
    held = threading.Event()
    writer = CheckpointWriter(tmp_path, before=held.wait, durable=lambda offset: None)
    assert not writer.busy

    def submit(step: int) -> None:
        writer.submit({"model.a": torch.zeros(1)}, Progress(step=step), NUMERICS, 0)

    submit(1)
    assert writer.busy
    while not (tmp_path / "step-00000001.safetensors").exists():
        time.sleep(0.001)
    submit(2)
    third = threading.Thread(target=submit, args=(3,), daemon=True)
    third.start()
    third.join(0.05)
    assert third.is_alive(), "or the copies would fill the memory"
    held.set()
    third.join(10)
    writer.wait()
    assert not writer.busy
    writer.close()
    assert latest(tmp_path, pytest.fail).progress.step == 3


def test_a_snapshot_on_disk_is_no_longer_in_memory(tmp_path):
    writer = CheckpointWriter(tmp_path, before=lambda: None, durable=lambda offset: None)
    snapshot = {"model.a": torch.zeros(1)}
    tensor = weakref.ref(snapshot["model.a"])
    writer.submit(snapshot, Progress(step=1), NUMERICS, 0)
    writer.wait()
    del snapshot
    assert tensor() is None, "or the next one would be the second at once"
    writer.close()


def test_a_writer_that_nobody_closes_does_not_keep_the_process_alive(tmp_path):
    before = set(threading.enumerate())
    writer = CheckpointWriter(tmp_path, before=lambda: None, durable=lambda offset: None)
    assert [thread.daemon for thread in set(threading.enumerate()) - before] == [True]
    writer.close()
