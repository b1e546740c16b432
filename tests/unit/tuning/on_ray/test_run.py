"""One run of a search, with a Tune that plays the script of a test, in place of Ray's."""

import weakref

import pytest
from fake_ray import NODE
from ray import tune
from ray.exceptions import OutOfMemoryError
from ray.tune.schedulers import FIFOScheduler

from tuning.capacity import Capacity, Node
from tuning.errors import ClusterError
from tuning.ledger import EpochReport, Finish, Ledger
from tuning.observer import Observer
from tuning.on_ray import messages, run
from tuning.on_ray.asha import LedgerAsha
from tuning.on_ray.run import ASK_S, MEASURE_S, TICK_S, TuneRun
from tuning.on_ray.shared_files import SharedFiles
from tuning.on_ray.trial_task import Task
from tuning.settings import Settings
from tuning.space import Space
from tuning.trial import PickledObjective

OBJECTIVE = PickledObjective(b"objective", b"warm-up", ())
PLAN = Capacity(500, 2, (Node("one", 4, 4000),), (2,), 2.0)
COMPLETED = Finish("completed", value=0.5, epochs=3)


class Tuners:
    """In place of the class `tune.Tuner`: makes tuners of which each plays the next step of a script."""

    def __init__(self):
        self.script = []
        self.made = []

    def __call__(self, trainable, tune_config, run_config):
        self.made.append(Tuner(self.script.pop(0), trainable, tune_config, run_config))
        return self.made[-1]


class Tuner:
    def __init__(self, step, trainable, tune_config, run_config):
        self.step, self.trainable, self.config, self.run_config = step, trainable, tune_config, run_config
        [self.callback] = run_config.callbacks

    def fit(self):
        self.step(self)

    def suggest(self):
        """The row that the searcher hands out next, as Ray's trial."""
        config = self.config.search_alg.suggest("ab12")
        if not isinstance(config, dict):
            return config
        return type("RayTrial", (), {"trial_id": "ab12", "config": config, "error_file": None})

    def report(self, trial, message):
        attempt = Task.from_ray(trial.config).attempt
        self.callback.on_trial_result(0, [], trial, messages.as_result(message, attempt))

    def complete(self, trial, finish=COMPLETED):
        self.report(trial, messages.started("here"))
        self.report(trial, messages.finished(finish))
        self.callback.on_trial_complete(0, [], trial)


class Notes(Observer):
    def __init__(self):
        self.notes = []
        self.states = []

    def noted(self, text):
        self.notes.append(text)

    def ticked(self, state):
        self.states.append(state)


class Search:
    def __init__(self, ray, ledger, tuners, **settings):
        self.tuners = tuners
        self.ledger = ledger
        self.observer = Notes()
        self.leaving = False
        self.watch = settings.pop("watch", None)
        chosen = Settings(**{"trials": 1, "max_epochs": 3, "scheduler": "none", "restarts": 2, **settings})
        ledger.raise_target(chosen.trials)
        self.run = TuneRun(
            ledger,
            Space.parse({"x": {"uniform": [0, 1]}}),
            {"x": 0.5},
            OBJECTIVE,
            chosen,
            PLAN,
            SharedFiles("/data", ()),
            self.observer,
            lambda: self.leaving,
            began=ray.now,
            watch=self.watch,
            clock=ray.clock,
        )

    @property
    def store(self):
        return self.run._store.handle

    def play(self, *script):
        self.tuners.script = list(script)
        return self.run.run()


@pytest.fixture
def begin(ray, tmp_path, monkeypatch):
    tuners = Tuners()
    monkeypatch.setattr(run.tune, "Tuner", tuners)
    monkeypatch.setattr(run, "tree_memory_mb", lambda pid: 70.0)
    ledgers = []

    def begin(**settings):
        ledgers.append(Ledger(tmp_path / "search", {"model": "toy"}))
        return Search(ray, ledgers[-1], tuners, **settings)

    yield begin
    for ledger in ledgers:
        ledger.close()


def all_rows(tuner):
    while isinstance(trial := tuner.suggest(), type):
        tuner.complete(trial)


def failing(error):
    def fail(*_):
        raise error

    return fail


def test_a_search_that_has_its_trials_is_finished(begin):
    search = begin(trials=2)
    assert search.play(all_rows) == "finished"
    assert [row.finish for row in search.ledger.rows] == [COMPLETED, COMPLETED]


