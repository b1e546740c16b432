"""A laptop made of namespaces: processes, network, host name and disk of its own. Root only, Linux only.

Of this machine's disk it sees what can only be read; HOME, temp and shared memory are its own and empty. It holds
nothing that outlives the process that made it: no named namespace, no mount, no process.
"""

import contextlib
import fcntl
import os
import pty
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
from laptop_commands import Command, Screen
from product import NO_SERVER, Done

HOME = "/home/me"
WORK = f"{HOME}/work"
REPOSITORY = Path(__file__).parents[2]
PACKAGES = ("pipeline", "tuning", "sequencer_models")
_DISKS = ("/home", "/tmp")
_KINDS = ("mnt", "net", "uts")
"""The namespaces that outlive a reboot: the disk, the network card, the name."""
_FLAGS = {"mnt": "--mount", "net": "--net", "uts": "--uts"}
_NOT_TAKEN = ("HOME", "TMPDIR", "PYTHONPATH", "XDG_", "MLFLOW_", "RAY_", "TUNING_", "SEQPIPE_JOIN", "PYTEST_", "SSH_")
_INIT = str(Path(__file__).with_name("laptop_init.py"))
_SET_UP = """
set -e
name=$1 size=$2; shift 2
hostname "$name"
ip link set lo up
mount -t tmpfs none /run
number=0
for needed in "$@"; do
    number=$((number + 1)); mkdir /run/$number; mount --rbind "$needed" /run/$number
done
for own in /var/tmp /dev/shm; do mount -t tmpfs none $own; done
for own in /home /tmp; do mount -t tmpfs -o size=$size none $own; done
mount -o remount,bind,ro /
number=0
for needed in "$@"; do
    number=$((number + 1)); mkdir -p "$needed"; mount --move /run/$number "$needed"
    mount -o remount,bind,ro "$needed"
done
mkdir -p /home/me/work
printf '127.0.0.1 localhost\\n' > /run/hosts
mount --bind /run/hosts /etc/hosts
"""


def why_not() -> str | None:
    """Why there can be no such laptops here."""
    missing = [name for name in ("unshare", "nsenter", "ip", "mount") if shutil.which(name) is None]
    if sys.platform != "linux" or os.geteuid() != 0 or missing:
        return f"needs root on Linux{', and ' + ', '.join(missing) if missing else ''}"
    tried = subprocess.run(
        ["unshare", "--mount", "--net", "--pid", "--fork", "true"], check=False, capture_output=True
    )
    return f"no namespaces here: {tried.stderr.decode().strip()}" if tried.returncode else None


