import threading
import time

import pytest

from tuning.errors import ClusterError
from tuning.on_ray import node_watch
from tuning.on_ray.head_watch import GONE_S, HeadWatch
from tuning.on_ray.node_watch import NodeWatch
from tuning.on_ray.probe import Nothing
from tuning.waiting import is_anything_stuck


def test_a_head_is_gone_once_nothing_has_listened_for_half_a_second():
    now, answer = [10.0], [None]
    watch = HeadWatch("host:1", lambda _: answer[0], lambda: now[0])
    assert watch.is_alive()
    answer[0] = Nothing("refused", refused=True)
    assert watch.is_alive()
    now[0] += GONE_S / 2
    assert watch.is_alive()
    answer[0] = None
    assert watch.is_alive()
    answer[0] = Nothing("refused", refused=True)
    assert watch.is_alive(), "the time begins anew"
    now[0] += GONE_S
    assert not watch.is_alive()


def test_a_call_that_hangs_without_the_head_is_left_and_one_line_says_why(monkeypatch):
    monkeypatch.setattr(node_watch, "HEAD_S", 0.05)
    lives, release = [True], threading.Event()

    def search() -> str:
        lives[0] = False
        release.wait(10)
        return "too late"

    with NodeWatch(lambda: [], is_head_alive=lambda: lives[0]) as watch:
        began = time.monotonic()
        with pytest.raises(ClusterError, match="head is gone; start it again"):
            watch.while_head_lives(search)
        assert time.monotonic() - began < 2
        assert is_anything_stuck(), "so the command ends by os._exit"
    release.set()


def test_a_call_that_ends_gives_what_it_gives():
    with NodeWatch(lambda: [], is_head_alive=lambda: True) as watch:
        assert watch.while_head_lives(lambda: "finished") == "finished"


def test_the_head_is_watched_while_rays_answer_about_the_nodes_does_not_come(monkeypatch):
    monkeypatch.setattr(node_watch, "HEAD_S", 0.05)
    release = threading.Event()
    with NodeWatch(lambda: release.wait(10) and [], is_head_alive=lambda: False) as watch:
        time.sleep(0.5)
        with pytest.raises(ClusterError, match="head is gone"):
            watch.require_head()
    release.set()