def test_tune_knows_what_a_trial_takes_and_never_starts_one_again_by_itself(begin):
    search = begin(trials=1, cpus_per_trial=2.0, restarts=5)
    search.play(all_rows)
    [tuner] = search.tuners.made
    assert tune_resources(tuner) == {"CPU": 2.0, "memory": PLAN.request_bytes}
    assert tuner.run_config.failure_config.max_failures == 0
    assert tuner.config.num_samples == -1
    assert tuner.config.reuse_actors
    assert isinstance(tuner.config.scheduler, FIFOScheduler)


def tune_resources(tuner):
    return tuner.trainable._resources.required_resources


def test_asha_starts_with_what_the_ledger_knows(begin):
    search = begin(trials=3, scheduler="asha", grace_epochs=1, reduction_factor=2)
    row = search.ledger.propose({"x": 0.1}, "default")
    search.ledger.report(row.number, EpochReport(1, 0.9))
    search.ledger.finish(row.number, COMPLETED)
    search.play(all_rows)
    scheduler = search.tuners.made[0].config.scheduler
    assert isinstance(scheduler, LedgerAsha)
    trial = type("RayTrial", (), {"config": {"row": 1}})
    scheduler.on_trial_add(None, trial)
    assert scheduler.on_trial_result(None, trial, {"epoch": 1, "value": 0.1}) == "STOP"


def test_a_trial_worker_gets_its_task_and_what_all_trials_share(begin, monkeypatch):
    called = []
    monkeypatch.setattr(run, "run_trial", lambda *arguments: called.append(arguments))

    def one(tuner):
        trial = tuner.suggest()
        tuner.trainable(trial.config)
        tuner.complete(trial)

    search = begin(mode="min", grace_s=9.0, reserve_mb=300)
    search.play(one)
    [(task, objective, settings, store)] = called
    assert task == Task(0, 1, {"x": 0.5}, 0, PLAN.cap_mb)
    assert objective is OBJECTIVE
    assert (settings.mode, settings.cap_mb, settings.grace_s, settings.drivers_node) == ("min", 500, 9.0, NODE)
    assert (settings.reserve_mb, settings.in_cluster) == (300, False)
    assert (settings.search, settings.max_epochs) == ("search", 3)
    assert store is search.store


def test_a_row_that_was_given_back_is_another_trial_and_another_attempt(begin):
    def move(tuner):
        trial = tuner.suggest()
        trial.trial_id = "waits"
        tuner.report(trial, messages.GIVES_ROW_BACK)
        again = tuner.suggest()
        assert Task.from_ray(again.config).attempt == Task.from_ray(trial.config).attempt + 1
        assert again.config["row"] == trial.config["row"]
        tuner.callback.on_trial_complete(0, [], trial)
        assert not search.run.decisions.is_done
        tuner.complete(again)

    search = begin(trials=1)
    assert search.play(move) == "finished"
    assert search.ledger.rows[0].finish == COMPLETED


def test_trials_without_a_row_are_asked_to_leave_when_the_search_has_all_of_its_trials(begin, ray):
    def wait(tuner):
        trial = tuner.suggest()
        trial.trial_id = "waits"
        tuner.report(trial, messages.GIVES_ROW_BACK)
        again = tuner.suggest()
        steps(tuner, ray, 2, ASK_S + 0.01)
        assert "ask_to_stop" not in search.store.calls
        tuner.complete(again)
        steps(tuner, ray, 1, ASK_S)
        assert search.store.target.stop_asked()

    search = begin(trials=1)
    assert search.play(wait) == "finished"


def test_what_is_sent_to_the_workers_does_not_hold_the_search(begin):
    search = begin()
    held = [cell.cell_contents for cell in search.run._trainable().__closure__]
    assert search.run not in held
    assert search.run.decisions not in held


def test_a_row_whose_process_was_lost_at_the_end_of_ray_s_run_is_run_again(begin):
    def lost(tuner):
        trial = tuner.suggest()
        tuner.report(trial, messages.started("here"))
        tuner.callback.on_trial_error(0, [], trial)

    search = begin(trials=1)
    assert search.play(lost, all_rows) == "finished"
    assert len(search.tuners.made) == 2
    assert search.ledger.rows[0].finish == COMPLETED
    assert "lost its process" in search.observer.notes[0]


