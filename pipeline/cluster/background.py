"""`cluster up --detach`: the same command in a session of its own, which this one waits for until it is up."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence

from pipeline.cluster.workspace_cluster import ClusterAccess, ClusterFolder, running
from pipeline.errors import MachineUnfitError
from pipeline.workspace.durable_files import writing
from pipeline.workspace.paths import Workspace

START_S = 180.0
"""The first start on a laptop builds the LSTM kernel."""
_ASK_S, _END_S = 0.1, 20.0
_RUN = "import sys; from pipeline.cli.app import main; sys.argv[:] = sys.argv[1:]; main()"


def start(workspace: Workspace, words: Sequence[str]) -> ClusterAccess:
    """Run `seqpipe` with these words in the background; returns once the cluster is up.

    Raises:
        MachineUnfitError: it ended before, or does not come up.
        WorkspaceError: its log cannot be written.
    """
    workspace.create()
    folder = ClusterFolder(workspace.cluster)
    folder.require_free()
    with writing(folder.log):
        folder.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        log = os.open(folder.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", _RUN, sys.argv[0], *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    finally:
        os.close(log)
    try:
        return _when_up(workspace, process, folder)
    except BaseException:
        _end(process)
        raise


def _when_up(workspace: Workspace, process: "subprocess.Popen[bytes]", folder: ClusterFolder) -> ClusterAccess:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        if process.poll() is not None:
            raise MachineUnfitError(_last_words(folder) or f"it ended by itself; its log is {folder.log}")
        access = running(workspace)
        if access is not None and access.head.pid == process.pid:
            return access
        time.sleep(_ASK_S)
    raise MachineUnfitError(f"the cluster is not up after {START_S:.0f} s; its log is {folder.log}")


def _last_words(folder: ClusterFolder) -> str:
    """What the command complained of before it ended."""
    said = [line for line in folder.log.read_text(errors="replace").splitlines() if line.startswith("seqpipe: ")]
    return said[-1].removeprefix("seqpipe: ") if said else ""


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)
    if process.poll() is None:
        process.kill()
        process.wait()
