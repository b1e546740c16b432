import shutil
from types import SimpleNamespace

from fake_head import FakeHead, FakeProcesses, plan

from tuning.on_ray.own_node import CODE_S, OwnNode


def node(tmp_path, code_now=lambda: "same", clock=lambda: 0.0):
    processes = FakeProcesses(FakeHead(), tmp_path / "node", "0001")
    return OwnNode(plan(tmp_path, code_now=code_now), "10.0.0.2", processes, is_head=False, clock=clock)


def test_a_node_says_that_it_sends_its_trials_away_and_that_it_takes_work_again(tmp_path):
    own = node(tmp_path)
    own.send_trials_away("unfit", "its disk is full")
    assert (own.record().state, own.record().why) == ("unfit", "its disk is full")
    assert own.processes.node_folder.leaving() == "its disk is full"
    own.take_work()
    assert (own.record().state, own.record().why) == ("ready", "")
    assert own.processes.node_folder.leaving() is None


def test_the_code_is_read_again_now_and_then_not_every_time(tmp_path):
    now, read = [100.0], []

    def code_now():
        read.append(now[0])
        return "changed"

    own = node(tmp_path, code_now, lambda: now[0])
    assert own.unfit() is None
    assert read == []
    now[0] += CODE_S
    assert "has changed" in own.unfit()
    assert "has changed" in own.unfit()
    assert read == [100.0 + CODE_S]


def test_the_fuller_of_both_disks_counts(tmp_path, monkeypatch):
    own = node(tmp_path)
    free = {tmp_path: 9e9, own.processes.node_folder.path: 9e9}
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free[folder]))
    assert own.unfit() is None
    for folder in free:
        free[folder] = 1e6
        assert "disk is full, with 1 MB left" in own.unfit()
        free[folder] = 9e9


def test_a_clock_far_from_the_heads_makes_it_unfit(tmp_path):
    assert "behind the head's" in node(tmp_path).unfit(clock_off_s=7200.0)
