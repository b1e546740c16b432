"""Functions that take memory, hang, crash or talk; which tests run under a cap in child processes."""

import ctypes
import mmap
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

MB = 1_000_000
PAGE = 4096
GROW = "import time; held=[]\nwhile True: held.append(bytearray(b'x') * 5_000_000); time.sleep(0.005)"
POPEN = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', *sys.argv[1:]], start_new_session=True)"
LINGER = "import os, sys, time; open(sys.argv[1], 'a').write(f'{os.getpid()}\\n'); time.sleep(600)"


def add(first: int, second: int = 0) -> int:
    return first + second


def hold(megabytes: int, seconds: float = 0.0) -> int:
    held = bytearray(b"x") * (megabytes * MB)
    time.sleep(seconds)
    return len(held) // MB


def grow(step_mb: int = 5, pause_s: float = 0.01) -> None:
    held = []
    while True:
        held.append(bytearray(b"x") * (step_mb * MB))
        time.sleep(pause_s)


def at_once(megabytes: int) -> int:
    return len(bytearray(megabytes * MB))


def numpy_at_once(megabytes: int) -> float:
    import numpy as np

    return float(np.ones(megabytes * MB // 8).sum())


def torch_at_once(megabytes: int) -> float:
    import torch

    return float(torch.ones(megabytes * MB // 4).sum())


def wrapped(megabytes: int) -> None:
    try:
        at_once(megabytes)
    except MemoryError as error:
        raise LookupError("no room for it") from error


def smaller_on_refusal(megabytes: int) -> int:
    try:
        return at_once(megabytes)
    except MemoryError:
        return at_once(megabytes // 10)


def touch_lazily(megabytes: int) -> None:
    pages = mmap.mmap(-1, megabytes * MB)  # shared and anonymous: the kernel's limit does not see it
    for offset in range(0, len(pages), PAGE):
        pages[offset] = 1


def touch_a_little(megabytes: int) -> int:
    pages = mmap.mmap(-1, megabytes * MB)
    for offset in range(0, 20 * MB, PAGE):
        pages[offset] = 1
    time.sleep(0.2)
    return len(pages) // MB


def shared_memory(megabytes: int, name_file: str) -> None:
    from multiprocessing import shared_memory

    block = shared_memory.SharedMemory(create=True, size=megabytes * MB)
    Path(name_file).write_text(block.name)
    ctypes.memset(ctypes.addressof(ctypes.c_char.from_buffer(block.buf)), 1, megabytes * MB)


def torch_shared(megabytes: int) -> None:
    import torch

    held = []
    while True:
        held.append(torch.ones(megabytes * MB // 40).share_memory_())
        time.sleep(0.005)


def native(step_mb: int, counter: str) -> None:
    """Writes down how far it came, through a mapped file that survives its end."""
    file = os.open(counter, os.O_RDWR | os.O_CREAT)
    os.ftruncate(file, PAGE)
    taken = ctypes.c_int64.from_buffer(mmap.mmap(file, PAGE))
    library = ctypes.CDLL(None)
    library.malloc.restype = ctypes.c_void_p
    library.malloc.argtypes = [ctypes.c_size_t]
    while True:  # like native code that does not look at what malloc answers
        ctypes.memset(library.malloc(step_mb * MB), 1, step_mb * MB)
        taken.value += step_mb


def child_grows() -> None:
    subprocess.run([sys.executable, "-c", GROW], check=True)


def orphan_grows() -> None:
    subprocess.run([sys.executable, "-c", POPEN, GROW], check=True)
    time.sleep(60)


def read_mapped(path: str) -> int:
    with Path(path).open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    return sum(mapped[offset] for offset in range(0, len(mapped), PAGE))


def fail() -> None:
    raise ValueError("no such luck")


def leave(code: int) -> None:
    os._exit(code)


def kill_itself(number: int = signal.SIGKILL) -> None:
    os.kill(os.getpid(), number)
    time.sleep(60)


def unpicklable() -> object:
    return threading.Lock()


class Unreadable:
    def __reduce__(self) -> tuple[object, ...]:
        return int, ("no number",)


def unreadable() -> object:
    return Unreadable()


def hang(seconds: float = 60.0) -> None:
    time.sleep(seconds)


def hang_between_open_and_unlink() -> None:
    Path(f"/dev/shm/torch_{os.getpid()}_1_2").touch()
    time.sleep(60)


def hang_and_ignore() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(60)


def until_asked(send: object) -> str:
    asked = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: asked.set())
    send("ready")  # type: ignore[operator]
    while not asked.wait(0.01):
        pass
    send("checkpoint")  # type: ignore[operator]
    return "left in order"


def talk(send: object, count: int, size: int = 0) -> int:
    for number in range(count):
        send((number, b"x" * size))  # type: ignore[operator]
    return count


def talk_then(send: object, then: str) -> None:
    send("said")  # type: ignore[operator]
    globals()[then]()


def talk_from_a_fork(send: object) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            send("from a fork")  # type: ignore[operator]
        except RuntimeError:
            os._exit(7)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def with_family(send: object, pids: str, seconds: float = 60.0) -> None:
    """A child, one that was orphaned into a session of its own, and this process: all write down who they are."""
    Path(pids).write_text(f"{os.getpid()}\n")
    subprocess.Popen([sys.executable, "-c", LINGER, pids])
    subprocess.run([sys.executable, "-c", POPEN, LINGER, pids], check=True)
    while len(Path(pids).read_text().splitlines()) < 3:
        time.sleep(0.01)
    send("all there")  # type: ignore[operator]
    time.sleep(seconds)


def where() -> tuple[object, ...]:
    return Path.cwd(), sys.argv, signal.getsignal(signal.SIGTERM), threading.current_thread().name, os.getpid()


def speak() -> None:
    print("to stdout")
    print("to stderr", file=sys.stderr)
    subprocess.run(["echo", "echoed below"], check=True)


def import_numpy() -> None:
    import numpy  # noqa: F401


def import_torch() -> None:
    import torch  # noqa: F401


def warm_up_badly() -> None:
    raise ImportError("nothing here to warm up with")


PREPARED: list[bytearray] = []


def take_300_mb() -> None:
    PREPARED.append(bytearray(b"x") * (300 * MB))


def card_is_full() -> None:
    raise RuntimeError("CUDA out of memory: not enough memory")


def sleeping_threads(count: int, pause_s: float) -> int:
    for _ in range(count):
        threading.Thread(target=time.sleep, args=(2.0,), daemon=True).start()
        time.sleep(pause_s)
    return threading.active_count() - 2  # the main thread and the lifeline


def hang_in_native_code() -> None:
    ctypes.PyDLL(None).sleep(30)  # PyDLL keeps the interpreter lock


def native_when_signalled(send: object, folder: str) -> None:
    send(os.getpid())  # type: ignore[operator]
    while not (Path(folder) / "go").exists():
        time.sleep(0.01)
    native(1, str(Path(folder) / "taken"))


def send_pid_and_grow(send: object) -> None:
    send(os.getpid())  # type: ignore[operator]
    grow()


def send_pid_and_hang(send: object) -> None:
    send(os.getpid())  # type: ignore[operator]
    hang()
