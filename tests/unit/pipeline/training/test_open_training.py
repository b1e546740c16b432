import contextlib
import dataclasses
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipeline.config.resolution import resolve
from pipeline.data.batches import derive_seed
from pipeline.errors import InterruptedRunError, MemoryCapError
from pipeline.progress import SilentReporter
from pipeline.stop import StopToken
from pipeline.training import checkpoint as checkpoints
from pipeline.training import open_training as module
from pipeline.training.open_training import open_training
from sequencer_models import catalog, kernels
from sequencer_models.kernels import Kernels
from sequencer_models.whitening import whiten

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
    def opened(
        *settings: str,
        micro_batch_size: int = 4,
        chosen=None,
        durable=lambda offset: None,
        folder=tmp_path,
        stop_token=None,
        **words,
    ):
        config = resolve("small", None, [*TINY, *settings], {})
        numerics = dataclasses.replace(
            bench.numerics, micro_batch_size=micro_batch_size, activation_checkpointing=chosen
        )
        folder.mkdir(exist_ok=True)
        with open_training(
            config, PREPARED, folder, numerics, SilentReporter(), stop_token or StopToken(), durable=durable, **words
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


EVERY_OPTION = (
    "model.stem=deep", "model.stem_width=6", "model.whitened=true", "model.mixing=columns", "model.pooling=attention",
    "model.recurrent_init=orthogonal", "model.forget_bias=1", "model.dropout=0.2", "train.ema_decay=0.8",
    "train.epochs=2",
)  # fmt: skip


def filters_of(found) -> torch.Tensor:
    return found.training.model.stem.convs[0].weight


def test_a_whitened_stem_is_computed_from_the_first_training_images_before_the_first_step(opened, monkeypatch):
    monkeypatch.setattr(module, "WHITENING_IMAGES", 5)
    expected = catalog.build("small", 2, dims=(8, 16), depths=(1, 1), grid=4, stem="deep", whitened=True)
    normalised = (torch.from_numpy(array("train_images")[:5]).permute(0, 3, 1, 2) - 120.0) / 60.0
    whiten(expected, [normalised.float()])
    with opened("model.stem=deep", "model.whitened=true") as found:
        torch.testing.assert_close(filters_of(found), expected.stem.convs[0].weight)


def test_with_every_option_a_training_that_left_ends_in_the_same_bits_and_its_whitened_filters_stay(
    opened, leave_after, tmp_path, monkeypatch
):
    whitened = []
    monkeypatch.setattr(module, "whiten", lambda model, batches: whitened.append(1) or whiten(model, batches))
    ends = []
    for name, pieces in (("whole", [StopToken()]), ("left", [leave_after(2), leave_after(4), StopToken()])):
        for token in pieces:
            with opened(*EVERY_OPTION, folder=tmp_path / name, stop_token=token) as found:
                token.training, training = found.training, found.training
                if found.checkpoint is None:
                    start = filters_of(found).detach().clone()
                    training.save()
                else:
                    training.resume(found.checkpoint, found.checkpoint.progress.best_epoch)
                with contextlib.suppress(InterruptedRunError):
                    training.fit()
        assert training.progress.step == 6
        assert torch.equal(filters_of(found), start)
        assert torch.equal(training.average.weights["stem.convs.0.weight"], start)
        ends.append(checkpoints.snapshot(training.model, training.optimizer, training.average))
    assert len(whitened) == 2, "at each fresh start, and at no resume"
    assert ends[0].keys() == ends[1].keys()
    assert [name for name, value in ends[0].items() if not torch.equal(value, ends[1][name])] == []
    assert not torch.equal(training.model.stem.convs[0].bias, torch.zeros(6)), "the bias is trained"


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
