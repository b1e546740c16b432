import os
import stat

import pytest

from pipeline.cluster.workspace_cluster import ClusterAccess, ClusterFolder, HeadHere, left_over, running
from pipeline.errors import MachineUnfitError, WorkspaceError
from tuning.cluster.join_code import JoinCode

ACCESS = ClusterAccess(HeadHere("192.168.1.10", 6480, "a", 123, 4, 5000, 800), JoinCode.new("PQRST"))


@pytest.fixture
def folder(workspace):
    return ClusterFolder(workspace.cluster)


def test_a_cluster_is_found_from_its_first_answer_until_its_up_has_ended(workspace, folder):
    assert running(workspace) is None
    with folder.held():
        assert running(workspace) is None, "it is being started"
        folder.write(ACCESS)
        assert running(workspace) == ACCESS
        assert left_over(workspace) is None
    assert running(workspace) is None
    assert left_over(workspace) == ACCESS, "it has ended without `down`"


def test_while_the_next_up_starts_what_the_one_before_left_is_no_running_cluster(workspace, folder):
    with folder.held():
        folder.write(ACCESS)
    with folder.held():
        assert running(workspace) is None
        assert left_over(workspace) == ACCESS
    assert left_over(workspace) == ACCESS, "it did not come up"
    with folder.held():
        folder.write(ACCESS)
        assert left_over(workspace) is None


def test_nothing_is_left_of_a_cluster_that_is_forgotten(workspace, folder):
    with folder.held():
        folder.write(ACCESS)
        folder.ask_to_end()
        folder.forget()
    assert left_over(workspace) is None
    assert {path.name for path in folder.path.iterdir()} <= {"up.lock"}


def test_the_join_code_is_for_its_owner_s_eyes_only_and_in_no_other_file(folder):
    with folder.held():
        folder.write(ACCESS)
        assert stat.S_IMODE(folder.code.stat().st_mode) == 0o600
        assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
        for path in folder.path.iterdir():
            assert path == folder.code or ACCESS.code.secret[:5] not in path.read_text()
    assert ACCESS.token not in repr(ACCESS)
    assert ACCESS.code.secret not in repr(ACCESS)


def test_a_second_up_is_told_what_to_type_where(folder):
    with folder.held():
        with pytest.raises(MachineUnfitError, match="being started already"), folder.held():
            pass
        folder.write(ACCESS)
        with pytest.raises(MachineUnfitError, match=r"up already \(process 123\).* at 192\.168\.1\.10"):
            folder.require_free()
    folder.require_free()


def test_a_request_to_end_is_for_the_up_that_lives_and_not_for_the_next(folder):
    with folder.held():
        assert not folder.is_asked_to_end()
        folder.ask_to_end()
        assert folder.is_asked_to_end()
    with folder.held():
        assert not folder.is_asked_to_end()


@pytest.mark.parametrize("damage", ["{", "{}", "[1]"])
def test_a_damaged_file_is_no_cluster(workspace, folder, damage):
    with folder.held():
        folder.write(ACCESS)
        folder.place.write_text(damage)
        assert running(workspace) is None
    folder.place.unlink()
    folder.left_over.write_text(damage)
    assert left_over(workspace) is None


def test_a_damaged_code_is_no_cluster(workspace, folder):
    with folder.held():
        folder.write(ACCESS)
        folder.code.write_text("K7QFM")
        assert running(workspace) is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_another_user_s_code_is_told(workspace, folder):
    with folder.held():
        folder.write(ACCESS)
        folder.code.chmod(0)
        with pytest.raises(WorkspaceError, match="run this as the user who started the cluster"):
            running(workspace)


def test_an_address_is_typed_without_the_usual_port():
    assert (ACCESS.address, ACCESS.head.typed) == ("192.168.1.10:6480", "192.168.1.10")
    assert HeadHere("fd00::1", 7000, "a", 1).typed == HeadHere("fd00::1", 7000, "a", 1).address == "[fd00::1]:7000"


def test_errors_of_what_is_done_with_the_lock_are_not_taken_for_its_own(folder):
    with pytest.raises(OSError, match="elsewhere"), folder.held():
        raise OSError(5, "elsewhere")
