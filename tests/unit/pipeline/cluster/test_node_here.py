import os

import pytest

from pipeline.cluster import node_here
from pipeline.errors import MachineUnfitError


def test_a_laptop_is_one_node_at_a_time_and_says_of_what():
    assert node_here.find() is None
    with node_here.only_one("head", "/home/me/work"):
        found = node_here.find()
        assert (found.kind, found.of, found.pid) == ("head", "/home/me/work", os.getpid())
        with (
            pytest.raises(
                MachineUnfitError, match=rf"of the workspace /home/me/work already \(process {os.getpid()}"
            ),
            node_here.only_one("member", "192.168.1.10"),
        ):
            pass
    assert node_here.find() is None
    assert not node_here._path().exists()
    with (
        node_here.only_one("member", "192.168.1.10"),
        pytest.raises(MachineUnfitError, match=r"in the cluster of 192\.168\.1\.10 already"),
        node_here.only_one("head", "/x"),
    ):
        pass


def test_what_a_killed_process_has_left_is_no_node(monkeypatch):
    with node_here.only_one("head", "/x"):
        content = node_here._path().read_bytes()
    node_here._path().write_bytes(content)
    assert node_here.find() is None
    with node_here.only_one("member", "b"):
        assert node_here.find().of == "b"


def test_a_node_without_a_readable_file_still_counts():
    with node_here.only_one("head", "/x"):
        node_here._path().write_text("{")
        with (
            pytest.raises(MachineUnfitError, match="in a cluster already; leave it first"),
            node_here.only_one("head", "/y"),
        ):
            pass


def test_errors_inside_are_not_taken_for_its_own():
    with pytest.raises(OSError, match="elsewhere"), node_here.only_one("head", "/x"):
        raise OSError(5, "elsewhere")
    assert node_here.find() is None