class Laptop:
    """One laptop, switched on. `folder` is for what its commands say."""

    def __init__(self, name: str, folder: Path, disk: str = "2g", core: int | None = None) -> None:
        self.name, self.folder, self.disk, self.core = name, folder, disk, core
        self.device, self.address = "", ""
        self.environ = {key: value for key, value in os.environ.items() if not key.startswith(_NOT_TAKEN)}
        self.environ |= {"HOME": HOME, "OMP_WAIT_POLICY": "PASSIVE", "MLFLOW_DISABLE_TELEMETRY": "true"}
        self.environ |= {"MLFLOW_TRACKING_URI": NO_SERVER, "COLUMNS": "200"}
        self._kept: dict[str, int] = {}
        self.commands: list[Command] = []
        """All that were begun, in order."""
        self._number = 0
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # by a shell's `&`; every command would inherit that
            signal.signal(signal.SIGINT, signal.default_int_handler)
        folder.mkdir(parents=True, exist_ok=True)
        self._switch_on(["unshare", *_FLAGS.values()])
        self._kept = {kind: os.open(f"/proc/{self.init}/ns/{kind}", os.O_RDONLY) for kind in _KINDS}
        self._must("sh", "-c", _SET_UP, "sh", name, disk, *_needed())
        (self.path(WORK) / "mlflow.yaml").touch()

    # -- power

    def _switch_on(self, within: Sequence[str]) -> None:
        flags = ["--ipc", "--pid", "--fork"]
        unshare = [*within, *flags] if within[0] == "unshare" else [*within, "unshare", *flags]
        _, complaints = self._files()
        with complaints.open("wb") as complained:
            self._power = subprocess.Popen(
                [*unshare, sys.executable, "-S", _INIT], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=complained, pass_fds=list(self._kept.values()), start_new_session=True,
            )  # fmt: skip
        assert self._power.stdout is not None
        assert self._power.stdout.readline() == b"up\n", complaints.read_text()
        self.init = psutil.Process(self._power.pid).children(recursive=True)[-1].pid
        self._pids = os.readlink(f"/proc/{self.init}/ns/pid")  # noqa: PTH115

    def power_off(self) -> None:
        """Everything on it ends at once; its disk stays."""
        assert self._power.stdin is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.init, signal.SIGKILL)
        self._power.stdin.close()
        self._power.wait(20)
        for command in self.commands:
            command.process.wait(20)
        until = time.monotonic() + 20
        while self.processes() and time.monotonic() < until:
            time.sleep(0.02)
        assert self.processes() == [], "something outlived its laptop"

    def reboot(self) -> None:
        """Off and on again; temp and shared memory are empty then."""
        self.power_off()
        self._switch_on(["nsenter", *(f"{_FLAGS[kind]}=/proc/self/fd/{file}" for kind, file in self._kept.items())])
        self._must("sh", "-c", "rm -rf /tmp/* /tmp/.[!.]* /dev/shm/*")

    def scrap(self) -> None:
        """Off for good; nothing of it is left."""
        self.power_off()
        for command in self.commands:
            if isinstance(command, Screen):
                command.close()
        for file in self._kept.values():
            os.close(file)
        self._kept = {}

    # -- commands

    def start(self, *words: str, at: str = WORK, stdin: int = subprocess.DEVNULL, **environ: str | None) -> Command:
        """Begin a command in the workspace; None removes a variable."""
        out, err = self._files()
        with out.open("wb") as told, err.open("wb") as complained:
            process = subprocess.Popen(
                self._bring(at, words), stdin=stdin, stdout=told, stderr=complained, env=self._environment(environ),
                start_new_session=True,
            )  # fmt: skip
        self.commands.append(Command(process, out, err))
        return self.commands[-1]

    def run(self, *words: str, timeout_s: float = 60, at: str = WORK, **environ: str | None) -> Done:
        """A command to its end; one that takes longer is ended, and fails the test."""
        command = self.start(*words, at=at, **environ)
        try:
            return command.wait(timeout_s)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                command.send(signal.SIGKILL)
            raise AssertionError(f"{words} took over {timeout_s} s:\n{command.out}\n{command.err}") from None

    def terminal(self, *words: str, rows: int = 40, columns: int = 120, **environ: str | None) -> Screen:
        """Begin a command in a terminal."""
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        environ = {"TERM": "xterm-256color", "COLUMNS": None, **environ}
        process = subprocess.Popen(
            self._bring(WORK, ("setsid", "--ctty", *words)), stdin=slave, stdout=slave, stderr=slave,
            env=self._environment(environ), start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        out, _ = self._files()
        out.touch()
        screen = Screen(process, out, master)
        self.commands.append(screen)
        return screen

    def _bring(self, at: str, words: Sequence[str]) -> list[str]:
        core = [] if self.core is None else ["taskset", "-c", str(self.core)]
        enter = ["nsenter", "--target", str(self.init), "--mount", "--net", "--uts", "--ipc", "--pid"]
        return [*core, *enter, "sh", "-c", 'cd "$0" && exec "$@"', at, *words]

    def _environment(self, environ: dict[str, str | None]) -> dict[str, str]:
        return {key: value for key, value in {**self.environ, **environ}.items() if value is not None}

    def _files(self) -> tuple[Path, Path]:
        self._number += 1
        return self.folder / f"{self.name}-{self._number}.out", self.folder / f"{self.name}-{self._number}.err"

    def _must(self, *words: str) -> str:
        done = self.run(*words, at="/")
        assert done.code == 0, (words, done.err)
        return done.out

    # -- what is on it

    def path(self, inside: str) -> Path:
        """A file of the laptop's, as it sees it, for this process to look at or change."""
        return Path(f"/proc/{self.init}/root{inside}")

    @property
    def work(self) -> Path:
        """Its workspace."""
        return self.path(WORK)

    def processes(self) -> list[psutil.Process]:
        """All that runs on it but its first process."""
        found = []
        for entry in os.listdir("/proc"):  # noqa: PTH208 - as fast as can be
            if entry.isdecimal() and int(entry) != self.init:
                with contextlib.suppress(OSError, psutil.Error):
                    if os.readlink(f"/proc/{entry}/ns/pid") == self._pids:  # noqa: PTH115
                        found.append(psutil.Process(int(entry)))
        return [each for each in found if _lives(each)]

    def lines(self) -> list[str]:
        """The command lines of its processes."""
        found = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                found.append(" ".join(process.cmdline()) or process.name())
        return found

    def kill_everything(self) -> None:
        """SIGKILL to all its processes."""
        self._signal(signal.SIGKILL)

    def freeze(self) -> None:
        """All its processes stop, as behind a closed lid."""
        self._signal(signal.SIGSTOP)
        self._signal(signal.SIGSTOP)  # those that were born meanwhile

    def thaw(self) -> None:
        """They go on."""
        self._signal(signal.SIGCONT)
        for command in self.commands:
            if command.poll() is None:
                command.process.send_signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    # -- network

    def plug_in(self, device: str, address: str) -> None:
        """Give its network device an address, such as 10.77.0.1."""
        self.device = device
        self._must("ip", "link", "set", device, "up")
        self.change_address(address)

    def change_address(self, address: str) -> None:
        """Have this address in place of the ones that it has."""
        self._must("ip", "addr", "flush", "dev", self.device, "scope", "global")
        self._must("ip", "addr", "add", f"{address}/24", "dev", self.device, "broadcast", "+")
        self.address = address

    def knows(self, **names: str) -> None:
        """Names of other machines and their addresses."""
        lines = ["127.0.0.1 localhost", *(f"{address} {name.replace('_', '-')}" for name, address in names.items())]
        self.path("/etc/hosts").write_text("\n".join(lines) + "\n")

    def listening(self) -> set[str]:
        """ADDRESS:PORT of the TCP sockets that wait for connections."""
        told = self._must("ss", "-H", "-l", "-t", "-n")
        return {line.split()[3] for line in told.splitlines()}

    def received_bytes(self) -> int:
        """What came over its network device."""
        lines = Path(f"/proc/{self.init}/net/dev").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.strip().startswith(f"{self.device}:"))

    # -- faults

    def run_ahead(self, seconds: float) -> dict[str, str]:
        """The environment in which Python's clock is so far ahead."""
        return self._python_begins_with(_AHEAD.format(seconds=seconds))

    def has_python(self, version: str) -> dict[str, str]:
        """The environment in which Python says that it is this version."""
        return self._python_begins_with(f"import platform\nplatform.python_version = lambda: {version!r}\n")

    def _python_begins_with(self, code: str) -> dict[str, str]:
        folder = self.path(f"{HOME}/own-python")
        folder.mkdir(exist_ok=True)
        (folder / "sitecustomize.py").write_text(code)
        return {"PYTHONPATH": f"{HOME}/own-python"}

    def own_source(self) -> None:
        """A copy of our packages in place of the one that it shares with everybody, to be changed at will."""
        for package in PACKAGES:
            self._must("cp", "-r", str(REPOSITORY / package), f"{HOME}/{package}.own")
            self._must("mount", "--bind", f"{HOME}/{package}.own", str(REPOSITORY / package))

    def fill_disk(self) -> None:
        """Leave no room in HOME and temp."""
        for folder in _DISKS:
            disk = os.statvfs(self.path(folder))
            used_kb = (disk.f_blocks - disk.f_bfree) * disk.f_frsize // 1024
            self._must("mount", "-o", f"remount,size={max(4, used_kb)}k", folder)

    def empty_disk(self) -> None:
        """There is room again."""
        for folder in _DISKS:
            self._must("mount", "-o", f"remount,size={self.disk}", folder)


_AHEAD = """
import time
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + {seconds}
time.time_ns = lambda: _time_ns() + int({seconds} * 1_000_000_000)
"""


def _lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def _needed() -> list[str]:
    """What a command needs of this machine's disk and would lose with its /tmp, /home or /run."""
    folders = [REPOSITORY, Path(sys.prefix), Path(sys.base_prefix)]
    found: list[Path] = []
    for folder in folders:
        hidden = any(folder.is_relative_to(each) for each in ("/tmp", "/var/tmp", "/home"))
        if hidden and not any(folder.is_relative_to(other) for other in found):
            found.append(folder)
    return [str(folder) for folder in found]
