"""Checks what a run needs of the machine and of the workspace."""

import math
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline import environment
from pipeline.config.resolution import resolve
from pipeline.counts import counted
from pipeline.errors import MachineUnfitError, SeqpipeError
from pipeline.stages.catalog import STAGES
from pipeline.tracking import settings as mlflow_settings
from pipeline.training.forecaster import TrainingForecaster
from pipeline.workspace.manifests import changed_files, read_manifest
from pipeline.workspace.paths import Workspace
from sequencer_models.catalog import MODELS
from tuning import capacity, machine
from tuning.capped.run_capped import process_memory_mb

if TYPE_CHECKING:
    from pipeline.training.autotune import Speeds

Severity = Literal["ok", "note", "bad"]
NEEDED_MEMORY_MB = 1500
NEEDED_DISK_MB = 2000


@dataclass(frozen=True)
class Finding:
    """The result of a check."""

    what: str
    severity: Severity
    found: str

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"what": self.what, "verdict": self.severity, "found": self.found}


def examine(workspace: Workspace) -> list[Finding]:
    """Run every check; one that fails itself is a finding too."""
    checks: list[tuple[str, Callable[[], list[Finding]]]] = [
        ("python", _python),
        ("variables", _variables),
        ("torch", _torch),
        ("processor", _processor),
        ("memory", _memory),
        ("models", _models),
        ("disk", lambda: _disk(workspace)),
        ("mlflow store", lambda: _store(workspace)),
        ("data set", lambda: _data(workspace)),
        ("stage folders", lambda: _stage_folders(workspace)),
    ]
    findings: list[Finding] = []
    for what, check in checks:
        try:
            findings += check()
        except SeqpipeError as error:
            findings.append(Finding(what, "bad", str(error)))
        except (ImportError, OSError, RuntimeError) as error:
            findings.append(Finding(what, "bad", f"{type(error).__name__}: {error}"))
    return findings


def require_fit(findings: Sequence[Finding]) -> None:
    """Raise MachineUnfitError if a check failed; notes are no failures."""
    bad = [one for one in findings if one.severity == "bad"]
    if bad:
        raise MachineUnfitError(f"{len(bad)} of {len(findings)} checks failed: {', '.join(one.what for one in bad)}")


def _python() -> list[Finding]:
    fit = sys.version_info >= (3, 11)
    found = f"{platform.python_version()} on {platform.platform(terse=True)}"
    return [Finding("python", "ok" if fit else "bad", found if fit else f"{found}; 3.11 or newer is needed")]


def _variables() -> list[Finding]:
    """The environment variables that change what a run does, and those that were removed."""
    effective = environment.user_variables(os.environ).items()
    return [
        *(Finding(name, "note", f"{value}: {meaning}") for name, (value, meaning) in effective),
        *(Finding(name, "note", f"not used: {why}") for name, why in environment.removed_variables().items()),
    ]


def _torch() -> list[Finding]:
    before = process_memory_mb(os.getpid())
    started = time.monotonic()
    import torch

    from sequencer_models.capabilities import this_machine

    cost = f"its import took {time.monotonic() - started:.1f} s and {process_memory_mb(os.getpid()) - before:.0f} MB"
    findings = [Finding("torch", "ok", f"{torch.__version__}; {cost}")]
    cuda = this_machine().cuda_build
    if cuda and not torch.cuda.is_available():
        findings.append(
            Finding(
                "torch build",
                "note",
                f"a CUDA {cuda} build without a GPU: it holds about 700 MB more memory and 4.7 GB more "
                "disk than the CPU build; set TORCH_INDEX_URL to a CPU index, remove .venv, and run `make run` again",
            )
        )
    from pipeline.data.torchvision_import import import_torchvision

    findings.append(Finding("torchvision", "ok", import_torchvision().__version__))
    return findings


def _processor() -> list[Finding]:
    from pipeline.training import resolve_numerics
    from sequencer_models.capabilities import this_machine

    machine = this_machine()
    chosen, threads = resolve_numerics.resolve_device("auto"), resolve_numerics.available_cores()
    precision = resolve_numerics.resolve_precision("auto", chosen, threads)
    kernel, why_not = machine.native_kernel
    bf16 = "multiplies bf16" if machine.has_bf16 else "no bf16"
    return [
        Finding(
            "processor",
            "ok",
            f"{machine.processor}, {platform.machine()}, {counted(threads, 'core')}, {bf16}",
        ),
        Finding("device", "ok", f"{chosen} (auto), {precision} (auto), {threads} threads"),
        Finding("LSTM kernel", "ok", f"native, {kernel.digest}, built by {kernel.compiler}")
        if kernel
        else Finding(
            "LSTM kernel",
            "note",
            f"eager, which is slower: {why_not}; with a C compiler the next run has the native one",
        ),
        Finding("linear maps", "ok", _linear_maps(resolve_numerics.speeds(threads))),
    ]


