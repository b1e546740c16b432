import dataclasses
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipeline.config.resolution import resolve
from pipeline.data.batches import derive_seed
from pipeline.errors import MemoryCapError
from pipeline.progress import SilentReporter
from pipeline.stop import StopToken
from pipeline.training import open_training as module
from pipeline.training.open_training import open_training
from sequencer_models import kernels
from sequencer_models.kernels import Kernels

COUNTS = {"train": 12, "validation": 6}
TINY = ("train.batch_size=4", "train.epochs=1", "model.dims=[8,16]", "model.depths=[1,1]", "model.grid=4")


def array(name: str) -> np.ndarray:
    """The prepared data: made-up images of two classes."""
    split, kind = name.split("_")
    count = COUNTS[split]
    draws = np.random.default_rng(count)
    if kind == "labels":
        return np.arange(count) % 2
    return draws.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


PREPARED = SimpleNamespace(mean=(120.0,) * 3, std=(60.0,) * 3, class_names=("a", "b"), array=array)


@pytest.fixture
def opened(bench, tmp_path):
    @contextmanager
    def opened(*settings: str, micro_batch_size: int = 4, chosen=None, durable=lambda offset: None, **words):
        config = resolve("small", None, [*TINY, *settings], {})
        numerics = dataclasses.replace(
            bench.numerics, micro_batch_size=micro_batch_size, activation_checkpointing=chosen
        )
        with open_training(
            config, PREPARED, tmp_path, numerics, SilentReporter(), StopToken(), durable=durable, **words
        ) as found:
            try:
                yield found
            finally:
                found.writer.close()

    return opened


def test_it_starts_without_a_checkpoint_and_later_resumes_from_the_newest(opened, tmp_path):
    covered = []
    with opened(durable=covered.append) as first:
        assert first.checkpoint is None
        assert first.writer.durable_offset == 0
        assert first.images == COUNTS["train"]
        assert first.parameters == sum(value.numel() for value in first.training.model.parameters())
        first.training.fit()
    with opened() as second:
        assert second.checkpoint.progress.epoch == 1
        assert second.writer.durable_offset == second.checkpoint.journal_offset == covered[-1] > 0


def test_the_seed_gives_weights_order_and_dropout(opened):
    draws = []
    for settings in ((), (), ("seed=1",)):
        with opened(*settings) as found:
            images = next(iter(found.training.batches.epoch(0))).images
            weight = found.training.model.head.weight.detach().clone()
            draws.append((weight, images.clone(), torch.rand(3)))
    for kind in range(3):
        assert torch.equal(draws[0][kind], draws[1][kind])
        assert not torch.equal(draws[0][kind], draws[2][kind])
    torch.manual_seed(derive_seed(0, "dropout"))
    assert torch.equal(draws[0][2], torch.rand(3)), "whatever the weights drew"


def test_it_computes_with_the_numerics_of_the_training(opened):
    kernels.select(Kernels(linear="convolution"))
    with opened():
        assert kernels.selected() == Kernels()


@pytest.mark.parametrize(("micro_batch_size", "expected"), [(1, 4), (60, 240), (128, 250)])
def test_validation_holds_little_more_than_a_training_step(opened, micro_batch_size, expected):
    with opened(micro_batch_size=micro_batch_size) as found:
        assert found.training.validation.batch_size == expected
        assert len(found.training.validation.split) == COUNTS["validation"]


@pytest.mark.parametrize("enabled", [False, True])
def test_the_config_turns_activation_checkpointing_on(opened, enabled):
    with opened(f"compute.recompute={str(enabled).lower()}", "compute.checkpoint_every_s=7") as found:
        assert found.training.model.levels[0].blocks.checkpoint_activations is enabled
        assert found.training.checkpoint_every_s == 7


@pytest.mark.parametrize("chosen", [False, True])
@pytest.mark.parametrize("asked", [False, True])
def test_activations_are_checkpointed_if_the_config_or_the_memory_asks_for_it(opened, asked, chosen):
    with opened(f"compute.recompute={str(asked).lower()}", chosen=chosen) as found:
        assert found.training.model.levels[0].blocks.checkpoint_activations is (asked or chosen)


def test_the_writer_keeps_what_the_caller_wants(opened, tmp_path):
    with opened(kept=1, keeps_best=False) as found:
        found.training.save()
        found.training.fit()
    assert len(list(tmp_path.glob("step-*.json"))) == 1
    assert not (tmp_path / "best.json").exists()


def test_the_best_weights_are_kept_unless_the_caller_does_not_want_them(opened, tmp_path):
    with opened() as found:
        found.training.fit()
    assert (tmp_path / "best.json").exists()


def test_no_memory_for_the_model_is_explained(opened, monkeypatch):
    def fail(config, classes):
        raise MemoryError

    monkeypatch.setattr(module, "build_model", fail)
    with pytest.raises(MemoryCapError, match=r"compute\.micro_batch_size=2"), opened():
        pass
