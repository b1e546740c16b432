import dataclasses
import json
import math
import time

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.errors import InterruptedRunError, MemoryCapError, TrainingDivergedError
from pipeline.tracking.journal import FILE_NAME, read
from pipeline.training import checkpoint as checkpoints
from pipeline.training import checkpoint_writer, time_forecast
from pipeline.training.checkpoint import Progress
from pipeline.training.learning_rate import learning_rate_at
from pipeline.training.loss import training_loss
from pipeline.training.time_forecast import FORECAST_TAG, TIMED_STEPS
from pipeline.training.validation import evaluate
from sequencer_models.activation_checkpointing import checkpoint_activations

EVERY_OPTION = {
    "optimizer": "muon", "muon_learning_rate": 0.03, "adam_beta2": 0.9, "bias_rate_factor": 3.0, "schedule": "linear",
    "augment": {"padding": "reflect", "alternating_flip": True, "cutout_pixels": 8, "cutmix": 0.5},
}  # fmt: skip
FREE = ("images_per_second", "trained_s", "peak_memory_mb", "epoch_s", "steps_s")  # differ from run to run


def rows_of(folder) -> list[object]:
    """The journal without times and speeds."""
    return [
        (event.kind, event.content.get("step"), {k: v for k, v in event.content["values"].items() if k not in FREE})
        for event in read(folder / FILE_NAME)
        if not any(name.startswith("system/") or name == FORECAST_TAG for name in event.content["values"])
    ]


def progress_of(training) -> dict[str, object]:
    figures = {key: value for key, value in dataclasses.asdict(training.progress).items() if key not in FREE}
    figures["rows"] = [{key: value for key, value in row.items() if key not in FREE} for row in figures["rows"]]
    return figures