def _linear_maps(speeds: "Speeds") -> str:
    texts = []
    for precision in ("fp32", "bf16"):
        times = [getattr(speeds, f"{precision}_{way}_ms") for way in ("matmul", "convolution")]
        if None not in times:
            texts.append(f"{precision} by {speeds.linear(precision)} ({times[0]:.1f} and {times[1]:.1f} ms)")
    return f"{', '.join(texts)}: matmul and convolution as measured"


def _memory() -> list[Finding]:
    here = machine.this_machine()
    free_mb = here.available_bytes / 1e6
    text = (
        f"{free_mb:.0f} of {here.memory_bytes / 1e6:.0f} MB available; a default run needs about {NEEDED_MEMORY_MB}"
    )
    findings = [Finding("memory", "ok" if free_mb >= NEEDED_MEMORY_MB else "bad", text)]
    if here.limits is not None:
        findings.append(Finding("container", "note", here.limits))
    return findings


def _models() -> list[Finding]:
    """For each model's default training: what it needs, the least that it can do with, and how many trials fit."""
    node, findings = capacity.this_machine(), []
    with TrainingForecaster() as forecaster:
        for model in MODELS:
            config = resolve(model)
            memory = forecaster.memory(config, len(config.data.class_names))
            whole, least = (memory.fit(config, cap_mb) for cap_mb in (math.inf, 0.0))
            at_once = capacity.trials_at_once(node, math.ceil(whole.peak_mb))
            most_mb = node.memory_mb - capacity.WORKER_MB
            text = (
                f"a trial holds {whole.peak_mb:.0f} MB, at least {least.peak_mb:.0f} with {least.in_words()}; "
                f"{at_once} at once fit here, caps up to {max(0, most_mb)} MB"
            )
            findings.append(Finding(model, "ok" if least.peak_mb <= most_mb else "note", text))
    return findings


def _disk(workspace: Workspace) -> list[Finding]:
    usage = shutil.disk_usage(workspace.root)
    writable = os.access(workspace.root, os.W_OK)
    text = f"{usage.free / 1e6:.0f} MB free in {workspace.root}; a default run needs about {NEEDED_DISK_MB}"
    if not writable:
        text = f"{workspace.root} cannot be written; work in another folder"
    fit = writable and usage.free / 1e6 >= NEEDED_DISK_MB
    return [Finding("disk", "ok" if fit else "bad", text)]


def _store(workspace: Workspace) -> list[Finding]:
    from pipeline.tracking.connection import StoreConnection

    settings = mlflow_settings.load(workspace, os.environ)
    if settings.is_gone:
        return [Finding("mlflow store", "ok", f"{settings.database}: not made yet; the first run makes it")]
    reported: list[str] = []
    try:
        exists = StoreConnection(settings, workspace, reported.append).has_experiment()
    except SeqpipeError as fault:
        return [Finding("mlflow store", "note" if fault.passes else "bad", str(fault))]
    has = f"has the experiment {settings.experiment!r}" if exists else "answers"
    notes = [Finding("mlflow store", "note", line) for line in reported]
    return [Finding("mlflow store", "ok", f"{settings.address} {has}"), *notes]


def _data(workspace: Workspace) -> list[Finding]:
    from pipeline.data.sources import verify_cache

    problems = verify_cache(workspace.data)
    if problems:
        return [
            Finding("data set", "bad", f"{problem}; `seqpipe run prepare` makes it again") for problem in problems
        ]
    kept = [path.name for path in sorted(workspace.data.glob("*")) if (path / "train_images.npy").is_file()]
    return [Finding("data set", "ok", f"{', '.join(kept)}: contents verified" if kept else "not fetched yet")]


def _stage_folders(workspace: Workspace) -> list[Finding]:
    whole, problems = 0, []
    for stage in STAGES:
        for folder in sorted(path for path in workspace.stage(stage).glob("*") if path.is_dir()):
            problems += _problems_in(folder)
            whole += not folder.name.endswith(".partial")
    if problems:
        advice = "remove that folder, and the next run makes it again"
        return [Finding("stage folders", "bad", f"{problem}; {advice}") for problem in problems]
    return [Finding("stage folders", "ok", f"{whole} whole, contents verified")]


def _problems_in(folder: Path) -> list[str]:
    try:
        manifest = read_manifest(folder)
    except SeqpipeError as error:
        return [str(error)]
    if manifest is not None:
        return changed_files(folder, manifest)
    return [] if folder.name.endswith(".partial") else [f"{folder}: its manifest is missing"]
