import threading
import time

import pytest
from fake_cluster import HEAD

from pipeline.cluster import ending
from pipeline.cluster.workspace_cluster import ClusterAccess, ClusterFolder, HeadHere, left_over
from pipeline.errors import MachineUnfitError
from tuning.cluster.join_code import JoinCode
from tuning.cluster.node_record import NodeRecord
from tuning.cluster.orders import Order

ACCESS = ClusterAccess(HeadHere("192.168.1.10", 6480, "a", 123), JoinCode.new("PQRST"))


@pytest.fixture
def folder(workspace):
    return ClusterFolder(workspace.cluster)


@pytest.fixture
def is_up(folder):
    with folder.held():
        folder.write(ACCESS)
        yield


@pytest.mark.usefixtures("is_up")
def test_a_node_is_told_to_leave_and_waited_for(workspace, cluster):
    cluster.records = [HEAD, NodeRecord("b", "10.0.0.2")]

    def leaves_when_told():
        if "b" in cluster.orders:
            cluster.records = [HEAD]

    cluster.on_poll = leaves_when_told
    ending.leave(workspace, "b")
    assert cluster.orders == {"b": Order.LEAVE}


@pytest.mark.usefixtures("is_up")
@pytest.mark.parametrize(
    ("node", "said"), [("c", "no node 'c' .* there are: a, b"), ("a", "a has the head, .* down")]
)
def test_only_another_node_can_be_told_to_leave(workspace, cluster, node, said):
    cluster.records = [HEAD, NodeRecord("b", "10.0.0.2")]
    with pytest.raises(MachineUnfitError, match=said):
        ending.leave(workspace, node)
    assert cluster.orders == {}


@pytest.mark.usefixtures("is_up")
def test_a_node_out_of_reach_is_not_waited_for_forever(workspace, cluster, monkeypatch):
    cluster.records = [HEAD, NodeRecord("b", "10.0.0.2")]
    monkeypatch.setattr(ending, "LEAVE_S", 0.1)
    with pytest.raises(MachineUnfitError, match="b has not left within 0 s: it is out of reach"):
        ending.leave(workspace, "b")


def test_without_a_cluster_there_is_nobody_to_leave(workspace, cluster):
    with pytest.raises(MachineUnfitError, match="no cluster is up from this workspace"):
        ending.leave(workspace, "b")


def test_down_asks_the_up_that_lives_and_waits_until_it_has_ended(workspace, folder):
    ended = threading.Event()

    def up():
        with folder.held():
            folder.write(ACCESS)
            started.set()
            while not folder.is_asked_to_end():
                time.sleep(0.01)
            time.sleep(0.3)
            folder.forget()
            ended.set()

    started = threading.Event()
    thread = threading.Thread(target=up)
    thread.start()
    started.wait()
    assert ending.down(workspace) == "the cluster has ended"
    assert ended.is_set()
    thread.join()


@pytest.mark.usefixtures("is_up")
def test_an_up_that_hangs_is_named(workspace, monkeypatch):
    monkeypatch.setattr(ending, "DOWN_S", 0.1)
    with pytest.raises(MachineUnfitError, match=r"does not end \(process 123\)"):
        ending.down(workspace)


def test_down_forgets_what_a_crash_has_left(workspace, folder):
    with folder.held():
        folder.write(ACCESS)
    assert "had ended already" in ending.down(workspace)
    assert left_over(workspace) is None
    assert not folder.code.exists()
    with pytest.raises(MachineUnfitError, match="no cluster is up from this workspace"):
        ending.down(workspace)


def test_down_in_a_folder_without_a_cluster_makes_nothing(workspace):
    workspace.root.mkdir()
    with pytest.raises(MachineUnfitError, match="no cluster is up from this workspace"):
        ending.down(workspace)
    assert list(workspace.root.iterdir()) == []