def assert_same_weights(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def weights_of(training) -> dict[str, torch.Tensor]:
    return checkpoints.snapshot(training.model, training.optimizer, training.average)


@pytest.mark.parametrize(
    ("name", "precision", "options", "moments"),
    [
        ("vanilla", "fp32", {}, 12),
        ("vanilla", "bf16", {}, 3),
        ("vanilla", "fp32", EVERY_OPTION, 3),
        ("small", "fp32", {}, 3),
        ("small", "bf16", {}, 3),
        ("small", "fp32", EVERY_OPTION, 6),
        ("small", "bf16", EVERY_OPTION, 3),
        ("small with every option", "fp32", EVERY_OPTION, 3),
    ],
)
def test_a_training_that_left_at_any_moment_ends_in_the_same_bits(
    bench, leave_at, tmp_path, name, precision, options, moments
):
    bench = dataclasses.replace(bench, name=name).with_config(ema_decay=0.8, epochs=2, **options)
    bench = bench.with_numerics(precision=precision)
    whole = bench.fit(tmp_path / "whole", never := leave_at())
    for moment in np.linspace(1, never.asked, moments, dtype=int):
        folder = tmp_path / f"left-{moment}"
        with pytest.raises(InterruptedRunError):
            bench.fit(folder, leave_at(moment))
        resumed = bench.fit(folder)
        assert_same_weights(weights_of(resumed), weights_of(whole))
        assert rows_of(folder) == rows_of(tmp_path / "whole")
        assert progress_of(resumed) == progress_of(whole)
        assert_same_weights(
            checkpoints.load_weights(folder / "best.safetensors"),
            checkpoints.load_weights(tmp_path / "whole" / "best.safetensors"),
        )


def test_a_training_that_leaves_after_every_step_ends_in_the_same_bits(bench, leave_after, tmp_path):
    whole = bench.fit(tmp_path / "whole")
    for step in range(1, 10):
        with pytest.raises(InterruptedRunError):
            bench.fit(tmp_path / "pieces", leave_after(step))
    assert_same_weights(weights_of(bench.fit(tmp_path / "pieces")), weights_of(whole))
    assert rows_of(tmp_path / "pieces") == rows_of(tmp_path / "whole")


def test_what_the_journal_got_after_the_checkpoint_is_cut_off_at_a_resume(bench, leave_after, tmp_path):
    with pytest.raises(InterruptedRunError):
        bench.fit(tmp_path, leave_after(5))
    with (tmp_path / FILE_NAME).open("ab") as file:
        file.write(b'{"kind":"metrics","step":9,"values":{"validation/accuracy":1.0},"time_ms":1}\n{"kind":"me')
    bench.fit(tmp_path)
    assert [step for _, step, _ in rows_of(tmp_path)] == [1, 2, 3]


def test_a_finished_training_that_is_resumed_does_nothing(bench, tmp_path):
    whole = bench.fit(tmp_path)
    again = bench.fit(tmp_path)
    assert again.progress == whole.progress
    assert_same_weights(weights_of(again), weights_of(whole))


@pytest.mark.parametrize("micro_batch_size", [1, 3, 4, 100])
def test_micro_batches_train_like_whole_batches(bench, tmp_path, micro_batch_size):
    bench = dataclasses.replace(bench, architecture={"hidden": 8, "layers": 1, "dropout": 0.0}, images=20)
    bench = bench.with_config(epochs=2)
    whole = bench.fit(tmp_path / "whole")
    parts = bench.with_numerics(micro_batch_size=micro_batch_size).fit(tmp_path / "parts")
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(parts.model.state_dict()[name], value, rtol=2e-3, atol=2e-4)
    assert parts.progress.rows[0]["train/loss"] == pytest.approx(whole.progress.rows[0]["train/loss"], rel=1e-4)


def test_activation_checkpointing_changes_no_bit_of_a_training_and_may_change_at_a_resume(
    bench, tmp_path, leave_after
):
    bench = dataclasses.replace(bench, name="small")  # with dropout and stochastic depth
    checkpointed = dataclasses.replace(bench, edit=lambda model: checkpoint_activations(model, True))
    plain = weights_of(bench.fit(tmp_path / "plain"))
    assert_same_weights(weights_of(checkpointed.fit(tmp_path / "checkpointed")), plain)
    with pytest.raises(InterruptedRunError):
        bench.fit(tmp_path / "changed", leave_after(5))
    assert_same_weights(weights_of(checkpointed.fit(tmp_path / "changed")), plain)


def test_fewer_images_at_once_from_a_resume_on_change_the_last_bits_only(bench, tmp_path, leave_after):
    bench = dataclasses.replace(bench, architecture={"hidden": 8, "layers": 1, "dropout": 0.0})
    whole = weights_of(bench.fit(tmp_path / "whole"))
    with pytest.raises(InterruptedRunError):
        bench.fit(tmp_path / "halved", leave_after(5))
    halved = bench.with_numerics(micro_batch_size=4, halvings=1).fit(tmp_path / "halved")
    for name, value in weights_of(halved).items():
        torch.testing.assert_close(value, whole[name], rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("cutmix", [0.0, 1.0])
def test_micro_batches_see_the_images_that_the_whole_batch_would_have_seen(bench, tmp_path, cutmix):
    seen: dict[str, list[torch.Tensor]] = {}

    def images_of(bench, name: str) -> torch.Tensor:
        seen[name] = []
        with bench.training(tmp_path / name) as training:
            training.model.register_forward_pre_hook(
                lambda model, inputs: seen[name].append(inputs[0]) if model.training else None
            )
            training.fit()
        return torch.cat(seen[name])

    bench = bench.with_config(epochs=1, augment={"cutmix": cutmix})
    assert torch.equal(images_of(bench, "whole"), images_of(bench.with_numerics(micro_batch_size=3), "parts"))
    assert [len(part) for part in seen["parts"]] == [3, 3, 2] * 3


def test_an_epoch_is_one_row_of_figures_in_the_journal_and_for_the_reporter(bench, tmp_path):
    reports = []
    bench.reporter.epoch = reports.append
    training = bench.fit(tmp_path)
    figures = {
        "train/loss", "train/accuracy", "validation/loss", "validation/accuracy",
        "learning_rate", "images_per_second",
    }  # fmt: skip
    events = list(read(tmp_path / FILE_NAME))
    assert [event.content["step"] for event in events] == [1, 2, 3]
    so_far = {"best/validation_accuracy", "best/epoch", "peak_memory_mb"}
    assert all(set(event.content["values"]) == figures | so_far for event in events)
    assert all(event.content["values"]["peak_memory_mb"] > 0 for event in events)
    assert reports == training.progress.rows
    assert training.progress.rows[2]["learning_rate"] == learning_rate_at(8, 9, bench.config)


def test_a_training_learns(bench, tmp_path):
    training = bench.with_config(epochs=12, learning_rate=0.02, label_smoothing=0.0).fit(tmp_path)
    rows = training.progress.rows
    assert rows[-1]["train/loss"] < 0.7 * rows[0]["train/loss"]
    assert training.progress.best_accuracy > 0.6


def test_the_best_weights_are_those_of_the_epoch_with_the_best_validation_accuracy(bench, tmp_path):
    bench = bench.with_config(epochs=6, ema_decay=0.5)
    training = bench.fit(tmp_path)
    accuracies = [row["validation/accuracy"] for row in training.progress.rows]
    assert training.progress.best_epoch == accuracies.index(max(accuracies)) + 1  # the first of equal ones
    weights = checkpoints.load_weights(tmp_path / "best.safetensors")
    loss, accuracy = evaluate(training.model, training.validation, bench.numerics, weights)
    assert (loss, accuracy) == (training.progress.best_loss, training.progress.best_accuracy)
    described = json.loads((tmp_path / "best.json").read_bytes())
    assert described["epoch"] == training.progress.best_epoch


def test_every_epoch_records_the_best_accuracy_so_far_and_its_epoch(bench, tmp_path):
    training = bench.with_config(epochs=6).fit(tmp_path)
    accuracies = [row["validation/accuracy"] for row in training.progress.rows]
    values = [event.content["values"] for event in read(tmp_path / FILE_NAME)]
    best = [max(accuracies[: epoch + 1]) for epoch in range(6)]
    assert [value["best/validation_accuracy"] for value in values] == best
    assert [value["best/epoch"] for value in values] == [accuracies.index(one) + 1 for one in best]
    assert not any(key.startswith("best/") for row in training.progress.rows for key in row)


def test_a_loss_that_is_not_finite_ends_the_training_with_step_and_advice(bench, tmp_path):
    def spoil(model, inputs, output):
        calls.append(1)
        return output * float("nan") if len(calls) == 9 else output  # 3 steps, 3 validation batches, 3 steps

    calls: list[int] = []
    with bench.training(tmp_path) as training:
        training.model.register_forward_hook(spoil)
        with pytest.raises(TrainingDivergedError) as caught:
            training.fit()
    message = str(caught.value)
    assert message.startswith("the loss became nan in step 6 (epoch 2); the last good epoch was 1 with validation")
    assert "train.learning_rate (it was 0.01)" in message
    assert len(message.splitlines()) == 2
    assert checkpoints.latest(tmp_path, pytest.fail).progress.epoch == 1


def test_a_validation_loss_that_is_not_finite_ends_the_training_and_is_never_the_best(bench, tmp_path):
    with bench.training(tmp_path) as training:
        training.model.register_forward_hook(
            lambda model, inputs, output: output if model.training else output * float("inf")
        )
        with pytest.raises(TrainingDivergedError, match=r"validation loss became nan after step 3 \(epoch 1\)"):
            training.fit()
    assert not (tmp_path / "best.safetensors").exists()
    assert not rows_of(tmp_path)


@pytest.mark.parametrize("error", [RuntimeError("DefaultCPUAllocator: can't allocate memory"), MemoryError()])
def test_running_out_of_memory_advises_a_smaller_micro_batch(bench, tmp_path, error):
    def fail(model, inputs):
        raise error

    with bench.training(tmp_path) as training:
        training.model.register_forward_pre_hook(fail)
        with pytest.raises(MemoryCapError, match=r"micro_batch_size=4 .*same batches"):
            training.fit()


def test_a_training_stops_early_when_the_validation_no_longer_improves(bench, tmp_path):
    bench = bench.with_config(epochs=9, early_stopping_patience=2, learning_rate=1e-9)
    training = bench.fit(tmp_path)
    assert (training.progress.epoch, training.progress.best_epoch) == (3, 1)
    assert bench.with_config(early_stopping_patience=None, epochs=4).fit(tmp_path / "all").progress.epoch == 4


def test_validation_is_on_the_validation_split_in_evaluation_mode_and_leaves_training_mode(bench, tmp_path):
    seen = []
    with bench.training(tmp_path) as training:
        training.model.register_forward_pre_hook(lambda model, inputs: seen.append((model.training, inputs[0])))
        training.fit()
        assert training.model.training
    validated = torch.cat([images for in_training, images in seen if not in_training])
    validation = training.validation.split
    expected = training.validation.normalise(torch.from_numpy(validation.images).permute(0, 3, 1, 2))
    assert torch.equal(validated, expected.repeat(3, 1, 1, 1))
    assert sum(len(images) for in_training, images in seen if in_training) == 3 * 24


def test_a_moving_average_is_what_is_validated_and_kept(bench, tmp_path):
    with_average = bench.with_config(ema_decay=0.999)
    training = with_average.fit(tmp_path)
    average = training.average.weights
    assert not torch.equal(average["head.weight"], training.model.state_dict()["head.weight"])
    loss, _ = evaluate(training.model, training.validation, bench.numerics, average)
    assert training.progress.rows[-1]["validation/loss"] == loss


def test_gradients_are_clipped_to_the_norm_that_was_asked_for(bench, tmp_path):
    norms = []
    with bench.with_config(clip_norm=1e-3, epochs=1).training(tmp_path) as training:
        original = training.optimizer.step

        def step():
            norms.append(nn.utils.get_total_norm([p.grad for p in training.model.parameters()]).item())
            return original()

        training.optimizer.step = step
        training.fit()
    assert norms == pytest.approx([1e-3] * 3, rel=1e-2)


def test_a_checkpoint_is_written_inside_an_epoch_when_it_is_time(bench, leave_at, tmp_path):
    class KilledError(Exception):
        pass

    class KillAt(leave_at):
        def reason(self):
            if super().reason() is not None:
                raise KilledError  # nothing is saved on this way out

    bench = dataclasses.replace(bench, checkpoint_every_s=1e-9)
    with bench.training(tmp_path, KillAt(1, lambda training: training.progress.step == 3)) as training:
        original = training._between_steps

        def watch():
            original()
            while training.writer.busy:  # else a save may be put off to the next step
                pass

        training._between_steps = watch
        with pytest.raises(KilledError):
            training.fit()
    assert checkpoints.latest(tmp_path, pytest.fail).progress.step == 2


def test_time_and_memory_are_summed_over_the_pieces(bench, leave_after, tmp_path):
    with pytest.raises(InterruptedRunError):
        bench.fit(tmp_path, leave_after(2))
    before = checkpoints.latest(tmp_path, pytest.fail).progress
    after = bench.fit(tmp_path).progress
    assert 0 < before.trained_s < after.trained_s
    assert after.peak_memory_mb >= before.peak_memory_mb > 10


def test_a_training_starts_at_nothing(bench, tmp_path):
    with bench.training(tmp_path) as training:
        assert dataclasses.replace(training.progress, trained_s=0.0) == Progress()


def test_the_speed_of_an_epoch_counts_all_of_its_steps_also_after_leaving_in_its_validation(
    bench, leave_at, tmp_path
):
    with pytest.raises(InterruptedRunError):
        bench.fit(tmp_path, leave_at(1, lambda training: not training.model.training))
    before = checkpoints.latest(tmp_path, pytest.fail).progress
    assert (before.epoch, before.batch) == (0, 3)
    assert before.epoch_s > 0
    progress = bench.fit(tmp_path).progress
    assert progress.rows[0]["images_per_second"] == pytest.approx(bench.images / before.epoch_s)
    total_s = sum(bench.images / row["images_per_second"] for row in progress.rows)
    assert progress.steps_s == pytest.approx(total_s)


def test_what_it_said_of_its_time_is_recorded_once_also_when_it_goes_on(bench, leave_after, tmp_path, monkeypatch):
    monkeypatch.setattr(time_forecast, "TIMED_S", 0.0)

    def recorded():
        events = [event.content["values"] for event in read(tmp_path / FILE_NAME) if event.kind == "tags"]
        return [float(values[FORECAST_TAG]) for values in events if FORECAST_TAG in values]

    with pytest.raises(InterruptedRunError):
        bench.fit(tmp_path, leave_after(TIMED_STEPS + 2))
    [said] = recorded()
    assert said > 0
    bench.fit(tmp_path)
    assert recorded() == [said]


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_loss_that_is_minimised_has_its_labels_smoothed(bench, tmp_path, smoothing):
    plain = {"hidden": 8, "layers": 1, "dropout": 0.0}
    bench = dataclasses.replace(bench, images=8, architecture=plain).with_config(label_smoothing=smoothing, epochs=1)
    with bench.training(tmp_path) as training:
        [batch] = training.batches.epoch(0)
        logits = bench.model()(batch.images)
        row = training.fit().rows[0]
    expected = nn.functional.cross_entropy(logits, batch.labels, label_smoothing=smoothing)
    assert row["train/loss"] == pytest.approx(expected.item(), rel=1e-5)


def test_of_mixed_images_both_classes_are_learnt_and_the_larger_share_counts_as_right(bench, tmp_path):
    plain = {"hidden": 8, "layers": 1, "dropout": 0.0}
    bench = dataclasses.replace(bench, images=8, architecture=plain)
    with bench.with_config(epochs=1, augment={"cutmix": 1.0}).training(tmp_path) as training:
        [batch] = training.batches.epoch(0)
        logits = bench.model()(batch.images)
        row = training.fit().rows[0]
    assert row["train/loss"] == pytest.approx(training_loss(logits, batch, 0.1).item(), rel=1e-5)
    assert not torch.equal(batch.labels, batch.labels_beside)
    assert row["train/accuracy"] == (logits.argmax(1) == batch.labels).float().mean().item()


def test_the_advice_on_a_muon_that_diverged_names_its_rate_too(bench, tmp_path):
    bench = bench.with_config(optimizer="muon", muon_learning_rate=0.5)
    with bench.training(tmp_path) as training:
        training.model.register_forward_hook(lambda model, inputs, output: output * math.nan)
        with pytest.raises(
            TrainingDivergedError, match=r"learning_rate \(it was 0.01\) or train.muon_learning_rate \(it"
        ):
            training.fit()


def test_muon_computes_in_the_precision_that_the_training_has(bench, tmp_path):
    bench, flops = dataclasses.replace(bench, name="small").with_config(optimizer="muon"), {}
    for precision in ("fp32", "bf16"):
        with bench.with_numerics(precision=precision).training(tmp_path / precision) as training:
            flops[precision] = training.optimizer.flops
    assert flops["fp32"] < flops["bf16"], "which has no way around long matrices"


def test_muon_learns(bench, tmp_path):
    rows = bench.with_config(epochs=12, optimizer="muon", muon_learning_rate=0.02).fit(tmp_path).progress.rows
    assert rows[-1]["train/loss"] < 0.8 * rows[0]["train/loss"]


def test_a_gradient_that_is_not_finite_ends_the_training_before_it_reaches_the_weights(bench, tmp_path):
    with bench.training(tmp_path) as training:
        before = {name: value.clone() for name, value in training.model.state_dict().items()}
        training.model.head.weight.register_hook(lambda gradient: gradient * math.inf)
        with pytest.raises(TrainingDivergedError, match=r"gradient became (nan|inf) in step 1"):
            training.fit()
        assert_same_weights(before, training.model.state_dict())


def test_best_weights_of_an_epoch_beyond_the_checkpoint_are_found_again(bench, leave_after, tmp_path):
    whole = bench.fit(tmp_path / "whole")
    with pytest.raises(InterruptedRunError):
        bench.fit(tmp_path / "cut", leave_after(5))  # in the second epoch
    best = tmp_path / "cut" / "best.json"
    best.write_text(json.dumps(json.loads(best.read_text()) | {"epoch": 2}))  # as if killed behind its end
    again = bench.fit(tmp_path / "cut")
    assert again.progress.best_epoch >= 2
    assert checkpoints.best_epoch(tmp_path / "cut") == again.progress.best_epoch
    assert_same_weights(weights_of(whole), weights_of(again))


def test_memory_holds_one_checkpoint_at_a_time_however_slowly_they_are_written(bench, tmp_path, monkeypatch):
    save_weights, snapshot, busy, made = checkpoint_writer.save_weights, checkpoints.snapshot, [], []

    def slowly(*given):
        time.sleep(0.05)
        return save_weights(*given)

    monkeypatch.setattr(checkpoint_writer, "save_weights", slowly)
    with bench.training(tmp_path) as training:

        def noted(*given, into):
            busy.append(training.writer.busy)
            made.append(snapshot(*given, into=into))
            return made[-1]

        monkeypatch.setattr(checkpoints, "snapshot", noted)
        training.fit()
    assert busy == [False] * training.config.epochs
    places = [{name: tensor.data_ptr() for name, tensor in each.items()} for each in made]
    assert len(places) > 1
    assert all(place == places[0] for place in places), "in the same memory"
