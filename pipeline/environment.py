"""Environment variables of the shell: which a run keeps, and which are removed.

`clean_process` is called once, before anything that reads a variable is imported; children inherit the result.
Variables by which a user changes a run on purpose stay (`USER_VARIABLES`, which `doctor` lists).
"""

import os
import re
import sys
import warnings
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path


@dataclass(frozen=True)
class RemovalRule:
    """Variables that never reach a run: patterns of their names, except the `kept` ones."""

    names: tuple[str, ...]
    why: str
    kept: tuple[str, ...] = ()

    def covers(self, name: str) -> bool:
        return _matches(name, self.names) and not _matches(name, self.kept)


REMOVED = (
    RemovalRule(
        # Jupyter's terminals set a backend with which the import of matplotlib fails outside Jupyter.
        ("MPLBACKEND", "MATPLOTLIBRC"),
        "charts are drawn without a window, in matplotlib's own style",
    ),
    RemovalRule(
        # A git hook, `git rebase --exec` and the like set GIT_DIR, and git then reads that repository everywhere.
        ("GIT_*",),
        "the commit that a run records is that of seqpipe's own code",
        kept=("GIT_PYTHON_REFRESH",),
    ),
    RemovalRule(
        # What is needed to join a cluster is kept. The rest belongs to whoever runs the cluster or, under
        # `ray job submit`, to another job; it would change where a search's own Ray lives, or what runs in it.
        ("RAY_*", "TUNE_*"),
        "a search decides how its Ray runs",
        kept=(
            "RAY_AUTH_*",
            "RAY_USE_TLS",
            "RAY_TLS_*",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER",
            "RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL",
        ),
    ),
    RemovalRule(
        # The import of torch fails on a value that it does not know.
        ("TORCH_LOGS",),
        "torch's compiler, which it configures, is not used",
    ),
    RemovalRule(
        # With these, fewer threads compute than the run records, so a resume would compute other bits.
        ("OMP_DYNAMIC", "OMP_THREAD_LIMIT"),
        "compute.threads says how many threads compute",
    ),
    RemovalRule(
        # With these MLflow refuses our artifact location. MLFLOW_WORKSPACE is for a server, and is kept.
        ("MLFLOW_ENABLE_WORKSPACES", "MLFLOW_WORKSPACE_STORE_URI"),
        "a store that is a file is not divided into MLflow's workspaces",
    ),
    RemovalRule(
        # These move the pages of the server of `seqpipe ui`, split it up or make it load other code.
        (
            "MLFLOW_ARTIFACTS_ONLY",
            "MLFLOW_EXPOSE_PROMETHEUS",
            "MLFLOW_GUNICORN_OPTS",
            "MLFLOW_STATIC_PREFIX",
            "MLFLOW_UVICORN_OPTS",
            "MLFLOW_WAITRESS_OPTS",
            "UVICORN_*",
            "GUNICORN_CMD_ARGS",
            "FLASK_*",
        ),
        "seqpipe ui starts its server its own way",
    ),
    RemovalRule(
        # A child with PYTHONINSPECT waits at a prompt instead of exiting, and a warning that is turned into an error
        # can end a training at any moment.
        ("PYTHONINSPECT", "PYTHONWARNINGS"),
        "a run is not a debugging session",
    ),
)

FIXED_VALUES: Mapping[str, str] = {
    # No child, worker or server imports from its working folder.
    "PYTHONSAFEPATH": "1",
    # MLflow would take a model's requirements from a uv.lock in the working folder.
    "MLFLOW_UV_AUTO_DETECT": "false",
}

DEFAULT_VALUES: Mapping[str, str] = {
    # Threads of torch that spin while they wait take cores from each other when another program is busy; a step may
    # then take seconds. Sleeping threads are steadier, and as fast when alone. Read when torch is loaded.
    "OMP_WAIT_POLICY": "PASSIVE",
}

USER_VARIABLES: Mapping[str, str] = {
    "MLFLOW_TRACKING_URI": "where runs are recorded",
    "MLFLOW_REGISTRY_URI": "where models are registered",
    "MLFLOW_EXPERIMENT_NAME": "the experiment of runs",
    "MLFLOW_WORKSPACE": "the part of a server that runs go to",
    "XDG_CACHE_HOME": "where the LSTM kernel is kept",
    "TMPDIR": "where temporary files are",
    "CC": "the C compiler that is tried first",
    "CUDA_VISIBLE_DEVICES": "the GPUs that torch sees",
    "ATEN_CPU_CAPABILITY": "the vector instructions that torch uses",
    "ONEDNN_MAX_CPU_ISA": "the vector instructions that oneDNN uses",
    "OMP_WAIT_POLICY": "what threads do while they wait",
    "OMP_NUM_THREADS": "threads of libraries other than torch, whose threads compute.threads sets",
    "OMP_PROC_BIND": "ties threads to cores",
    "OMP_PLACES": "ties threads to cores",
    "GOMP_CPU_AFFINITY": "ties threads to cores",
    "KMP_AFFINITY": "ties threads to cores",
    "PYTHONPATH": "folders that modules are taken from first",
    "PYTHONOPTIMIZE": "checks inside libraries are left out",
    "http_proxy": "the way to the network",
    "https_proxy": "the way to the network",
}
"""Variables by which a user changes what a run does, and what each of them changes."""

_PATHS = ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "MPLCONFIGDIR")
_CODE = Path(__file__).resolve().parent.parent
_removed: dict[str, str] = {}


def clean_process() -> None:
    """Clean the variables, the module path and the warning filters of this process and its children."""
    _removed.update(clean_variables(os.environ))
    sys.path[:] = [entry for entry in sys.path if not _is_working_folder(entry)]
    if any(option.startswith("error") for option in sys.warnoptions):
        sys.warnoptions.clear()
        warnings.resetwarnings()
        warnings.simplefilter("ignore")


def clean_variables(environ: MutableMapping[str, str]) -> dict[str, str]:
    """Clean the variables of a process in place; returns those that were removed, and why."""
    removed = {name: rule.why for name in environ for rule in REMOVED if rule.covers(name)}
    removed |= {
        name: "a relative path means a different folder in each process"
        for name in _PATHS
        if name in environ and not Path(environ[name]).is_absolute()
    }
    for name in removed:
        del environ[name]
    if "PYTHONPATH" in environ:
        entries = [entry for entry in environ["PYTHONPATH"].split(os.pathsep) if not _is_working_folder(entry)]
        environ["PYTHONPATH"] = os.pathsep.join(str(Path(entry).absolute()) for entry in entries)
    environ.update(FIXED_VALUES)
    for name, value in DEFAULT_VALUES.items():
        environ.setdefault(name, value)
    return removed


def user_variables(environ: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """The `USER_VARIABLES` that are set: value, without passwords, and meaning."""
    return {
        name: (re.sub(r"(?<=//)[^/@]*@", "", environ[name]), meaning)
        for name, meaning in USER_VARIABLES.items()
        if environ.get(name) and environ[name] != DEFAULT_VALUES.get(name)
    }


def removed_variables() -> Mapping[str, str]:
    """The variables that `clean_process` has removed, and why."""
    return dict(_removed)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _is_working_folder(entry: str) -> bool:
    """Whether an entry of the module path is the working folder, unless our own code is run from there."""
    try:
        here, folder = Path.cwd(), Path(entry).resolve()
    except OSError:  # a deleted working folder has no modules
        return not Path(entry).is_absolute()
    return folder == here and folder != _CODE
