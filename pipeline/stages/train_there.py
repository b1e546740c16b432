"""Sends a training to another laptop of the cluster, and brings home its checkpoints, its journal and its figures.

What comes home lies in the training's folder as a training here would have left it, so that the same command goes on
from it, on that laptop or here, and MLflow gets it from here.
"""

import json
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import errors
from pipeline.config.schema import RunConfig
from pipeline.data.prepared import PreparedData
from pipeline.errors import (
    BudgetExhaustedError,
    InterruptedRunError,
    MachineUnfitError,
    MemoryCapError,
    SeqpipeError,
)
from pipeline.progress import Reporter, TrainProgress
from pipeline.provenance import git_commit
from pipeline.stages import run_page
from pipeline.stages.context import Context
from pipeline.stages.training_work import Figures, Surroundings, train_in
from pipeline.stop import StopToken
from pipeline.tracking.mlflow_variables import quiet
from pipeline.workspace.durable_files import writing
from sequencer_models.cache_folder import cache_folder
from tuning.awake import Awake
from tuning.capped.run_capped import Capped, CapTooLowError
from tuning.cluster.node_record import TrialOnNode
from tuning.errors import AskedToLeaveError, ClusterError, NodeLostError
from tuning.remote_work import Fetched, RemoteWork

if TYPE_CHECKING:
    from pipeline.stages.context import TrainingNode
    from tuning.on_ray.remote_call import RemoteCall

TIME_IS_UP, INTERRUPTED = "time is up", "interrupted"
SHOWN_AS = "run train"
"""What `seqpipe cluster status` calls it."""
SPLITS = ("train", "validation")
"""The splits that a training reads."""


def train_on(
    node: "TrainingNode",
    config: RunConfig,
    prepared: PreparedData,
    folder: Path,
    context: Context,
    durable: Callable[[int], None],
) -> Figures:
    """Train on the node, going on from what `folder` holds; `durable` as for a training here.

    Raises:
        MachineUnfitError: there is no such node, it cannot hold the training, or it was lost.
        BudgetExhaustedError, InterruptedRunError: asked to leave; the last checkpoint is home.
        SeqpipeError: what a training here would raise, with the node's name.
    """
    quiet(os.environ)  # before Ray imports MLflow
    from tuning.on_ray import cluster, remote_call

    run_page.keep_contact_sheet(prepared, folder)  # of all that a run shows, the one thing that is only here
    call = remote_call.RemoteCall(
        function=TrainingThere(config, prepared, node.name, git_commit()),
        warm_up=partial(warm_up, config),
        node=node.name,
        folder=folder,
        shared_files=[prepared.file(f"{split}_{what}") for split in SPLITS for what in ("images", "labels")],
        cache_folder=cache_folder,
        cap_mb=config.compute.max_memory_mb,
        cpus=config.compute.threads,
    )
    heard = _Heard(node.name, folder, context.reporter, durable)
    token = context.stop_token
    listener = remote_call.Listener(heard.message, heard.files, context.reporter.note)
    with (
        Awake() as awake,
        token.deferring(),
        _in_our_words(call, context),
        cluster.joined(node.address, lambda: token.reason() is not None, node.token),
    ):
        awake.keep(True)  # home has to answer
        capped = remote_call.run_there(call, listener, lambda: _stop_word(token.reason()))
    return _figures(capped, node.name, folder, token)