def test_after_a_number_of_trials_tune_is_started_anew(begin, monkeypatch):
    monkeypatch.setattr(run, "TRIALS_PER_TUNER", 2)
    search = begin(trials=5)
    assert search.play(all_rows, all_rows, all_rows) == "finished"
    assert len(search.tuners.made) == 3
    assert [row.finish for row in search.ledger.rows] == [COMPLETED] * 5


class RaysTrial:
    """Refers to itself, as Ray's trials do by way of its controller."""

    def __init__(self):
        self.me = self


def test_nothing_is_left_of_a_tune_when_the_next_one_starts(begin, monkeypatch):
    monkeypatch.setattr(run, "TRIALS_PER_TUNER", 1)
    kept = []

    def first(tuner):
        kept.append(weakref.ref(RaysTrial()))
        all_rows(tuner)

    def second(tuner):
        assert kept[0]() is None
        all_rows(tuner)

    assert begin(trials=2).play(first, second) == "finished"


def test_after_ray_s_memory_monitor_ended_a_trial_the_search_goes_on_with_it(begin):
    def ended(tuner):
        tuner.report(tuner.suggest(), messages.started("here"))
        raise OutOfMemoryError("the node is low on memory")

    def again(tuner):
        tuner.complete(tuner.suggest())

    search = begin(trials=1, restarts=2)
    assert search.play(ended, again) == "finished"
    assert search.observer.notes == ["Ray's own memory monitor ended a trial; the search goes on"]
    assert search.ledger.rows[0].finish == COMPLETED


def test_a_memory_monitor_that_keeps_ending_trials_ends_the_search_with_what_to_do(begin):
    search = begin(restarts=2)
    fails = failing(OutOfMemoryError("low"))
    with pytest.raises(ClusterError, match="RAY_memory_monitor_refresh_ms=0"):
        search.play(fails, fails, fails)
    assert len(search.observer.notes) == 2


def as_ray_raises(step):
    """Ray makes text of what its callbacks raise."""

    def fit(tuner):
        try:
            step(tuner)
        except Exception as error:
            raise tune.TuneError(f"in a callback: {error}") from None

    return fit


def test_an_error_of_the_observer_s_ends_the_search_as_itself(begin):
    search = begin()
    full = OSError(28, "No space left on device")
    search.observer.ticked = failing(full)
    with pytest.raises(OSError, match="No space left") as caught:
        search.play(as_ray_raises(lambda tuner: tuner.callback.on_step_begin(0, [])))
    assert caught.value is full


def test_an_error_of_ray_s_own_stays_one(begin):
    with pytest.raises(tune.TuneError, match="in a callback: its own"):
        begin().play(as_ray_raises(failing(ValueError("its own"))))


def test_a_silent_store_costs_the_space_of_a_checkpoint_and_not_the_search(begin, ray):
    search = begin(trials=2)
    search.store.silent = {"drop"}
    assert search.play(all_rows) == "finished"
    assert search.observer.notes == ["the checkpoint of trial 1 is deleted by the next command"]
    assert search.run.decisions.freed_bytes == 0


def test_the_space_of_losing_trials_is_counted(begin):
    search = begin(trials=2)
    search.store.target.drop = lambda row: 1000
    search.play(all_rows)
    assert search.run.decisions.freed_bytes == 1000


def steps(tuner, ray, count, seconds):
    for _ in range(count):
        tuner.callback.on_step_begin(0, [])
        ray.now += seconds


def test_the_stop_is_asked_for_again_and_again_so_that_a_restarted_store_knows_it(begin, ray):
    search = begin()

    def leave(tuner):
        trial = tuner.suggest()
        tuner.report(trial, messages.started("here"))
        steps(tuner, ray, 3, ASK_S)
        assert "ask_to_stop" not in search.store.calls
        search.leaving = True
        steps(tuner, ray, 3, ASK_S + 0.01)
        assert search.store.calls.count("ask_to_stop") == 3
        steps(tuner, ray, 4, ASK_S / 4)
        assert search.store.calls.count("ask_to_stop") == 4, "a few times a second are enough"
        assert search.store.target.stop_asked()
        assert not tuner.run_config.stop.stop_all(), "a trial is still saving"
        tuner.callback.on_trial_complete(0, [], trial)
        assert tuner.run_config.stop.stop_all()

    assert search.play(leave) == "asked"


