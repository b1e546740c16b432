"""The training loop: step, validate, record, save, in reading order."""

import dataclasses
import math
import time

import torch
from torch import Tensor, nn

from pipeline.config.schema import TrainConfig
from pipeline.data.batch import Batch
from pipeline.data.batches import TrainBatches
from pipeline.errors import InterruptedRunError, TrainingDivergedError
from pipeline.progress import Reporter
from pipeline.stop import StopToken
from pipeline.tracking.journal import Journal
from pipeline.training import checkpoint as checkpoints
from pipeline.training.checkpoint import Progress
from pipeline.training.checkpoint_writer import CheckpointWriter
from pipeline.training.interruptible import StepDropped, asking_between_layers, drop_if_asked
from pipeline.training.learning_rate import learning_rate_at
from pipeline.training.loss import training_loss
from pipeline.training.monitor import Monitor
from pipeline.training.moving_average import MovingAverage
from pipeline.training.numerics import Numerics
from pipeline.training.optimizer import Optimizer
from pipeline.training.out_of_memory import explaining_out_of_memory
from pipeline.training.time_forecast import FORECAST_TAG, TIMED_STEPS, Stopwatch, TotalWork
from pipeline.training.validation import Validation, evaluate
from sequencer_models.flops import training_flops


class Training:
    """A training in a folder: its objects, its progress, and how it goes on."""

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
        self.optimizer = Optimizer(self.model, config, numerics.precision)
        self.average = MovingAverage(self.model, config.ema_decay) if config.ema_decay else None
        self.progress = Progress()
        self.total_steps = config.epochs * len(batches)
        self._monitor = Monitor(config.epochs, self.total_steps, journal, reporter)
        self._snapshot: dict[str, Tensor] | None = None
        self._saved_at = self._counted_at = time.monotonic()  # up to when `trained_s` is counted
        self._stopwatch: Stopwatch | None = Stopwatch()
        self._random_states: dict[str, Tensor] = {}  # after the last whole step

    def resume(self, checkpoint: checkpoints.Checkpoint, best_epoch: int) -> None:
        """Go on from a checkpoint; what the journal holds beyond it is computed again.

        `best_epoch` is the epoch of the best weights on disk. If the checkpoint names another, they are of a later
        epoch, which is computed again, and those that it names are gone: the next ones are then kept in any case.
        """
        checkpoints.restore(checkpoint, self.model, self.optimizer, self.average)
        self.progress = dataclasses.replace(checkpoint.progress)
        if self.progress.step > TIMED_STEPS:
            self._stopwatch = None  # the forecast was reported at the start
        if best_epoch != self.progress.best_epoch:
            self.progress.best_accuracy = -1.0
        self.journal.truncate(checkpoint.journal_offset)

    def fit(self) -> Progress:
        """Train to the end, or until asked to leave: the step in hand is then dropped.

        Raises:
            TrainingDivergedError: the loss is no longer finite.
            MemoryCapError: the machine, or the cap, has no memory left for a step.
            BudgetExhaustedError, InterruptedRunError: asked to stop; a checkpoint of the last whole step was saved.
        """
        with explaining_out_of_memory(self.numerics), self.stop_token.deferring():
            self._random_states = checkpoints.random_states()
            try:
                with asking_between_layers(self.model, self._drop_if_interrupted):
                    while self.progress.epoch < self.config.epochs and not self._stopped_early():
                        self._epoch()
                return self.progress
            except StepDropped as dropped:
                reason = dropped.reason
            # Out here the activations of the dropped step are freed: the checkpoint needs memory, too.
            self.optimizer.zero_grad()
            checkpoints.set_random_states(self._random_states)
            self.save()
            raise reason

    def _epoch(self) -> None:
        self.model.train()
        started = time.monotonic()
        for batch in self.batches.epoch(self.progress.epoch, first=self.progress.batch):
            self.step(batch)
            self.progress.epoch_s += time.monotonic() - started
            self._report_forecast(batch.images)
            self._between_steps()
            started = time.monotonic()
        row = self._epoch_figures()
        is_best = row["validation/accuracy"] > self.progress.best_accuracy
        self._begin_next_epoch(row, is_best)
        so_far = {
            "best/validation_accuracy": self.progress.best_accuracy,
            "best/epoch": self.progress.best_epoch,
            "peak_memory_mb": round(self.progress.peak_memory_mb, 1),
        }
        self.journal.metrics({**row, **so_far}, step=self.progress.epoch)
        self.reporter.epoch({"epoch": self.progress.epoch, **row})
        self.save(best=self._evaluated_weights() if is_best and self.writer.keeps_best else None)

    def step(self, batch: Batch) -> None:
        """One optimiser step, micro-batch by micro-batch; until its end only gradients change."""
        self.optimizer.set_learning_rate(learning_rate_at(self.progress.step, self.total_steps, self.config))
        batch = batch.to(self.numerics.device)
        loss_sum, correct = self.progress.loss_sum, self.progress.correct
        for part in batch.parts(self.numerics.micro_batch_size):
            with self.numerics.autocast():
                logits = self.model(part.images).float()  # part of B x classes
            loss = training_loss(logits, part, self.config.label_smoothing)
            value = loss.item()
            if not math.isfinite(value):
                raise TrainingDivergedError(self._diverged(f"loss became {value} in step {self.progress.step + 1}"))
            torch.autograd.backward(loss * (len(part) / len(batch)))
            loss_sum += value * len(part)
            correct += int((logits.argmax(1) == part.labels).sum())
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm or math.inf)
        if not torch.isfinite(norm):  # before it reaches the weights, and with them a checkpoint
            raise TrainingDivergedError(self._diverged(f"gradient became {norm} in step {self.progress.step + 1}"))
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update(self.model, self.progress.step)
        self.progress.loss_sum, self.progress.correct = loss_sum, correct
        self.progress.seen += len(batch)
        self.progress.batch += 1
        self.progress.step += 1
        self._random_states = checkpoints.random_states()

    def _report_forecast(self, images: Tensor) -> None:
        """Report and record once, after the first steps, how long the training will take."""
        speed = self._stopwatch.step(time.monotonic(), len(images)) if self._stopwatch else None
        if speed is None:
            return
        self._stopwatch = None
        work = TotalWork(self.config.epochs, len(self.batches.split), len(self.validation.split))
        self.journal.tags({FORECAST_TAG: f"{work.seconds(speed):.1f}"})
        self.reporter.note(work.in_words(speed, self.flops_per_image(images)))

    def flops_per_image(self, images: Tensor) -> float:
        """Floating point operations of training on one of the images (B x C x H x W), with its share of a step."""
        of_model = training_flops(self.model, images[:1].to(self.numerics.device))
        return of_model + self.optimizer.flops / self.config.batch_size

    def _between_steps(self) -> None:
        """Report, stop when asked, save when it is time."""
        self._monitor.between_steps(self.progress)
        self._drop_if_asked()
        if time.monotonic() - self._saved_at >= self.checkpoint_every_s and not self.writer.busy:
            self.save()

    def _drop_if_asked(self) -> None:
        drop_if_asked(self.stop_token)

    def _drop_if_interrupted(self) -> None:
        """In the middle of a step a time limit waits, or one that is shorter than a step would allow none."""
        reason = self.stop_token.reason()
        if reason is not None and (isinstance(reason, InterruptedRunError) or not self.model.training):
            raise StepDropped(reason)

    def _epoch_figures(self) -> dict[str, float]:
        """The figures of the epoch whose last batch is done."""
        progress = self.progress
        weights = self.average.weights if self.average is not None else None
        started = time.monotonic()
        loss, accuracy = evaluate(self.model, self.validation, self.numerics, weights)
        self._monitor.validation_s = time.monotonic() - started
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
        """Hand a checkpoint to the writer, with the best weights if they are new.

        The one before it has to be on disk: this one takes its memory, so that a training holds one all the time.
        """
        self.writer.wait()
        now = time.monotonic()
        self.progress.trained_s += now - self._counted_at
        self._counted_at = self._saved_at = now
        self._snapshot = checkpoints.snapshot(self.model, self.optimizer, self.average, into=self._snapshot)
        kept = {name: value.detach().to("cpu", copy=True) for name, value in best.items()} if best else None
        self.writer.submit(self._snapshot, self.progress, self.numerics.to_json(), self.journal.offset, kept)

    def _evaluated_weights(self) -> dict[str, Tensor]:
        """The weights that are validated and kept: the moving average, if there is one."""
        return self.average.weights if self.average is not None else self.model.state_dict()

    def _stopped_early(self) -> bool:
        patience = self.config.early_stopping_patience
        return patience is not None and self.progress.epoch - self.progress.best_epoch >= patience

    def _diverged(self, what: str) -> str:
        rows = self.progress.rows
        last = (
            f"; the last good epoch was {rows[-1]['epoch']} with validation accuracy "
            f"{rows[-1]['validation/accuracy']:.2%}"
            if rows
            else ""
        )
        names = ["learning_rate", *(["muon_learning_rate"] if self.config.optimizer == "muon" else [])]
        rates = " or ".join(f"train.{name} (it was {getattr(self.config, name):g})" for name in names)
        return (
            f"the {what} (epoch {self.progress.epoch + 1}){last}; "
            f"the last checkpoint is kept.\nTry a lower --set {rates}, gradient clipping (train.clip_norm), or "
            "compute.precision=fp32."
        )
