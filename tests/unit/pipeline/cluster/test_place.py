import pytest

from pipeline.cluster.place import Place, place_of_search
from pipeline.cluster.workspace_cluster import ClusterAccess, ClusterFolder, HeadHere
from pipeline.errors import MachineUnfitError
from tuning.cluster.join_code import JoinCode

ACCESS = ClusterAccess(HeadHere("192.168.1.10", 6480, "desk", 1), JoinCode.new("PQRST"))


@pytest.fixture
def folder(workspace):
    return ClusterFolder(workspace.cluster)


def test_without_a_cluster_a_search_runs_on_this_laptop(workspace):
    assert place_of_search(workspace) == Place()


def test_the_cluster_that_is_up_is_used(workspace, folder):
    with folder.held():
        folder.write(ACCESS)
        place = place_of_search(workspace)
    assert (place.address, place.token, place.note) == ("192.168.1.10:6480", ACCESS.code.token, "")
    assert ACCESS.code.token not in repr(place)


def test_one_that_is_being_started_is_waited_for_by_the_user(workspace, folder):
    with folder.held(), pytest.raises(MachineUnfitError, match=r"being started.*--local"):
        place_of_search(workspace)


def test_one_that_ended_without_down_leaves_the_search_to_this_laptop_and_says_so(workspace, folder):
    with folder.held():
        folder.write(ACCESS)
    place = place_of_search(workspace)
    assert (place.address, place.token) == (None, None)
    assert "ended without `seqpipe cluster down`" in place.note
    folder.forget()
    assert place_of_search(workspace).note == ""