def test_the_observer_gets_the_state_each_second_with_the_most_memory_measured(begin, ray, monkeypatch):
    measured = iter([70.0, 90.0, 80.0])
    monkeypatch.setattr(run, "tree_memory_mb", lambda pid: next(measured))
    search = begin()

    def watch(tuner):
        steps(tuner, ray, 22, TICK_S / 2)
        all_rows(tuner)

    search.play(watch)
    assert len(search.observer.states) == 12, "the last one when Ray asks for a row in vain"
    assert search.run.overhead_mb == 90.0
    assert search.observer.states[-1].overhead_mb == 90.0
    assert next(measured, None) is None, f"every {MEASURE_S} s"


def test_ray_s_own_state_is_thrown_away(begin, tmp_path):
    throwaway = tmp_path / "search" / run.THROWAWAY

    def look(tuner):
        assert not throwaway.exists(), "nothing of an earlier run"
        assert tuner.run_config.storage_path == str(throwaway)
        throwaway.mkdir()
        all_rows(tuner)

    search = begin()
    throwaway.mkdir()
    search.play(look)
    assert not throwaway.exists()


def test_it_is_thrown_away_after_an_error_too(begin, tmp_path):
    def fail(tuner):
        (tmp_path / "search" / run.THROWAWAY).mkdir()
        raise tune.TuneError("its own")

    with pytest.raises(tune.TuneError):
        begin().play(fail)
    assert not (tmp_path / "search" / run.THROWAWAY).exists()


# -- nodes that come and go


class Watch:
    def __init__(self, *nodes):
        self.now = nodes
        self.said = []
        self.is_gone = False

    def nodes(self):
        self.require_head()
        return self.now

    def require_head(self):
        if self.is_gone:
            raise ClusterError("the head is gone")

    def say(self, summary):
        self.said.append(summary)


ONE, TWO = Node("one", 4, 4000, "1"), Node("two", 2, 4000, "2")


def test_as_many_trials_run_as_the_nodes_hold_at_this_moment(begin, ray):
    watch = Watch(ONE)
    search = begin(trials=9, cpus_per_trial=2.0, watch=watch)

    def follow(tuner):
        rows = [tuner.suggest() for _ in range(2)]
        assert tuner.suggest() is None
        watch.now = (ONE, TWO)
        ray.now += TICK_S
        assert tuner.suggest() is None, "the nodes are looked at, after the question"
        rows.append(tuner.suggest())
        assert search.observer.notes == ["two joined: 1 more trial at once"]
        assert search.store.target.has_other_nodes()
        assert search.observer.states[-1].nodes == ("one", "two")
        for trial, node in zip(rows, ("one", "one", "two"), strict=True):
            tuner.report(trial, messages.started(node))
        watch.now = (ONE,)
        steps(tuner, ray, 2, TICK_S)
        assert search.observer.notes[1:] == ["two is gone: its trial 2 goes on elsewhere"]
        assert not search.store.target.has_other_nodes()
        assert search.run.capacity.concurrency == 2
        tuner.callback.on_trial_error(0, [], rows[2])
        assert len(search.observer.notes) == 2, "the user has read it"
        for trial in rows[:2]:
            tuner.report(trial, messages.finished(COMPLETED))
            tuner.callback.on_trial_complete(0, [], trial)
        again = tuner.suggest()
        assert again.config["row"] == rows[2].config["row"]
        tuner.complete(again)
        all_rows(tuner)

    assert search.play(follow) == "finished"
    assert watch.said[-1].target == 9
    assert watch.said[-1].name == "search"


def test_trials_know_that_they_are_in_a_cluster(begin, monkeypatch):
    called = []
    monkeypatch.setattr(run, "run_trial", lambda *arguments: called.append(arguments))

    def one(tuner):
        trial = tuner.suggest()
        tuner.trainable(trial.config)
        tuner.complete(trial)

    begin(watch=Watch(ONE)).play(one)
    assert called[0][2].in_cluster


def test_a_head_that_is_gone_ends_the_run_as_itself(begin, ray):
    watch = Watch(ONE)
    watch.is_gone = True
    with pytest.raises(ClusterError, match="the head is gone"):
        begin(watch=watch).play(as_ray_raises(lambda tuner: tuner.callback.on_step_begin(0, [])))


def test_what_was_sent_is_asked_of_the_store_where_there_may_be_other_nodes(begin):
    search = begin(watch=Watch(ONE))
    search.store.target.sent = lambda: {"two": [1, 2, 3]}
    assert search.run.sent()["two"].received_bytes == 3
    assert begin().run.sent() == {}