def durable_offset(folder: Path) -> int | None:
    """How much of the journal in a training's folder its newest checkpoint covers; None without one."""
    for described in sorted(folder.glob("step-*.json"), reverse=True):
        try:
            return int(json.loads(described.read_bytes())["journal_offset"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def _stop_word(reason: SeqpipeError | InterruptedRunError | None) -> str | None:
    if reason is None:
        return None
    return TIME_IS_UP if isinstance(reason, BudgetExhaustedError) else INTERRUPTED


@contextmanager
def _in_our_words(call: "RemoteCall", context: Context) -> Iterator[None]:
    """Within this, errors of a remote call become ours."""
    node = call.node
    try:
        yield
    except AskedToLeaveError:
        context.stop_token.raise_if_asked()
        raise MachineUnfitError(f"{node} is leaving the cluster; the same command without --on trains here") from None
    except NodeLostError as error:
        raise MachineUnfitError(
            f"{error}; what had come home is kept.\nThe same command goes on there when it is back, without --on it "
            "goes on here."
        ) from error
    except ClusterError as error:
        raise MachineUnfitError(str(error)) from error
    except CapTooLowError as error:
        raise MemoryCapError(
            f"{error.cap_mb:.0f} MB are too few on {node}: what a training imports takes {error.floor_mb:.0f} MB "
            "alone.\nGive it more with --max-memory-mb, or close other programs there."
        ) from None
    except OSError as error:
        with writing(call.folder):
            raise error


def _figures(capped: Capped[bytes], node: str, folder: Path, token: StopToken) -> Figures:
    """What the training came to; raises what ended it."""
    if capped.outcome == "memory_cap":
        raise MemoryCapError(
            f"the training held {capped.peak_mb:.0f} MB on {node} and was ended at its cap of {capped.cap_mb:.0f} MB;"
            " what had come home is kept.\nThe same command goes on with --set compute.micro_batch_size=N, fewer "
            "images at once."
        )
    if capped.outcome != "completed" or capped.value is None:
        token.raise_if_asked()  # it did not leave in time; what it saved before is home
        raise SeqpipeError(
            f"the training on {node} did not end by itself ({capped.error}); what had come home is kept, and the "
            "same command goes on"
        )
    end: TrainingEnd = pickle.loads(capped.value)  # noqa: S301 - from our own function, by way of Ray
    if end.figures is not None:
        return end.figures
    if end.error:
        raise getattr(errors, end.error)(f"on {node}: {end.message.replace(end.folder, str(folder))}")
    token.raise_if_asked()
    raise MachineUnfitError(
        f"{node} is leaving the cluster; its last checkpoint is here.\nThe same command goes on there when it is "
        "back, without --on it goes on here."
    )


@dataclass
class _Heard:
    """Passes on what comes home."""

    node: str
    folder: Path
    reporter: Reporter
    durable: Callable[[int], None]

    def message(self, message: object) -> None:
        match message:
            case Fetched(done_bytes, total_bytes):
                self.reporter.bytes_done(f"the images, to {self.node}", done_bytes, total_bytes)
            case str():
                self.reporter.note(message)
            case ("note" | "warn" as name, str(text)):
                getattr(self.reporter, name)(f"{self.node}: {text}")
            case (str(name), argument):
                getattr(self.reporter, name)(argument)

    def files(self) -> None:
        offset = durable_offset(self.folder)
        if offset is not None:
            self.durable(offset)


@dataclass(frozen=True)
class TrainingEnd:
    """How a training on another laptop ended: its figures, an error, or neither if it was asked to leave."""

    figures: Figures | None = None
    error: str = ""
    """The class of ours."""
    message: str = ""
    folder: str = ""
    """Where it ran, which may be named in the message."""


@dataclass(frozen=True)
class TrainingThere:
    """What runs on the other laptop."""

    config: RunConfig
    prepared: PreparedData
    node: str
    commit: str | None
    """Of the code here: the other laptop has the same code, maybe without a repository."""

    def __call__(self, work: RemoteWork) -> TrainingEnd:
        def bring_home(_: int) -> None:
            work.bring_home()

        around = Surroundings(
            reporter=_HomeReporter(work, self.config.train.epochs),
            stop_token=_HomeStopToken(work),
            durable=bring_home,
            closing=lambda writer: closing(writer),
            on_resume=bring_home,
            commit=lambda: self.commit,
            tags={"seqpipe.node": self.node},
            memory_mb=work.cap_mb,
        )
        prepared = self.prepared.model_copy(update={"folder": work.shared_files})
        try:
            figures = train_in(work.folder, self.config, prepared, around)
        except (InterruptedRunError, BudgetExhaustedError):
            return TrainingEnd()
        except SeqpipeError as error:
            return TrainingEnd(error=type(error).__name__, message=str(error), folder=str(work.folder))
        work.bring_home()
        return TrainingEnd(figures)


def warm_up(config: RunConfig) -> None:
    """Import what a training needs there, before its memory is limited."""
    from pipeline.training import warm_up as training

    training.warm_up(config)


class _HomeStopToken(StopToken):
    """Asks the training to leave when home does."""

    def __init__(self, work: RemoteWork) -> None:
        super().__init__()
        self._work = work

    def reason(self) -> SeqpipeError | InterruptedRunError | None:
        word = self._work.stop_reason
        if word is None:
            return None
        return BudgetExhaustedError(word) if word == TIME_IS_UP else InterruptedRunError(word)


class _HomeReporter:
    """Sends home what the training reports."""

    def __init__(self, work: RemoteWork, epochs: int) -> None:
        self._work = work
        self._epochs = epochs
        self._show(0, None)

    def note(self, text: str) -> None:
        self._work.send(("note", text))

    def warn(self, text: str) -> None:
        self._work.send(("warn", text))

    def bytes_done(self, description: str, done_bytes: int, total_bytes: int | None) -> None:
        """A training converts nothing."""

    def training(self, progress: TrainProgress) -> None:
        self._work.send(("training", progress), passing=True)

    def epoch(self, row: dict[str, float]) -> None:
        self._work.send(("epoch", row))
        self._show(int(row["epoch"]), row["validation/accuracy"])

    def _show(self, epoch: int, accuracy: float | None) -> None:
        self._work.show(TrialOnNode(SHOWN_AS, 0, epoch, self._epochs, accuracy))
