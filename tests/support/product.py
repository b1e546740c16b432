"""The real product: commands in child processes, in a workspace of their own."""

import contextlib
import hashlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

SEQPIPE = str(Path(sys.executable).parent / "seqpipe")
NO_SERVER = "http://127.0.0.1:9"
TINY = {
    "vanilla": ["--model", "vanilla", "--set", "model.hidden=16", "--set", "model.layers=1"],
    "small": ["--model", "small", "--set", "model.dims=[16,32]", "--set", "model.depths=[1,1]"],
    "medium": ["--model", "medium", "--set", "model.dims=[16,32,32]", "--set", "model.depths=[1,1,1]"],
}
TIMINGS = ("images_per_second", "peak_memory_mb")


def settings(**values: object) -> list[str]:
    """`train__epochs=3` -> `--set train.epochs=3`."""
    return [word for key, value in values.items() for word in ("--set", f"{key.replace('__', '.')}={value}")]


def tiny(model: str = "vanilla", **values: object) -> list[str]:
    """A run that takes moments: made-up images, a model of a few thousand parameters."""
    defaults: dict[str, object] = {
        "data__source": "synthetic", "data__fraction": 0.3, "train__epochs": 3, "compute__threads": 1,
    }  # fmt: skip
    return [*TINY[model], *settings(**{**defaults, **values})]


ONE_EPOCH = tiny("vanilla", train__epochs=1)
LONG = tiny(train__epochs=3, train__batch_size=4, data__fraction=0.5)  # 270 steps, a few seconds


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def errors(self) -> list[str]:
        """What the command complained of: the line that begins with its name, and what follows."""
        lines = self.err.splitlines()
        first = next((number for number, line in enumerate(lines) if line.startswith("seqpipe: ")), len(lines))
        return lines[first:]


class Place:
    """A workspace and the commands that run in it; by default its MLflow server is out of reach."""

    def __init__(self, root: Path, *, mlflow: bool = False, **environ: str | None) -> None:
        root.mkdir(parents=True, exist_ok=True)
        (root / "mlflow.yaml").touch()
        self.root = root
        self.environ = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "MLFLOW_DISABLE_TELEMETRY": "true"}
        for key in [key for key in self.environ if key.startswith("MLFLOW_") and key.endswith("_URI")]:
            del self.environ[key]
        if not mlflow:
            self.environ["MLFLOW_TRACKING_URI"] = NO_SERVER
        self.set(**environ)
        self.started: list[subprocess.Popen[str]] = []

    def set(self, **environ: str | None) -> None:
        """Change the environment of the commands to come; None removes a variable."""
        for key, value in environ.items():
            if value is None:
                self.environ.pop(key, None)
            else:
                self.environ[key] = value

    def start(self, *words: str, **options: object) -> "subprocess.Popen[str]":
        """Begin a command."""
        settings = {"cwd": self.root, "env": self.environ, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen([SEQPIPE, *words], text=True, **{**settings, **options})
        self.started.append(process)
        return process

    def run(self, *words: str, timeout_s: float = 120, **options: object) -> Done:
        """Run a command to its end."""
        began = time.monotonic()
        process = self.start(*words, **options)
        out, err = process.communicate(timeout=timeout_s)
        return Done(process.returncode, out, err, time.monotonic() - began)

    def end(self) -> None:
        """End what a failed test left behind."""
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.wait()
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()

    @property
    def stages(self) -> Path:
        """The stage folders."""
        return self.root / ".seqpipe" / "stages"

    def whole(self, stage: str) -> Path:
        """The one whole folder of a stage."""
        [folder] = [path for path in (self.stages / stage).iterdir() if not path.name.endswith(".partial")]
        return folder

    def whole_of(self, epochs: int) -> Path:
        """The one whole training of so many epochs."""
        manifests = (self.stages / "train").glob("*/manifest.json")
        [found] = [path for path in manifests if json.loads(path.read_bytes())["result"]["epochs"] == epochs]
        return found.parent

    def partial(self, stage: str = "train") -> Path | None:
        """The partial folder of a stage, if there is one."""
        return next((self.stages / stage).glob("*.partial"), None)

    def checkpoints(self) -> list[Path]:
        """The descriptions of the unfinished training's checkpoints, oldest first."""
        folder = self.partial()
        return sorted(folder.glob("step-*.json")) if folder else []

    def wait_for(self, condition, process: "subprocess.Popen[str]", timeout_s: float = 60, every_s: float = 0.01):
        """Wait until the condition holds or the process has ended; whether it holds."""
        end = time.monotonic() + timeout_s
        while not (found := condition()):
            if process.poll() is not None:
                return condition()
            assert time.monotonic() < end, "nothing of the kind happened"
            time.sleep(every_s)
        return found

    def result(self) -> dict[str, object]:
        """What a training ended in, timings aside: the hashes of the weights, the epochs, the journal's figures."""
        folder = self.whole("train")
        rows = [
            {key: value for key, value in row.items() if key not in TIMINGS}
            for row in json.loads((folder / "epochs.json").read_bytes())
        ]
        return {
            "last": sha256(folder / "last.safetensors"),
            "best": sha256(folder / "best.safetensors"),
            "epochs": rows,
            "journal": figures(folder / "journal.jsonl"),
        }


def figures(journal: Path) -> list[tuple[int, str, float]]:
    """Every figure of a journal in its order, timings, memory and the machine's load aside."""
    events = [json.loads(line) for line in journal.read_text().splitlines()]
    return [
        (event["step"], key, value)
        for event in events
        if event["kind"] == "metrics"
        for key, value in event["values"].items()
        if key not in TIMINGS and not key.startswith("system/")
    ]


def leave(process: "subprocess.Popen[str]", number: int = signal.SIGINT, timeout_s: float = 30) -> Done:
    """Signal a process and wait for its end; `seconds` counts from the signal."""
    began = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=timeout_s)
    return Done(process.returncode, out, err, time.monotonic() - began)


