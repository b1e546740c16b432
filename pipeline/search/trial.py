"""What a trial runs in its own process: the training of `seqpipe run train`, judged on the validation split only.

Importing this module imports nothing heavy: the driver pickles the objective and never trains.
"""

from dataclasses import dataclass
from pathlib import Path

from pipeline.config.schema import RunConfig
from pipeline.data.prepared import PreparedData
from pipeline.errors import InterruptedRunError, MemoryCapError, TrainingDivergedError
from pipeline.progress import SilentReporter
from pipeline.search.space import configuration
from pipeline.stop import StopToken
from tuning.forecast import Forecast
from tuning.trial import Diverged, Trial

VALUE = "validation/accuracy"
SPLITS = ("train", "validation")
"""The splits that a search reads; the test split is for `seqpipe run`."""


@dataclass(frozen=True)
class TrainTrial:
    """The objective: trains a configuration, from the checkpoint in the trial's folder if there is one.

    `base` is the config that trials differ from. The arrays of `prepared` are memory-mapped, so trials share them;
    those of the test split are neither opened nor sent to other nodes.
    """

    base: RunConfig
    prepared: PreparedData

    @property
    def shared_files(self) -> list[Path]:
        """The files that every trial reads."""
        return [self.prepared.file(f"{split}_{what}") for split in SPLITS for what in ("images", "labels")]

    def __call__(self, trial: Trial) -> None:
        """Train, report each epoch, and send each checkpoint as soon as it is on disk."""
        from pipeline.training import memory_plan
        from pipeline.training.numerics_file import forget_missing_device, numerics_of
        from pipeline.training.open_training import open_training

        config = configuration(self.base, trial.config)
        prepared = self.prepared.model_copy(update={"folder": trial.shared_files or self.prepared.folder})
        reporter = _EpochReporter(trial)
        try:
            classes = len(prepared.class_names)
            forget_missing_device(trial.folder)
            numerics = numerics_of(
                config, classes, trial.folder, reporter, trial_mb=trial.memory_mb, halvings=trial.halvings
            )
            trial.described(
                {
                    "device": numerics.device,
                    "precision": numerics.precision,
                    "kernel": numerics.kernel.partition(" ")[0],
                }
            )
            if trial.memory_mb is not None:
                fit = memory_plan.fit_of(config, classes, numerics, mlflow=False)
                trial.fitted(Forecast(fit.peak_mb, fit.change_in_words(config)))
            with open_training(
                config,
                prepared,
                trial.folder,
                numerics,
                reporter,
                _SearchStopToken(trial),
                durable=lambda _: trial.checkpoint(),  # in the writer's thread, beside the training
                kept=1,  # the search keeps the previous one until this one is complete
                keeps_best=False,
            ) as opened:
                try:
                    if opened.checkpoint is not None:
                        opened.training.resume(opened.checkpoint, opened.checkpoint.progress.best_epoch)
                    opened.training.fit()
                finally:
                    opened.writer.close()
        except TrainingDivergedError as error:
            raise Diverged(str(error).partition(";")[0]) from error
        except MemoryCapError as error:
            raise MemoryError(str(error)) from error
        except InterruptedRunError:
            trial.leave_if_asked()
            raise


def warm_up(base: RunConfig) -> None:
    """Import what a training needs, before the trial's memory is limited."""
    from pipeline.training import warm_up as training

    training.warm_up(base)


class _SearchStopToken(StopToken):
    """Asks the training to leave when the search leaves."""

    def __init__(self, trial: Trial) -> None:
        super().__init__()
        self._trial = trial

    def reason(self) -> InterruptedRunError | None:
        return InterruptedRunError("the search leaves") if self._trial.stop_asked else None


class _EpochReporter(SilentReporter):
    """Reports each epoch to the search; the training calls it before the checkpoint that covers the epoch."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial

    def epoch(self, row: dict[str, float]) -> None:
        figures = {name: value for name, value in row.items() if name not in ("epoch", VALUE)}
        self._trial.report(int(row["epoch"]), row[VALUE], figures)
