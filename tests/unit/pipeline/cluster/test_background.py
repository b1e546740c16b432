import sys

import pytest

from pipeline.cluster import background
from pipeline.cluster.workspace_cluster import ClusterFolder
from pipeline.errors import MachineUnfitError

UP = """
import os, sys, time
from pathlib import Path
from pipeline.cluster.workspace_cluster import ClusterAccess, ClusterFolder, HeadHere
from tuning.cluster.join_code import JoinCode
folder = ClusterFolder(Path(sys.argv[2]))
with folder.held():
    folder.write(ClusterAccess(HeadHere("10.0.0.1", 6480, "a", os.getpid()), JoinCode.new("PQRST")))
    assert os.getsid(0) == os.getpid()
    while not folder.is_asked_to_end():
        time.sleep(0.05)
"""


@pytest.fixture
def start(workspace, monkeypatch):
    def start(program):
        monkeypatch.setattr(background, "_RUN", program)
        return background.start(workspace, [str(workspace.cluster)])

    return start


def test_it_returns_once_the_cluster_is_up_and_leaves_it_running(workspace, start):
    folder = ClusterFolder(workspace.cluster)
    access = start(UP)
    try:
        assert access.head.name == "a"
        assert folder.is_held()
        assert folder.log.stat().st_mode & 0o777 == 0o600
        with pytest.raises(MachineUnfitError, match="up already"):
            start(UP)
    finally:
        folder.ask_to_end()
        while folder.is_held():
            pass


def test_what_kept_it_from_coming_up_is_told(start):
    with pytest.raises(MachineUnfitError, match=r"^port 6480 cannot be used$"):
        start("import sys; sys.exit('starting\\nseqpipe: port 6480 cannot be used')")
    with pytest.raises(MachineUnfitError, match=r"it ended by itself; its log is .*up\.log"):
        start("")


def test_a_cluster_that_does_not_come_up_in_time_is_ended(workspace, start, monkeypatch):
    monkeypatch.setattr(background, "START_S", 0.3)
    began = []
    popen = background.subprocess.Popen
    monkeypatch.setattr(background.subprocess, "Popen", lambda *a, **k: began.append(popen(*a, **k)) or began[-1])
    with pytest.raises(MachineUnfitError, match="not up after 0 s"):
        start("import time; time.sleep(60)")
    assert began[0].poll() is not None


def test_the_words_are_those_of_the_program(start, workspace, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/bin/seqpipe", "cluster", "up"])
    with pytest.raises(MachineUnfitError, match=f"^/bin/seqpipe {workspace.cluster}$"):
        start("import sys; sys.exit('seqpipe: ' + ' '.join(sys.argv[1:]))")
