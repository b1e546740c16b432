import pickle
from types import SimpleNamespace

import pytest
from ray.tune.search import Searcher as RaySearcher

from tuning.ledger import EpochReport, Row
from tuning.on_ray import messages
from tuning.on_ray.callbacks import Callback, FirstError, Searcher, Stopper, trial_name
from tuning.on_ray.trial_task import Task


class Decided:
    """In place of the decisions: answers as set, and keeps what it is called with."""

    def __init__(self):
        self.rows = []
        self.has_no_more = False
        self.memory_mb = 450.0
        self.has_left = False
        self.only_awaits_forecast = False
        self.has_row = True
        self.calls = []

    def next_row(self):
        return self.rows.pop(0) if self.rows else None

    def reported(self, row, attempt, report, *, stopped):
        self.calls.append(("reported", row, attempt, report, stopped))

    def gives_row_back(self, row, attempt):
        self.calls.append(("gives back", row, attempt))
        return self.has_row

    def left(self, row):
        self.calls.append(("left", row))

    def attempt(self, row):
        return 7

    def lost(self, row, error):
        self.calls.append(("lost", row, error))


@pytest.fixture
def decided():
    return Decided()


@pytest.fixture
def errors():
    return FirstError()


@pytest.fixture
def callback(decided, errors):
    return Callback(decided, errors, lambda: decided.calls.append("tick"))


def ray_trial(row, error_file=None):
    return SimpleNamespace(trial_id="ab12", config={"row": row}, error_file=error_file)


def failing(error):
    def fail(*_, **__):
        raise error

    return fail


def test_ray_is_given_the_next_row_with_its_task(decided, errors):
    row = Row(3, {"x": 0.5}, "optuna", reports=(EpochReport(1, 0.2), EpochReport(2, 0.3)), halvings=1)
    decided.rows = [row]
    config = Searcher(decided, errors, lambda: None, most=9).suggest("ab12")
    assert config["row"] == 3
    assert Task.from_ray(config) == Task(3, 7, {"x": 0.5}, 2, 450.0, 1) == Task.of(row, 7, 450.0)


def test_without_a_row_ray_asks_again_until_there_are_no_more(decided, errors):
    searcher = Searcher(decided, errors, lambda: None, most=9)
    assert searcher.suggest("ab12") is None
    decided.has_no_more = True
    assert searcher.suggest("ab12") == RaySearcher.FINISHED


def test_while_a_forecast_is_all_that_is_waited_for_the_search_goes_on_ticking(decided, errors):
    ticks = []
    decided.only_awaits_forecast = True

    def tick():
        ticks.append(1)
        if len(ticks) == 3:
            decided.rows = [Row(0, {"x": 0.5}, "default")]

    assert Searcher(decided, errors, tick, most=9).suggest("ab12")["row"] == 0
    assert len(ticks) == 3


def test_while_nothing_runs_each_question_is_a_tick_since_ray_calls_nothing_else(decided, errors):
    ticks = []
    searcher = Searcher(decided, errors, lambda: ticks.append(1), most=9)
    assert [searcher.suggest("ab12") for _ in range(3)] == [None] * 3
    assert len(ticks) == 3


def test_asked_to_leave_while_a_forecast_is_waited_for_it_leaves(decided, errors):
    decided.only_awaits_forecast = True

    def leave():
        decided.only_awaits_forecast, decided.has_no_more = False, True

    assert Searcher(decided, errors, leave, most=9).suggest("ab12") == RaySearcher.FINISHED


def test_ray_gets_so_many_rows_at_most_and_none_is_taken_for_it_after_that(decided, errors):
    decided.rows = [Row(number, {"x": number}, "optuna") for number in range(3)]
    searcher = Searcher(decided, errors, lambda: None, most=2)
    assert [searcher.suggest("ab12")["row"] for _ in range(2)] == [0, 1]
    assert searcher.suggest("ab12") == RaySearcher.FINISHED
    assert [row.number for row in decided.rows] == [2]


def test_asking_in_vain_counts_as_no_row(decided, errors):
    searcher = Searcher(decided, errors, lambda: None, most=1)
    assert searcher.suggest("ab12") is None
    decided.rows = [Row(0, {"x": 0}, "default")]
    assert searcher.suggest("ab12")["row"] == 0


def test_ray_s_run_ends_when_the_search_has_left_and_no_trial_by_itself(decided):
    stopper = Stopper(decided)
    assert not stopper.stop_all()
    decided.has_left = True
    assert stopper.stop_all()
    assert not stopper("ab12", {})


