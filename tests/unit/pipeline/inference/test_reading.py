"""Images are read in order, some batches ahead, and none is lost."""

import threading
import time

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import ImageError
from pipeline.inference import reading
from pipeline.inference.reading import AHEAD, TOGETHER, read_batches


def pixels_of(file: str) -> np.ndarray:
    return np.full((32, 32, 3), int(file) % 256, np.uint8)


@pytest.fixture
def reads(monkeypatch):
    """Files that are numbers; the list of those that were read. Those that end in 7 cannot be."""
    read = []

    def read_image(file):
        read.append(int(file))
        time.sleep(0.0001 * (int(file) % 3))
        if file.endswith("7"):
            raise ImageError(f"{file} is a seven")
        return pixels_of(file)

    monkeypatch.setattr(reading, "read_image", read_image)
    return read


@pytest.mark.parametrize("count", [0, 1, 30, 99, 100, 101, 250])
def test_every_file_has_its_outcome_in_the_order_of_the_files(reads, count):
    files = [str(number) for number in range(count)]
    batches = list(read_batches(files, 100, threads=3))
    assert [file for batch in batches for file in batch.files] == files
    assert all(len(batch.files) == 100 for batch in batches[:-1])
    for batch in batches:
        for file, outcome in zip(batch.files, batch.outcomes, strict=True):
            if file.endswith("7"):
                assert outcome == f"{file} is a seven"
            else:
                np.testing.assert_array_equal(outcome, pixels_of(file))
        readable = [int(file) % 256 for file in batch.files if not file.endswith("7")]
        assert batch.pixels[:, 0, 0, 0].tolist() == readable


def test_no_more_is_read_ahead_than_some_batches(reads):
    files = [str(number) for number in range(2000)]
    batches = read_batches(files, 50, threads=4)
    next(batches)
    time.sleep(0.3)
    assert len(reads) == 50 * (1 + AHEAD)
    batches.close()


def test_the_next_ones_are_read_while_one_is_computed(reads):
    batches = read_batches([str(number) for number in range(200)], 50, threads=2)
    next(batches)
    deadline = time.monotonic() + 5
    while len(reads) < 100 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(reads) >= 100
    batches.close()


def test_whoever_has_enough_leaves_no_thread_behind(reads):
    before = threading.active_count()
    batches = read_batches([str(number) for number in range(5000)], 1000, threads=4)
    next(batches)
    batches.close()
    assert threading.active_count() == before
    assert len(reads) < 1000 * (1 + AHEAD), "what had not begun is left"


def test_a_fault_of_our_own_is_not_taken_for_a_bad_image(monkeypatch):
    monkeypatch.setattr(reading, "read_image", lambda file: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(read_batches(["x"], 10, threads=1))


def test_a_batch_without_an_image_has_no_pixels(reads):
    [batch] = read_batches(["7", "17"], 10, threads=1)
    assert batch.pixels.shape == (0, 32, 32, 3)
    assert batch.pixels.dtype == np.uint8


def test_several_threads_share_a_batch(monkeypatch):
    threads = set()
    together = threading.Barrier(2, timeout=5)

    def read_image(file):
        if threading.get_ident() not in threads:
            threads.add(threading.get_ident())
            together.wait()
        return pixels_of(file)

    monkeypatch.setattr(reading, "read_image", read_image)
    list(read_batches([str(number) for number in range(2 * TOGETHER)], 2 * TOGETHER, threads=2))
    assert len(threads) == 2


def test_what_pillow_warns_of_is_not_shown(tmp_path, recwarn, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 32 * 32 - 1)
    Image.new("RGB", (32, 32)).save(tmp_path / "x.png")
    [batch] = read_batches([str(tmp_path / "x.png")], 10, threads=1)
    assert batch.pixels.shape == (1, 32, 32, 3)
    assert not recwarn.list
