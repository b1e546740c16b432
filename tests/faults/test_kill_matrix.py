"""SIGKILL at random moments, four in each training: every model, fp32 and bf16, ends in the same weights."""

import random
import time

import pytest
from product import Place, tiny

KILLS = 4
COMBINATIONS = [(model, precision) for model in ("vanilla", "small", "medium") for precision in ("fp32", "bf16")]


@pytest.mark.parametrize(("model", "precision"), COMBINATIONS)
def test_killed_at_random_moments_a_training_ends_in_the_same_weights(place, tmp_path, model, precision):
    words = tiny(
        model, train__epochs=12 if model == "vanilla" else 3, train__batch_size=16,
        train__ema_decay=0.9 if model == "small" else "null",
        data__fraction=0.5, compute__precision=precision, compute__checkpoint_every_s=0.02, compute__threads=2,
        compute__micro_batch_size=6 if model == "medium" else "null",
    )  # fmt: skip
    alone = Place(tmp_path / "alone")
    assert alone.run("run", "train", *words).code == 0

    draws = random.Random(f"{model} {precision}")
    moments = ["inside the writing of a checkpoint", "between a checkpoint and its description", "any", "any"]
    for moment in draws.sample(moments, KILLS):
        process = place.start("run", "train", *words)
        known = place.checkpoints()
        assert place.wait_for(lambda known=known: place.checkpoints()[-1:] > known[-1:], process)
        if moment == "any":
            time.sleep(draws.uniform(0, 0.4))
        elif moment == "inside the writing of a checkpoint":
            assert place.wait_for(lambda: list(place.partial().glob(".*.tmp")), process, every_s=0)
        else:
            assert place.wait_for(lambda: undescribed(place), process, every_s=0)
        process.kill()
        assert process.wait() == -9, moment

    done = place.run("run", "train", *words)
    assert done.code == 0, done.err
    assert "going on: " in done.err
    assert place.result() == alone.result()


def undescribed(place):
    folder = place.partial()
    return [path for path in folder.glob("step-*.safetensors") if not path.with_suffix(".json").exists()]


def test_killed_while_it_starts_a_training_ends_in_the_same_weights(place, tmp_path):
    """Before the first checkpoint: imports, the model, the run's own files."""
    words = tiny("vanilla", train__epochs=2)
    alone = Place(tmp_path / "alone")
    assert alone.run("run", "train", *words).code == 0
    draws = random.Random(5)
    for _ in range(6):
        process = place.start("run", "train", *words)
        time.sleep(draws.uniform(0.3, 3.5))
        process.kill()
        process.wait()
    done = place.run("run", "train", *words)
    assert done.code == 0, done.err
    assert place.result() == alone.result()
