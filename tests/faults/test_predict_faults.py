"""`seqpipe predict` on a disk that fills up, killed, and before a reader that has had enough."""

import os
import re
import signal

import numpy as np
import pytest
from PIL import Image

COUNT = 5000


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Many names of a few images, 3 kB each."""
    folder = tmp_path_factory.mktemp("photos")
    draws = np.random.default_rng(0)
    for number in range(20):
        Image.fromarray(draws.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{number:05}.png")
    for number in range(20, COUNT):
        (folder / f"{number:05}.png").symlink_to(folder / f"{number % 20:05}.png")
    return folder


@pytest.fixture
def full(mounted):
    """A disk with 300 kB left."""
    disk = os.statvfs(mounted.root)
    (mounted.root / "filler").write_bytes(b"\0" * (disk.f_bavail * disk.f_bsize - 300_000))
    return mounted.root


def test_a_disk_that_fills_up_with_copies_ends_it_in_one_line_and_every_copy_is_whole(finished, photos, full):
    done = finished.run("predict", str(photos), "--copy-to", str(full / "sorted"))
    assert done.code == 1
    assert len(done.errors) == 1
    assert "No space left on device; free some space" in done.errors[0]
    copies = [path for path in (full / "sorted").rglob("*") if path.is_file()]
    assert len(copies) > 10
    assert all(copy.read_bytes() == (photos / copy.name).read_bytes() for copy in copies)


def test_a_disk_that_fills_up_with_a_csv_file_keeps_the_old_one(finished, photos, full):
    (full / "x.csv").write_text("old")
    done = finished.run("predict", str(photos), "--csv", str(full / "x.csv"))
    assert done.code == 1
    assert len(done.errors) == 1
    assert "x.csv" in done.errors[0]
    assert "No space left on device" in done.errors[0]
    assert sorted(path.name for path in full.iterdir()) == ["filler", "mlflow.yaml", "x.csv"]
    assert (full / "x.csv").read_text() == "old"


def test_a_kill_leaves_the_old_csv_file_and_no_half_of_a_copy(finished, photos, tmp_path):
    (tmp_path / "x.csv").write_text("old")
    process = finished.start(
        "predict", str(photos), "--csv", str(tmp_path / "x.csv"), "--copy-to", str(tmp_path / "sorted")
    )
    assert finished.wait_for(lambda: len(list(tmp_path.glob("sorted/*/*.png"))) > 100, process)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    assert (tmp_path / "x.csv").read_text() == "old"
    for copy in tmp_path.glob("sorted/*/*.png"):
        assert copy.read_bytes() == (photos / copy.name).read_bytes()


def test_a_reader_that_has_had_enough_ends_it_without_a_complaint(finished, photos):
    process = finished.start("predict", str(photos))
    process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(timeout=60) == 0, err
    assert "Traceback" not in err
    [classified] = re.findall(r"(\d+) images in", err)
    assert int(classified) < COUNT
