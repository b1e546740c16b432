"""Checkpoints of attempts that go on talking when they should not: what the store has is whole, and of one attempt.

Attempts at a row send and fetch checkpoints chunk by chunk, are thought dead and wake at any moment, the store is
restarted, its disk is full for a while, and it gets calls twice. Each history follows from its seed alone.
"""

import random

import pytest

from tuning.on_ray import checkpoint_store
from tuning.on_ray.checkpoint_store import CheckpointStore, OutdatedAttemptError

CHUNKS = 3
ROW = 3


class Attempt:
    """Sends checkpoint after checkpoint, of which each chunk says whose it is."""

    def __init__(self, number):
        self.number = number
        self.checkpoint = 0
        self.version = None
        self.left = []
        self.committed = []

    def content(self):
        return [f"{self.number:03d}.{self.checkpoint:03d}.{chunk};".encode() for chunk in range(CHUNKS)]

    def step(self, store):
        """The next call; an error of it ends the checkpoint, as a trial worker would."""
        try:
            if self.version is None:
                self.checkpoint += 1
                self.version = store.open(ROW, self.number)
                self.left = list(enumerate(self.content()))
            elif self.left:
                index, chunk = self.left.pop(0)
                store.write(ROW, self.number, self.version, "weights", index * len(chunk), chunk)
            else:
                store.commit(ROW, self.number, self.version)
                self.committed.append((self.version, b"".join(self.content())))
                self.version = None
        except (OutdatedAttemptError, OSError):
            version, self.version = self.version, None
            if version is not None:
                store.abandon(ROW, self.number, version)


def history(folder, seed, monkeypatch):
    rng = random.Random(seed)
    store, driver = CheckpointStore(str(folder)), CheckpointStore(str(folder))
    attempts = [Attempt(driver.begin_attempt(ROW))]
    is_full = False

    def sync(descriptor):
        if is_full:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint_store.os, "fsync", sync)
    for _ in range(rng.randint(5, 80)):
        what = rng.random()
        if what < 0.1 and not is_full:
            attempts.append(Attempt(driver.begin_attempt(ROW)))
            assert attempts[-1].number > attempts[-2].number
        elif what < 0.15:
            store = CheckpointStore(str(folder))  # it was killed
        elif what < 0.2:
            is_full = not is_full
        else:
            attempt = rng.choice(attempts)
            before = len(attempt.committed)
            try:
                attempt.step(store)
            except OutdatedAttemptError:
                assert attempt is not attempts[-1]
            if len(attempt.committed) > before and attempt is not attempts[-1]:
                raise AssertionError("an outdated attempt was let in")
        newest = attempts[-1]
        found = store.newest(ROW, newest.number)
        known = [each for attempt in attempts for each in attempt.committed]
        if found is None:
            assert not known
            continue
        version, [(name, size)] = found
        content = store.read(ROW, newest.number, version, name, 0)
        assert len(content) == size
        assert (version, content) == known[-1], "not the newest whole one"
    is_full = False


@pytest.mark.parametrize("block", range(4))
def test_the_newest_checkpoint_is_whole_and_of_an_attempt_that_had_a_say(tmp_path, monkeypatch, block):
    for seed in range(block * 250, (block + 1) * 250):
        try:
            history(tmp_path / str(seed), seed, monkeypatch)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
