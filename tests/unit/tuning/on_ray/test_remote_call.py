"""The driver's side of a remote call, with a cluster in which the test says what happens."""

import pickle
from types import SimpleNamespace

import pytest
from fake_ray import NODE, Answer, FakeRay

from tuning.capacity import WORKER_MB
from tuning.capped.run_capped import Capped, CapTooLowError
from tuning.errors import AskedToLeaveError, ClusterError, NodeLostError
from tuning.on_ray import remote_call
from tuning.on_ray.home_folder import Taken
from tuning.on_ray.remote_call import ASK_AGAIN_S, BUSY_S, HEAD_S, Listener, RemoteCall, run_there
from tuning.on_ray.remote_worker import CallEnd


def work(_):
    """What is not run in these tests."""


def node(name, cpus=2.0, memory=1e9, alive=True):
    resources = {"CPU": cpus, "memory": memory}
    return {"NodeName": name, "NodeID": NODE, "Alive": alive, "Resources": resources}


class Head:
    """What watches the head."""

    lives = True

    def __init__(self, address):
        assert address == "192.168.1.10:6480"

    def is_alive(self):
        return Head.lives


class Cluster(FakeRay):
    """`ends` are how the starts of the call end; `at` are what happens at each look, by its number."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder
        self.live = [node("A"), node("B"), node("C", alive=False)]
        self.ends = []
        self.at = {}
        self.looks = 0
        self.placed = []
        self.cancelled = []
        self.messages, self.notes, self.files = [], [], 0
        self.asked = None

    def nodes(self):
        return self.live

    def get_runtime_context(self):
        return SimpleNamespace(get_node_id=lambda: NODE, gcs_address="192.168.1.10:6480")

    def remote(self, target=None, **words):
        if target is not None:
            return super().remote(target)
        assert words == {"max_calls": 1}, "the worker ends with its call, and frees its memory"

        def options(**given):
            self.placed.append(given)
            return SimpleNamespace(remote=self.start)

        return lambda function: SimpleNamespace(options=options)

    def start(self, job, home):
        self.job, self.home = job, home.target
        self.looks = 0
        self.task = Answer(lambda: None, comes=False)
        return self.task

    def wait(self, answers, timeout):
        if answers != [self.task]:
            [self.asked_last] = answers
            return super().wait(answers, timeout)
        self.now += timeout
        self.looks += 1
        self.at.get(self.looks, lambda: None)()
        if self.looks >= 4 and self.ends:
            end = self.ends.pop(0)
            self.task.comes = True

            def result():
                if isinstance(end, Exception):
                    raise end
                return end

            self.task.call = result
        return super().wait(answers, 0.0)

    def cancel(self, task, force):
        self.cancelled.append((task, force))

    def begin(self):
        self.home.begin()

    def run(self, **words):
        call = RemoteCall(work, None, **({"node": "B", "folder": self.folder, "cap_mb": 500.0} | words))
        listener = Listener(self.messages.append, self.count, self.notes.append)
        return run_there(call, listener, lambda: self.asked, self.clock)

    def count(self):
        self.files += 1


@pytest.fixture
def ray(monkeypatch, tmp_path):
    made = Cluster(tmp_path)
    monkeypatch.setattr(remote_call, "ray", made)
    monkeypatch.setattr(remote_call, "HeadWatch", Head)
    Head.lives = True
    made.at[1] = made.begin
    return made


def capped(outcome="completed"):
    return Capped(outcome, b"value", None, None, None, None, 80.0, 10.0, 500.0, 1.0)


def test_the_call_runs_on_its_node_alone_with_cores_and_memory_set_aside(ray):
    ray.ends = [CallEnd(capped())]
    assert ray.run(cpus=1.0) == capped()
    [placed] = ray.placed
    strategy = placed.pop("scheduling_strategy")
    assert (strategy.node_id, strategy.soft) == (NODE, False)
    assert placed == {"num_cpus": 1.0, "memory": (500 + WORKER_MB) * 1_000_000, "max_retries": 0}


def test_without_a_cap_and_a_number_of_cores_it_gets_all_of_the_node(ray):
    ray.ends = [CallEnd(capped())]
    ray.run(cap_mb=None)
    assert (ray.placed[0]["num_cpus"], ray.placed[0]["memory"]) == (2.0, 1_000_000_000)
    assert ray.job.cap_mb is None


def test_home_is_kept_beside_the_driver(ray):
    ray.ends = [CallEnd(capped())]
    ray.run()
    strategy = ray.options.pop("scheduling_strategy")
    assert (strategy.node_id, strategy.soft) == (NODE, False)
    assert ray.options == {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"node": "Bob"}, "the cluster has no node named Bob; its nodes: A, B"),
        ({"node": "C"}, "the cluster has no node named C; its nodes: A, B"),
        ({"cpus": 3.0}, "B gives 2 cores, and 3 are asked for"),
        ({"cap_mb": 900.0}, "B gives 1000 MB, and 1060 are asked for"),
    ],
)
def test_what_no_node_can_do_is_refused_before_anything_starts(ray, words, said):
    with pytest.raises(ClusterError, match=said):
        ray.run(**words)
    assert ray.placed == []


def test_a_node_that_gives_nothing_is_refused(ray):
    ray.live = [node("B", cpus=0.0)]
    with pytest.raises(ClusterError, match="B gives 0 cores"):
        ray.run()


def test_what_comes_home_is_passed_on_the_last_of_it_too(ray):
    ray.at[2] = lambda: ray.home.post([pickle.dumps("one"), pickle.dumps(2)])
    ray.at[4] = lambda: (ray.home.post([pickle.dumps("last")]), ray.home.take_in([], []))
    ray.ends = [CallEnd(capped())]
    ray.run()
    assert ray.messages == ["one", 2, "last"]
    assert ray.files == 1


def test_a_busy_node_is_said_once(ray):
    ray.at = {int(BUSY_S * 10) + 3: ray.begin, int(BUSY_S * 10) + 5: lambda: ray.ends.append(CallEnd(capped()))}
    ray.run()
    assert ray.notes == ["B is busy: waiting for its cores or memory"]


def test_a_node_that_begins_at_once_is_not_busy(ray):
    ray.at[200] = lambda: ray.ends.append(CallEnd(capped()))
    ray.run()
    assert ray.notes == []


def test_a_reason_to_stop_is_passed_on_again_and_again(ray):
    def ask():
        ray.asked = "enough"

    ray.at |= {3: ask, 40: lambda: ray.ends.append(CallEnd(capped()))}
    assert ray.run() == capped()
    assert ray.home.stop_reason() == "enough"
    assert 3 <= ray.handles[0].calls.count("ask_to_stop") <= 38 * 0.1 / ASK_AGAIN_S + 1


def test_a_call_that_has_not_begun_is_given_up(ray):
    ray.at = {}
    ray.asked = "enough"
    with pytest.raises(AskedToLeaveError):
        ray.run()
    assert ray.cancelled == [(ray.task, False)]


def test_a_call_that_left_before_the_work_began_says_so(ray):
    ray.ends = [CallEnd()]
    with pytest.raises(AskedToLeaveError):
        ray.run()


def test_a_call_that_left_for_want_of_memory_is_started_again(ray):
    ray.ends = [CallEnd(capped(), left_for_room=True), CallEnd(capped())]
    ray.run()
    assert len(ray.placed) == 2
    assert ray.notes == ["B is short of memory: the work was saved, and goes on when there is room"]


def test_but_not_when_it_was_asked_to_stop_meanwhile(ray):
    def ask():
        ray.asked = "enough"

    ray.at[3] = ask
    ray.ends = [CallEnd(capped("killed"), left_for_room=True)]
    assert ray.run().outcome == "killed"
    assert len(ray.placed) == 1


@pytest.mark.parametrize("name", ["WorkerCrashedError", "NodeDiedError"])
def test_a_node_that_is_lost_is_one_line(ray, name):
    kind = getattr(ray.exceptions, name)
    ray.ends = [kind("long") if name == "NodeDiedError" else kind()]
    with pytest.raises(NodeLostError, match=r"^B, or its process that did the work, was lost in the middle of it$"):
        ray.run()


def test_a_head_that_is_lost_is_noticed_in_a_second(ray):
    ray.at[3] = lambda: setattr(Head, "lives", False)
    began = ray.now
    with pytest.raises(NodeLostError, match="head was lost"):
        ray.run()
    assert ray.now - began < 0.3 + HEAD_S


def test_a_worker_that_cannot_go_on_says_why(ray):
    error = OSError(28, "No space left on device")
    ray.ends = [ray.exceptions.RayTaskError("run_job", "", error, proctitle="", pid=1, ip="")]
    with pytest.raises(NodeLostError, match=r"^B cannot go on with the work: \[Errno 28\] No space left on device$"):
        ray.run()


def test_files_that_could_not_be_kept_at_home_are_an_error_of_the_disk_here(ray):
    ray.ends = [CallEnd(capped(), not_home=OSError(28, "full"))]
    with pytest.raises(OSError, match="full"):
        ray.run()


def test_a_cap_below_the_imports_is_refused(ray):
    ray.ends = [CallEnd(floor_mb=700.0, cap_mb=500.0)]
    with pytest.raises(CapTooLowError) as refused:
        ray.run()
    assert (refused.value.floor_mb, refused.value.cap_mb) == (700.0, 500.0)


def test_an_answer_that_is_late_is_waited_for_and_not_lost(ray):
    def silence():
        ray.handles[0].silent = {"taken"}

    def answer():
        ray.asked_last.comes, ray.asked_last.call = True, lambda: Taken(True, True, [pickle.dumps("late")])

    ray.at |= {2: silence, 20: answer, 30: lambda: ray.ends.append(CallEnd(capped()))}
    ray.run()
    assert (ray.messages, ray.files) == (["late"], 1)
    assert ray.handles[0].calls.count("taken") < 10
