"""How requests become batches."""

import asyncio
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.serving.batcher import Batcher
from pipeline.serving.bounds import Bounds
from pipeline.serving.refusal import Refusal

BOUNDS = Bounds()


def pixels(*levels):
    return np.stack([np.full((32, 32, 3), level, np.uint8) for level in levels])


class Slow:
    """A model that computes when it is let."""

    def __init__(self, model):
        self.model, self.go, self.began = model, threading.Event(), threading.Event()

    def __getattr__(self, name):
        return getattr(self.model, name)

    def probabilities(self, pixels):
        self.began.set()
        assert self.go.wait(10)
        return self.model.probabilities(pixels)


@pytest.fixture
def make(model):
    made = []

    def make(of=model, **bounds):
        made.append(Batcher(lambda: of, replace(BOUNDS, **bounds)))
        return made[-1]

    yield make
    for batcher in made:
        batcher.close()


def test_each_request_gets_the_answers_to_its_own_images(make, model):
    slow = Slow(model)
    batcher = make(slow)

    async def ask():
        asked = [batcher.submit(pixels(*levels)) for levels in ([0], [255, 0], [51])]
        slow.go.set()
        return [(await one).probabilities[:, 1].tolist() for one in asked]

    found = asyncio.run(ask())
    assert [np.round(one, 3).tolist() for one in found] == [[0.0], [1.0, 0.0], [0.2]]


def test_what_comes_while_a_batch_is_computed_becomes_one_batch(make, model):
    slow = Slow(model)
    batcher = make(slow)

    async def ask():
        first = batcher.submit(pixels(0))
        await asyncio.to_thread(slow.began.wait, 10)
        rest = [batcher.submit(pixels(0)) for _ in range(5)]
        slow.go.set()
        await asyncio.gather(first, *rest)

    asyncio.run(ask())
    assert model.batches == [1, 8], "five, filled up to a size that is prepared"


def test_a_lone_request_waits_for_nobody(make):
    batcher = make(gathering_s=30.0)
    began = time.monotonic()
    asyncio.run(_await(batcher.submit(pixels(0))))
    assert time.monotonic() - began < 5


def test_a_batch_waits_for_a_request_that_is_on_its_way(make, model):
    batcher = make(gathering_s=30.0)

    async def ask():
        with batcher.on_its_way() as has_arrived:
            first = batcher.submit(pixels(0))
            await asyncio.sleep(0.05)
            second = batcher.submit(pixels(0))
            has_arrived()
        await asyncio.gather(first, second)

    asyncio.run(ask())
    assert model.batches == [2]


def test_but_not_for_longer_than_it_is_told(make, model):
    batcher = make(gathering_s=0.01)
    with batcher.on_its_way():
        asyncio.run(_await(batcher.submit(pixels(0))))
    assert model.batches == [1]


def test_a_batch_is_no_larger_than_it_may_be_and_a_large_request_is_divided(make, model):
    batcher = make(batch_images=4)

    async def ask():
        return (await batcher.submit(pixels(*range(0, 100, 10)))).probabilities

    found = asyncio.run(ask())
    assert max(model.batches) == 4
    np.testing.assert_allclose(found[:, 1], np.arange(0, 100, 10) / 255, atol=1e-6)


def test_a_full_queue_refuses_what_comes_next(make, model):
    slow = Slow(model)
    batcher = make(slow, queued_images=2)

    async def ask():
        first = batcher.submit(pixels(0))
        await asyncio.to_thread(slow.began.wait, 10)
        second = batcher.submit(pixels(0, 0))
        with pytest.raises(Refusal, match="2 images wait already") as refused:
            batcher.submit(pixels(0))
        slow.go.set()
        await asyncio.gather(first, second)
        return refused.value

    refused = asyncio.run(ask())
    assert (refused.status, refused.headers) == (429, {"Retry-After": "1"})
    assert batcher.queued_images == 0


def test_an_error_of_the_model_is_told_and_the_next_request_is_answered(make, model, monkeypatch):
    batcher = make()
    real = model.probabilities
    monkeypatch.setattr(model, "probabilities", lambda pixels: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(_await(batcher.submit(pixels(0))))
    monkeypatch.setattr(model, "probabilities", real)
    assert batcher.is_alive
    assert asyncio.run(_await(batcher.submit(pixels(0)))).probabilities.shape == (1, 2)


def test_who_has_given_up_is_not_computed(make, model):
    slow = Slow(model)
    batcher = make(slow)

    async def ask():
        first = asyncio.ensure_future(batcher.submit(pixels(0)))
        await asyncio.to_thread(slow.began.wait, 10)
        given_up = asyncio.ensure_future(batcher.submit(pixels(0)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.sleep(0)
        slow.go.set()
        await first

    asyncio.run(ask())
    batcher.close()
    assert model.batches == [1]


def test_closing_answers_what_waits_and_takes_no_more(make, model):
    slow = Slow(model)
    batcher = make(slow)

    async def ask():
        waiting = [batcher.submit(pixels(0)) for _ in range(3)]
        closing = asyncio.create_task(asyncio.to_thread(batcher.close))
        await asyncio.sleep(0.05)
        with pytest.raises(Refusal, match="about to end"):
            batcher.submit(pixels(0))
        slow.go.set()
        answers = await asyncio.gather(*waiting)
        await closing
        return answers

    assert len(asyncio.run(ask())) == 3
    assert not batcher.is_alive


def test_a_request_is_answered_by_one_model_also_when_another_takes_its_place_meanwhile(model):
    slow, other = Slow(model), Slow(model)
    other.go.set()
    serving = [slow]
    batcher = Batcher(lambda: serving[0], replace(BOUNDS, batch_images=2))

    async def ask():
        first = batcher.submit(pixels(0, 0, 0, 0, 0))
        serving[0] = other
        second = batcher.submit(pixels(0))
        slow.go.set()
        return await asyncio.gather(first, second)

    first, second = asyncio.run(ask())
    batcher.close()
    assert (first.classifier, len(first.probabilities)) == (slow, 5)
    assert second.classifier is other
    assert model.batches == [2, 2, 1, 1], "images of two models are never in one batch"


def test_batches_have_few_sizes_and_nothing_of_what_fills_them_up_is_answered(make, model):
    batcher = make()
    for count in (1, 3, 9, 17, 25):
        found = asyncio.run(_await(batcher.submit(pixels(*range(count)))))
        np.testing.assert_allclose(found.probabilities[:, 1], np.arange(count) / 255, atol=1e-6)
    assert model.batches == [1, 4, 16, 24, 32]


def test_few_images_are_computed_by_few_threads(make, model):
    used, before = [], torch.get_num_threads()

    class Counted:
        def __getattr__(self, name):
            return getattr(model, name)

        def probabilities(self, pixels):
            used.append(torch.get_num_threads())
            return model.probabilities(pixels)

    torch.set_num_threads(6)
    try:
        batcher = make(Counted())
        for count in (1, 4, 8, 16, 32, 1):
            asyncio.run(_await(batcher.submit(pixels(*range(count)))))
    finally:
        torch.set_num_threads(before)
    assert used == [1, 1, 2, 4, 6, 1]


async def _await(answer):
    return await answer
