"""What a stage is: the contract that prepare, train, evaluate and register fill in."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pipeline.config.schema import RunConfig
from pipeline.stages.context import Context
from pipeline.stages.results import Results
from pipeline.tracking.settings import ResolvedMlflow
from pipeline.workspace.manifests import Manifest, StageResult
from pipeline.workspace.paths import Workspace

Retention = Literal["while needed", "newest", "with its inputs", "always"]
"""Which results of a stage `seqpipe gc` keeps.

"while needed": the newest, and what a training that stays or an unfinished search reads; "newest": the newest of each
model on each data with all of its seeds, and what a registered version was made from; "with its inputs": the newest
from the same inputs, as long as these stay; "always": all of them.
"""


class Stage(ABC):
    """One step of the pipeline. Its module offers it as `STAGE`, and imports nothing heavy until it runs."""

    name: ClassVar[str]
    version: ClassVar[int]
    """Raised when what the stage makes means something else: results of another version are not reused."""
    result: ClassVar[type[StageResult]]
    inputs: ClassVar[tuple[str, ...]] = ()
    """The stages whose fingerprints are part of this one's."""
    scratch: ClassVar[tuple[str, ...]] = ()
    """Patterns of files that only a resume needs."""
    is_new_each_time: ClassVar[bool] = False
    """Whether running it again makes something new, so that the old result and all made from it are discarded."""
    loads_model: ClassVar[bool] = False
    """Whether it needs torch and a model in memory, which a memory cap has to leave room for."""
    retention: ClassVar[Retention] = "with its inputs"

    @abstractmethod
    def reads(self, config: RunConfig, mlflow: ResolvedMlflow) -> Mapping[str, Any]:
        """The settings that the result depends on."""

    @abstractmethod
    def run(self, config: RunConfig, made: Results, folder: Path, context: Context) -> StageResult:
        """Make the result in `folder`, from what the stages before it `made`; resume what the folder holds."""

    def after(self, made: Results, context: Context) -> None:
        """What follows once the folder is whole; `made` has this stage's result too."""
        return

    def progress(self, folder: Path) -> str | None:
        """How far the work in an unfinished folder is; None if the stage cannot resume it."""
        return None

    def summary(self, result: Mapping[str, Any]) -> str:
        """What a result is, in a few words; `result` is as its manifest has it."""
        return ""

    def unfinished_inputs(self, folder: Path) -> Mapping[str, str] | None:
        """The fingerprints of the inputs that the work in an unfinished folder reads; None if they are not known."""
        return None

    def unfinished_run(self, folder: Path) -> str | None:
        """The key of the MLflow run that the work in an unfinished folder belongs to; None if there is none."""
        return None

    def why_invalid(self, manifest: Manifest, mlflow: ResolvedMlflow, workspace: Workspace) -> str | None:
        """Why a result, though complete in its folder, no longer holds; None if it does."""
        return None
