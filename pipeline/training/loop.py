"""The training loop: step, evaluate, record, save, in reading order."""

import dataclasses
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.config.schema import TrainConfig
from pipeline.data.batches import LabelledImages, Normalisation, TrainBatches, plain_batches
from pipeline.errors import MemoryCapError, TrainingDivergedError
from pipeline.progress import Reporter, TrainProgress
from pipeline.stop import StopToken
from pipeline.tracking.journal import Journal
from pipeline.training import checkpoint as checkpoints
from pipeline.training.checkpoint import CheckpointWriter, Progress
from pipeline.training.device import Numerics
from pipeline.training.forecast import TIMED_STEPS, Forecast, Stopwatch
from pipeline.training.learning_rate import learning_rate_at, set_learning_rate
from pipeline.training.optimizer import MovingAverage, adamw
from tuning import machine
from tuning.capped.out_of_memory import is_out_of_memory
from tuning.capped.run_capped import tree_memory_mb

REPORT_EVERY_S = 0.25
MEMORY_EVERY_S = 2.0
SYSTEM_METRICS_EVERY_S = 10.0


@dataclass(frozen=True)
class Validation:
    """The held-out split that every choice is made on."""

    split: LabelledImages
    normalise: Normalisation
    batch_size: int = 250


class Training:
    """One training in a folder: its objects, where it stands, and how it goes on."""

    def __init__(
        self,
        model: nn.Module,
        batches: TrainBatches,
        validation: Validation,
        config: TrainConfig,
        numerics: Numerics,
        journal: Journal,
        writer: CheckpointWriter,
        reporter: Reporter,
        stop_token: StopToken,
        checkpoint_every_s: float,
    ) -> None:
        self.model = model.to(numerics.device)
        self.batches = batches
        self.validation = validation
        self.config = config
        self.numerics = numerics
        self.journal = journal
        self.writer = writer
        self.reporter = reporter
        self.stop_token = stop_token
        self.checkpoint_every_s = checkpoint_every_s
        self.optimizer = adamw(self.model, config)
        self.average = MovingAverage(self.model, config.ema_decay) if config.ema_decay else None
        self.progress = Progress()
        self.total_steps = config.epochs * len(batches)
        now = time.monotonic()
        self._clock = now  # since when `trained_s` has not been counted
        self._saved_at = self._system_at = now
        self._reported_at = self._memory_at = -math.inf
        self._memory_mb = 0.0
        self._validation_s = 0.0
        self._stopwatch: Stopwatch | None = Stopwatch()

    def resume(self, checkpoint: checkpoints.Checkpoint, best_epoch: int) -> None:
        """Go on from a checkpoint; what the journal holds beyond it is made again.

        `best_epoch` is the one that the best weights on disk are of. Those of an epoch beyond the checkpoint are
        found again; what the checkpoint knows of older ones, which are gone, must not prevent it.
        """
        checkpoints.restore(checkpoint, self.model, self.optimizer, self.average)
        self.progress = dataclasses.replace(checkpoint.progress)
        if self.progress.step > TIMED_STEPS:
            self._stopwatch = None  # what the training takes was told at its beginning
        if best_epoch != self.progress.best_epoch:
            self.progress.best_accuracy = -1.0
        self.journal.truncate(checkpoint.journal_offset)

    def fit(self) -> Progress:
        """Train to the end.

        Raises:
            TrainingDivergedError: the loss is no longer finite.
            MemoryCapError: there is no memory left for a step, of the machine's or within the cap.
            BudgetExhaustedError, InterruptedRunError: asked to leave, after a checkpoint.
        """
        with telling_of_memory(self.numerics), self.stop_token.deferring():
            while self.progress.epoch < self.config.epochs and not self._stopped_early():
                self._epoch()
        return self.progress

    def _epoch(self) -> None:
        self.model.train()
        started = time.monotonic()
        for images, labels in self.batches.epoch(self.progress.epoch, first=self.progress.batch):
            self._step(images, labels)
            self.progress.epoch_s += time.monotonic() - started
            self._tell_what_it_takes(images)
            self._watch()
            started = time.monotonic()
        row = self._finished_row()
        is_best = row["validation/accuracy"] > self.progress.best_accuracy
        self._begin_next_epoch(row, is_best)
        self.journal.metrics(row, step=self.progress.epoch)
        self.reporter.epoch({"epoch": self.progress.epoch, **row})
        self.save(best=self._evaluated_weights() if is_best and self.writer.keeps_best else None)

    def _step(self, images: Tensor, labels: Tensor) -> None:
        """One optimiser step on B images, micro-batch by micro-batch."""
        set_learning_rate(self.optimizer, learning_rate_at(self.progress.step, self.total_steps, self.config))
        images, labels = images.to(self.numerics.device), labels.to(self.numerics.device)
        size = self.numerics.micro_batch_size
        for part, truth in zip(torch.split(images, size), torch.split(labels, size), strict=True):
            with self.numerics.autocast():
                logits = self.model(part).float()  # part of B x classes
            loss = F.cross_entropy(logits, truth, label_smoothing=self.config.label_smoothing)
            value = loss.item()
            if not math.isfinite(value):
                raise TrainingDivergedError(self._diverged(f"loss became {value} in step {self.progress.step + 1}"))
            torch.autograd.backward(loss * (len(truth) / len(labels)))
            self.progress.loss_sum += value * len(truth)
            self.progress.correct += int((logits.argmax(1) == truth).sum())
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm or math.inf)
        if not torch.isfinite(norm):  # before it reaches the weights, and with them a checkpoint
            raise TrainingDivergedError(self._diverged(f"gradient became {norm} in step {self.progress.step + 1}"))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.model, self.progress.step)
        self.progress.seen += len(labels)
        self.progress.batch += 1
        self.progress.step += 1

    def _tell_what_it_takes(self, images: Tensor) -> None:
        """After the first steps, once."""
        speed = self._stopwatch.step(time.monotonic(), len(images)) if self._stopwatch else None
        if speed is None:
            return
        self._stopwatch = None
        forecast = Forecast(self.config.epochs, len(self.batches.split), len(self.validation.split))
        self.reporter.note(forecast.in_words(speed, self.model, images[:1].to(self.numerics.device)))

    def _watch(self) -> None:
        """Between two steps: report, sample, save when it is time, leave when asked."""
        now = time.monotonic()
        if now - self._memory_at >= MEMORY_EVERY_S:
            self._memory_at = now
            self._memory_mb = tree_memory_mb(os.getpid())
            self.progress.peak_memory_mb = max(self.progress.peak_memory_mb, self._memory_mb)
        if now - self._reported_at >= REPORT_EVERY_S:
            self._reported_at = now
            self._report()
        if now - self._system_at >= SYSTEM_METRICS_EVERY_S:
            self._system_at = now
            self.journal.metrics(system_metrics(self._memory_mb), step=self.progress.step)
        self._leave_if_asked()
        if now - self._saved_at >= self.checkpoint_every_s and not self.writer.busy:
            self.save()

    def _leave_if_asked(self) -> None:
        if (reason := self.stop_token.reason()) is not None:
            self.save()
            raise reason

    def _finished_row(self) -> dict[str, float]:
        """The figures of the epoch that has just seen its last batch."""
        progress = self.progress
        weights = self.average.weights if self.average is not None else None
        started = time.monotonic()
        loss, accuracy = evaluate(self.model, self.validation, self.numerics, weights, self._leave_if_asked)
        self._validation_s = time.monotonic() - started
        if not math.isfinite(loss):
            raise TrainingDivergedError(self._diverged(f"validation loss became {loss} after step {progress.step}"))
        return {
            "train/loss": progress.loss_sum / progress.seen,
            "train/accuracy": progress.correct / progress.seen,
            "validation/loss": loss,
            "validation/accuracy": accuracy,
            "learning_rate": learning_rate_at(progress.step - 1, self.total_steps, self.config),
            "images_per_second": progress.seen / progress.epoch_s,
        }

    def _begin_next_epoch(self, row: dict[str, float], is_best: bool) -> None:
        progress = self.progress
        progress.epoch += 1
        progress.batch = progress.correct = progress.seen = 0
        progress.steps_s += progress.epoch_s
        progress.loss_sum = progress.epoch_s = 0.0
        if is_best:
            progress.best_epoch = progress.epoch
            progress.best_accuracy = row["validation/accuracy"]
            progress.best_loss = row["validation/loss"]
        progress.rows = [*progress.rows, {"epoch": progress.epoch, **row}]

    def save(self, best: dict[str, Tensor] | None = None) -> None:
        """Hand a checkpoint to the writer, with new best weights where there are some."""
        now = time.monotonic()
        self.progress.trained_s += now - self._clock
        self._clock = self._saved_at = now
        tensors = checkpoints.snapshot(self.model, self.optimizer, self.average)
        kept = {name: value.detach().to("cpu", copy=True) for name, value in best.items()} if best else None
        self.writer.submit(tensors, self.progress, self.numerics.to_json(), self.journal.offset, kept)

    def _evaluated_weights(self) -> dict[str, Tensor]:
        """The weights that count: the moving average where there is one."""
        return self.average.weights if self.average is not None else self.model.state_dict()

    def _stopped_early(self) -> bool:
        patience = self.config.early_stopping_patience
        return patience is not None and self.progress.epoch - self.progress.best_epoch >= patience

    def _report(self) -> None:
        progress = self.progress
        step_s = (progress.steps_s + progress.epoch_s) / progress.step
        remaining_s = (self.total_steps - progress.step) * step_s
        remaining_s += (self.config.epochs - progress.epoch) * self._validation_s
        self.reporter.training(
            TrainProgress(
                epoch=progress.epoch + 1,
                epochs=self.config.epochs,
                step=progress.step,
                steps=self.total_steps,
                loss=progress.loss_sum / progress.seen,
                accuracy=progress.correct / progress.seen,
                images_per_s=progress.seen / progress.epoch_s,
                memory_mb=self._memory_mb,
                remaining_s=remaining_s,
            )
        )

    def _diverged(self, what: str) -> str:
        rows = self.progress.rows
        last = (
            f"; the last good epoch was {rows[-1]['epoch']} with validation accuracy "
            f"{rows[-1]['validation/accuracy']:.2%}"
            if rows
            else ""
        )
        return (
            f"the {what} (epoch {self.progress.epoch + 1}){last}; "
            f"the last checkpoint is kept.\nTry a lower --set train.learning_rate (it was "
            f"{self.config.learning_rate:g}), gradient clipping (train.clip_norm), or compute.precision=fp32."
        )


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    validation: Validation,
    numerics: Numerics,
    weights: dict[str, Tensor] | None = None,
    before_batch: Callable[[], None] = lambda: None,
) -> tuple[float, float]:
    """Mean cross-entropy in nats and accuracy on the validation split, with `weights` in place of the model's own.

    `before_batch` may raise to leave in the middle.
    """
    was_training = model.training
    model.eval()
    loss_sum, correct = 0.0, 0
    for images, labels in plain_batches(validation.split, validation.normalise, validation.batch_size):
        before_batch()
        images, labels = images.to(numerics.device), labels.to(numerics.device)
        with numerics.autocast():
            logits = torch.func.functional_call(model, weights, (images,)) if weights else model(images)
        loss_sum += F.cross_entropy(logits.float(), labels, reduction="sum").item()
        correct += int((logits.argmax(1) == labels).sum())
    model.train(was_training)
    return loss_sum / len(validation.split), correct / len(validation.split)


def system_metrics(tree_mb: float) -> dict[str, float]:
    """What the machine is doing, under the names that the MLflow UI shows as system metrics."""
    here = machine.this_machine()
    return {
        "system/cpu_utilization_percentage": psutil.cpu_percent(),
        "system/system_memory_usage_percentage": round(100 * (1 - here.available_bytes / here.memory_bytes), 1),
        "system/process_tree_memory_megabytes": tree_mb,
    }


@contextmanager
def telling_of_memory(numerics: Numerics) -> Iterator[None]:
    """Turn an allocation that was refused into a `MemoryCapError` that names the setting which needs less."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise MemoryCapError(_out_of_memory(numerics)) from error


def _out_of_memory(numerics: Numerics) -> str:
    half = max(1, numerics.micro_batch_size // 2)
    return (
        f"out of memory with {numerics.micro_batch_size} images at once; the last checkpoint is kept.\n"
        f"--set compute.micro_batch_size={half} holds fewer at once and trains on the same batches."
    )