class Terminal:
    """A terminal of its own, in which one command runs as a shell would start it."""

    def __init__(self, place: Place, *words: str) -> None:
        self.pid, self._master = pty.fork()
        if self.pid == 0:
            os.chdir(place.root)
            os.execve(words[0], words, place.environ | {"TERM": "xterm", "COLUMNS": "100"})
        self._code: int | None = None
        self._closing = threading.Event()
        self._screen = threading.Thread(target=self._show, daemon=True)
        self._screen.start()

    def poll(self) -> int | None:
        """The command's exit code, once it has ended."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._master, keys)

    def close(self) -> None:
        """Close the window."""
        self._closing.set()
        self._screen.join()
        os.close(self._master)

    def wait(self, timeout_s: float = 60) -> int:
        """The command's exit code, when it has ended."""
        end = time.monotonic() + timeout_s
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise AssertionError("it did not end")
            time.sleep(0.01)
        return code

    def _show(self) -> None:
        with contextlib.suppress(OSError):  # all that was in it has ended
            while not self._closing.is_set():
                if select.select([self._master], [], [], 0.05)[0]:
                    os.read(self._master, 4096)


def sha256(path: Path) -> str:
    """Of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def snapshot(root: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of every file below a folder."""
    return {
        str(path.relative_to(root)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.name.endswith(".holder.json")  # of a dead command
    }


def began_training(place: Place, *more: str) -> "subprocess.Popen[str]":
    """A LONG training of which there is a checkpoint."""
    process = place.start("run", "train", *LONG, *more)
    assert place.wait_for(place.checkpoints, process)
    time.sleep(0.2)
    return process


def fill(path):
    """Take all the space that is left."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4096)


TRAPS = (
    "pipeline", "tuning", "sequencer_models", "mlflow", "ray", "torch", "numpy", "matplotlib", "optuna", "uvicorn",
    "random", "typing", "token", "queue", "usercustomize", "sitecustomize",
)  # fmt: skip


def set_traps(folder: Path) -> None:
    """Modules with the names of what is imported, each of which leaves a file beside it when it is the one."""
    for name in TRAPS:
        (folder / f"{name}.py").write_text("open(__file__ + '.sprung', 'w').close()\n")


def sprung(folder: Path) -> list[str]:
    """The traps that somebody imported."""
    return sorted(path.name.removesuffix(".py.sprung") for path in folder.glob("*.sprung"))