@pytest.mark.parametrize(("result", "stopped"), [({}, False), ({"done": False}, False), ({"done": True}, True)])
def test_a_message_is_delivered_with_whether_the_scheduler_stops_the_trial(decided, callback, result, stopped):
    report = EpochReport(1, 0.5)
    sent = messages.as_result(messages.reported(report), 2) | result
    callback.on_trial_result(0, [], ray_trial(4), sent)
    assert decided.calls == [("reported", 4, 2, report, stopped)]


def test_a_trial_that_is_complete_has_left(decided, callback):
    callback.on_trial_complete(0, [], ray_trial(4))
    assert decided.calls == [("left", 4)]


def test_a_lost_process_is_passed_on_with_the_last_line_of_its_error(decided, callback, tmp_path):
    (tmp_path / "error").write_text("Traceback ...\nActorDiedError: killed by SIGKILL\n\n")
    callback.on_trial_error(0, [], ray_trial(4, str(tmp_path / "error")))
    assert decided.calls == [("lost", 4, "ActorDiedError: killed by SIGKILL"), ("left", 4)]


@pytest.mark.parametrize("error_file", [None, "/no/such/file"])
def test_a_process_whose_error_is_unknown_is_lost_and_then_gone(decided, callback, error_file):
    callback.on_trial_error(0, [], ray_trial(4, error_file))
    assert decided.calls == [("lost", 4, "no word of why"), ("left", 4)]


def test_of_a_trial_that_gave_its_row_back_nothing_more_is_passed_on(decided, callback):
    trial = SimpleNamespace(trial_id="ab12", config={"row": 4, "task": "{...}"}, error_file=None)
    callback.on_trial_result(0, [], trial, messages.as_result(messages.GIVES_ROW_BACK, 2))
    for call in (callback.on_trial_complete, callback.on_trial_error):
        call(0, [], trial)
    assert decided.calls == [("gives back", 4, 2)]
    callback.on_trial_complete(0, [], SimpleNamespace(trial_id="other", config={"row": 4}))
    assert decided.calls[-1] == ("left", 4)


def test_a_trial_that_had_no_row_to_give_back_is_one_as_any_other(decided, callback):
    trial = SimpleNamespace(trial_id="ab12", config={"row": 4, "task": "{...}"}, error_file=None)
    decided.has_row = False
    callback.on_trial_result(0, [], trial, messages.as_result(messages.GIVES_ROW_BACK, 2))
    callback.on_trial_complete(0, [], trial)
    assert decided.calls == [("gives back", 4, 2), ("left", 4)]


def test_each_step_of_ray_s_loop_is_a_tick(decided, callback):
    callback.on_step_begin(0, [])
    assert decided.calls == ["tick"]


def test_the_first_error_of_any_callback_is_kept_and_raised(decided, errors):
    first, second = OSError("No space left"), OSError("again")
    decided.next_row = failing(first)
    decided.left = decided.lost = decided.reported = failing(second)
    with pytest.raises(OSError, match="No space left"):
        Searcher(decided, errors, lambda: None, most=9).suggest("ab12")
    callback = Callback(decided, errors, failing(second))
    for call in (callback.on_trial_complete, callback.on_trial_error):
        with pytest.raises(OSError, match="again"):
            call(0, [], ray_trial(1))
    assert errors.error is first


@pytest.mark.parametrize("name", ["on_step_begin", "on_trial_complete", "on_trial_error"])
def test_an_error_of_each_callback_is_kept(decided, errors, name):
    decided.left = decided.lost = failing(OSError("full"))
    callback = Callback(decided, errors, failing(OSError("full")))
    arguments = (0, []) if name == "on_step_begin" else (0, [], ray_trial(1))
    with pytest.raises(OSError, match="full"):
        getattr(callback, name)(*arguments)
    assert str(errors.error) == "full"


def test_an_error_in_a_report_is_kept(decided, errors, callback):
    decided.reported = failing(OSError("full"))
    with pytest.raises(OSError, match="full"):
        callback.on_trial_result(0, [], ray_trial(1), messages.as_result(messages.reported(EpochReport(1, 0.5)), 1))
    assert str(errors.error) == "full"


def test_what_ray_pickles_of_them_is_empty(decided, errors, callback):
    decided.unpicklable = lambda: None
    for each in (Searcher(decided, errors, lambda: None, most=9), Stopper(decided), callback):
        assert vars(pickle.loads(pickle.dumps(each))) == {}  # noqa: S301


def test_a_trial_is_named_by_its_row():
    assert trial_name(ray_trial(7)) == "row-00007-ab12"
