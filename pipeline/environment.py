"""What a command takes over from the shell that started it: which variables hold, which are set aside, and why.

`settle` is called once, before anything that reads a variable is imported; every child inherits what it leaves. A
variable that only makes a run other than usual is the user's to say (`SAID_BY_USER`, which `doctor` lists).
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
class Rule:
    """Variables that never reach a run: patterns of their names, less the `kept` ones."""

    names: tuple[str, ...]
    why: str
    kept: tuple[str, ...] = ()

    def covers(self, name: str) -> bool:
        """Whether the variable is one of them."""
        return _matches(name, self.names) and not _matches(name, self.kept)


SET_ASIDE = (
    Rule(
        # Jupyter's terminals name a backend of their own, at which matplotlib's import fails outside of Jupyter.
        ("MPLBACKEND", "MATPLOTLIBRC"),
        "charts are drawn without a window, in matplotlib's own style",
    ),
    Rule(
        # A git hook, `git rebase --exec` and the like set GIT_DIR, and then git speaks of that repository everywhere.
        ("GIT_*",),
        "the commit that a run records is that of seqpipe's own code",
        kept=("GIT_PYTHON_REFRESH",),
    ),
    Rule(
        # What is left is what one needs to join a cluster. The rest belongs to whoever runs a cluster, or, under
        # `ray job submit`, to another job; it would change where a search's own Ray lies, or what runs in it.
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
    Rule(
        # At a value that torch does not know its import fails.
        ("TORCH_LOGS",),
        "torch's compiler, which it is about, is not used",
    ),
    Rule(
        # With these, fewer threads compute than a run records and resumes with, so a resume would give other bits.
        ("OMP_DYNAMIC", "OMP_THREAD_LIMIT"),
        "compute.threads says how many threads compute",
    ),
    Rule(
        # With these MLflow refuses our place for artifacts. MLFLOW_WORKSPACE, which is a server's, is the user's.
        ("MLFLOW_ENABLE_WORKSPACES", "MLFLOW_WORKSPACE_STORE_URI"),
        "a store that is a file is not divided into MLflow's workspaces",
    ),
    Rule(
        # The server of `seqpipe ui` is ours alone: these move its pages, split it up or have it load other code.
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
    Rule(
        # A child with PYTHONINSPECT waits at a prompt in place of ending, and a warning that is made an error ends a
        # library, and so a training, at any moment.
        ("PYTHONINSPECT", "PYTHONWARNINGS"),
        "a run is not a debugging session",
    ),
)

OURS: Mapping[str, str] = {
    # No child, worker or server imports from the folder that it is started in.
    "PYTHONSAFEPATH": "1",
    # MLflow would take the requirements of a model from a uv.lock in the working folder.
    "MLFLOW_UV_AUTO_DETECT": "false",
}

DEFAULTS: Mapping[str, str] = {
    # Threads of torch that spin while they wait take the cores from each other when another program is busy, and then
    # a step may take seconds. Sleeping ones are steadier, and as fast when alone. Read when torch is loaded.
    "OMP_WAIT_POLICY": "PASSIVE",
}

SAID_BY_USER: Mapping[str, str] = {
    "MLFLOW_TRACKING_URI": "where runs are recorded",
    "MLFLOW_REGISTRY_URI": "where models are registered",
    "MLFLOW_EXPERIMENT_NAME": "the experiment of runs",
    "MLFLOW_WORKSPACE": "the part of a server that runs go to",
    "XDG_CACHE_HOME": "where the LSTM kernel is kept",
    "TMPDIR": "where temporary files lie",
    "CC": "the C compiler that is tried first",
    "CUDA_VISIBLE_DEVICES": "the GPUs that torch sees",
    "ATEN_CPU_CAPABILITY": "the vector instructions that torch uses",
    "ONEDNN_MAX_CPU_ISA": "the vector instructions that oneDNN uses",
    "OMP_WAIT_POLICY": "what threads do while they wait",
    "OMP_NUM_THREADS": "threads of the libraries beside torch, for which compute.threads is",
    "OMP_PROC_BIND": "ties threads to cores",
    "OMP_PLACES": "ties threads to cores",
    "GOMP_CPU_AFFINITY": "ties threads to cores",
    "KMP_AFFINITY": "ties threads to cores",
    "PYTHONPATH": "folders that modules are taken from first",
    "PYTHONOPTIMIZE": "checks inside libraries are left out",
    "http_proxy": "the way to the network",
    "https_proxy": "the way to the network",
}
"""Variables that change what a run does, and what each of them does."""

_PATHS = ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "MPLCONFIGDIR")
_CODE = Path(__file__).resolve().parent.parent
_set_aside: dict[str, str] = {}


def settle() -> None:
    """Set this process's variables and module path right, for itself and for all that it starts."""
    _set_aside.update(set_right(os.environ))
    sys.path[:] = [entry for entry in sys.path if not _is_working_folder(entry)]
    if any(option.startswith("error") for option in sys.warnoptions):
        sys.warnoptions.clear()
        warnings.resetwarnings()
        warnings.simplefilter("ignore")


def set_right(environ: MutableMapping[str, str]) -> dict[str, str]:
    """Set the variables of this or of another process right; those that were set aside, and why."""
    found = {name: rule.why for name in environ for rule in SET_ASIDE if rule.covers(name)}
    found |= {
        name: "a relative path means another folder to each process"
        for name in _PATHS
        if name in environ and not Path(environ[name]).is_absolute()
    }
    for name in found:
        del environ[name]
    if "PYTHONPATH" in environ:
        entries = [entry for entry in environ["PYTHONPATH"].split(os.pathsep) if not _is_working_folder(entry)]
        environ["PYTHONPATH"] = os.pathsep.join(str(Path(entry).absolute()) for entry in entries)
    environ.update(OURS)
    for name, value in DEFAULTS.items():
        environ.setdefault(name, value)
    return found


def said_by_user(environ: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """The variables by which the user changes what a run does: value, without passwords, and meaning."""
    return {
        name: (re.sub(r"(?<=//)[^/@]*@", "", environ[name]), meaning)
        for name, meaning in SAID_BY_USER.items()
        if environ.get(name) and environ[name] != DEFAULTS.get(name)
    }


def set_aside() -> Mapping[str, str]:
    """The variables that `settle` has set aside, and why."""
    return dict(_set_aside)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _is_working_folder(entry: str) -> bool:
    """Whether modules would be taken from the working folder; no, where that is where our own code is run from."""
    try:
        here, folder = Path.cwd(), Path(entry).resolve()
    except OSError:  # a working folder that is gone holds no modules
        return not Path(entry).is_absolute()
    return folder == here and folder != _CODE
