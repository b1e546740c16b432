import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tuning.awake import Awake, tool_of

INHIBIT = """#!/bin/sh
echo "$@" >> "$RECORD"
while [ "${1#--}" != "$1" ]; do shift; done
"$@"
"""
CAFFEINATE = """#!/bin/sh
echo "$@" >> "$RECORD"
[ "$2" = -w ] || exec "$2"
while kill -0 "$3" 2>/dev/null; do sleep 0.02; done
"""
TOOLS = {"linux": ("systemd-inhibit", INHIBIT), "darwin": ("caffeinate", CAFFEINATE)}


@pytest.fixture
def record(tmp_path, monkeypatch):
    """A PATH with the shell's own programs and, once installed, a fake tool, which records its calls here."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    for name in ("sh", "sleep", "true"):
        (bin_ / name).symlink_to(Path("/bin", name) if Path("/bin", name).exists() else Path("/usr/bin", name))
    monkeypatch.setenv("PATH", str(bin_))
    monkeypatch.setenv("RECORD", str(tmp_path / "record"))
    return tmp_path / "record"


@pytest.fixture(params=["linux", "darwin"])
def platform(request, record):
    install(record, *TOOLS[request.param])
    return request.param


def install(record: Path, name: str, script: str) -> None:
    path = record.with_name("bin") / name
    path.write_text(script)
    path.chmod(0o755)


def below(pid: int) -> list[psutil.Process]:
    """The tool, and for systemd-inhibit the shell below it; what a fake one sleeps with comes and goes."""
    return [one for one in psutil.Process(pid).children(recursive=True) if not _is_sleep(one)]


def _is_sleep(process: psutil.Process) -> bool:
    try:
        return process.name() == "sleep" or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def calls(record: Path) -> list[str]:
    """The arguments of each call that the tool has come to record: one that is ended at once may not."""
    return record.read_text().splitlines()


def gone(processes: list[psutil.Process], within_s: float = 5.0) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=within_s)
    return not [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]


def until(condition, within_s: float = 5.0) -> bool:
    deadline = time.monotonic() + within_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def test_the_lock_is_held_exactly_while_there_is_work(platform, record):
    with Awake(platform=platform) as awake:
        assert not awake.is_held
        awake.keep(True)
        assert awake.is_held
        assert until(lambda: len(calls(record)) == 2), "once to try it, once to hold"
        holder = awake._holding
        awake.keep(True)
        assert awake._holding is holder, "one lock is enough"
        holding = below(os.getpid())
        awake.keep(False)
        assert not awake.is_held
        assert gone(holding)
        awake.keep(True)
        assert awake.is_held, "there is work again"
        assert until(lambda: len(calls(record)) == 3)
        holding = below(os.getpid())
    assert gone(holding), "leaving the context gives it back"
    trial, *held = calls(record)
    assert trial.endswith("true")
    assert len(held) == 2


def test_a_tool_that_was_killed_is_started_again(platform):
    with Awake(platform=platform) as awake:
        awake.keep(True)
        for process in below(os.getpid()):
            process.kill()
        assert until(lambda: not awake.is_held)
        awake.keep(True)
        assert awake.is_held


def test_the_lock_does_not_outlive_a_process_that_is_killed(platform):
    code = (
        "import sys; from tuning.awake import Awake\n"
        f"awake = Awake(platform={platform!r}); awake.keep(True); print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        assert until(lambda: below(holder.pid) != [])
        holding = below(holder.pid)
        holder.send_signal(signal.SIGKILL)
    assert gone(holding)


def test_sleep_and_idleness_are_held_off_and_a_mac_is_told_whose_end_to_watch(platform, record):
    with Awake(platform=platform) as awake:
        awake.keep(True)
        assert until(lambda: len(calls(record)) == 2)
    held = calls(record)[1]
    if platform == "linux":
        assert "--what=sleep:idle" in held
        assert "--mode=block" in held
    else:
        assert held == f"-i -w {os.getpid()}"


def test_the_machine_is_said_to_stay_awake_if_the_tool_was_tried_and_works(platform):
    assert Awake(platform=platform).in_words.startswith(f"stays awake while it has a trial ({TOOLS[platform][0]})")


@pytest.mark.parametrize("name", ["linux", "darwin", "freebsd14"])
def test_a_machine_without_a_tool_does_nothing_and_says_so(record, name):
    with Awake(platform=name) as awake:
        awake.keep(True)
        assert not awake.is_held
        assert "neither systemd-inhibit nor caffeinate" in awake.in_words
    assert not record.exists()


def test_who_allows_sleep_gets_no_lock(platform, record):
    with Awake(may_sleep=True, platform=platform) as awake:
        awake.keep(True)
        assert not awake.is_held
        assert "as asked" in awake.in_words
    assert not record.exists()


def test_a_tool_that_refuses_is_quoted_and_not_asked_again(record):
    install(record, "systemd-inhibit", '#!/bin/sh\necho x >> "$RECORD"\necho "Access denied" >&2\nexit 1\n')
    with Awake(platform="linux") as awake:
        awake.keep(True)
        assert not awake.is_held
        assert awake.in_words.endswith("systemd-inhibit does not work here (Access denied)")
    assert record.read_text() == "x\n"


def test_a_tool_that_hangs_is_given_up(record, monkeypatch):
    monkeypatch.setattr("tuning.awake._ANSWER_S", 0.1)
    install(record, "caffeinate", "#!/bin/sh\nexec sleep 20\n")
    assert "no answer" in Awake(platform="darwin").in_words


def test_only_linux_and_macos_have_a_tool():
    assert tool_of("win32", 1) is None
