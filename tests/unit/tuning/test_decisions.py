"""What a search decides, without Ray and under a clock that the test moves."""

import math

import pytest

from tuning.decisions import LOST_S, Decisions
from tuning.errors import AllTrialsFailedError
from tuning.forecast import Forecast
from tuning.ledger import EpochReport, Finish, Ledger
from tuning.observer import Observer
from tuning.settings import Settings
from tuning.space import Space

SPACE = Space.parse({"x": {"integer": [0, 2]}})
COMPLETED = Finish("completed", value=0.5)
FAILED = Finish("failed", error="no such data")
CAPPED = Finish("memory_cap", peak_mb=1012.3, cap_mb=1000)
INFEASIBLE = Finish("memory_cap", peak_mb=1240, cap_mb=1000, error="needs 1240 MB, cap 1000", is_forecast=True)


class Notes(Observer):
    def __init__(self):
        self.notes = []
        self.fitted_rows = []
        self.described_rows = []
        self.finished_rows = []

    def noted(self, text):
        self.notes.append(text)

    def fitted(self, row):
        self.fitted_rows.append(row)

    def described(self, row):
        self.described_rows.append(row)

    def finished(self, row):
        self.finished_rows.append(row)


class Forecasts:
    """In place of `Fit`: answers for each row as set, that it fits by default."""

    def __init__(self):
        self.answers = {}
        self.asked = []

    def answer(self, row, rows):
        self.asked.append(row.number)
        return self.answers.get(row.number, "fits")

    def memory_mb(self, rows):
        return 1000 - len(rows)


class Search:
    """Decisions over a ledger, with a clock and a record of what was deleted."""

    def __init__(self, folder, trials=3, concurrency=2, fit=None, **settings):
        self.now = 100.0
        self.dropped = []
        self.attempts = {}
        self.observer = Notes()
        self.fit = fit
        self.ledger = Ledger(folder, {"model": "toy"})
        self.ledger.raise_target(trials)
        self.decisions = Decisions(
            self.ledger,
            SPACE,
            {"x": 1},
            Settings(trials=trials, max_epochs=3, searcher="random", **settings),
            cap_mb=1000,
            concurrency=concurrency,
            observer=self.observer,
            begin_attempt=self._begin_attempt,
            drop_checkpoint=self._drop,
            clock=lambda: self.now,
            fit=fit,
        )

    def _begin_attempt(self, row):
        self.attempts[row] = self.attempts.get(row, 0) + 1
        return self.attempts[row]

    def lose(self, number, error="killed"):
        """The process of a row is lost, and the row handed out again."""
        self.decisions.lost(number, error)
        self.decisions.left(number)
        assert self.decisions.next_row().number == number

    def _drop(self, row):
        self.dropped.append(row)
        return 10

    def start(self):
        """The next row, training."""
        number = self.decisions.next_row().number
        self.decisions.started(number, self.decisions.attempt(number), "here")
        return number

    def end(self, finish=COMPLETED):
        """A row from its start to that end."""
        number = self.start()
        self.decisions.finished(number, self.decisions.attempt(number), finish)
        self.decisions.left(number)
        return number

    def row(self, number):
        return self.ledger.rows[number]


@pytest.fixture
def begin(tmp_path):
    searches = []

    def begin(**settings):
        searches.append(Search(tmp_path, **settings))
        return searches[-1]

    yield begin
    for search in searches:
        search.ledger.close()


def test_the_first_row_is_the_default_and_no_more_run_than_fit(begin):
    search = begin(concurrency=2)
    assert search.decisions.next_row().config == {"x": 1}
    assert search.decisions.next_row() is not None
    assert search.decisions.next_row() is None
    search.decisions.left(0)
    assert search.decisions.next_row() is not None


def test_rows_left_over_come_before_new_ones(begin, tmp_path):
    first = begin()
    first.start()
    first.ledger.close()
    again = begin()
    assert again.decisions.next_row().number == 0
    assert again.decisions.next_row().number == 1
    again.ledger.close()
    once_more = begin(concurrency=3)
    assert [once_more.decisions.next_row().number for _ in range(3)] == [0, 1, 2]


def test_a_space_without_more_configurations_ends_when_its_last_trial_has(begin):
    search = begin(trials=9, concurrency=3)
    for _ in range(3):
        search.start()
    search.decisions.left(0)
    assert search.decisions.next_row() is None
    assert not search.decisions.has_left  # two are still at work
    for number in (1, 2):
        search.decisions.finished(number, 1, COMPLETED)
        search.decisions.left(number)
    assert search.decisions.next_row() is None
    assert search.decisions.conclusion() == "exhausted"


def test_a_report_is_kept_once(begin):
    search = begin()
    number = search.start()
    for _ in range(2):
        search.decisions.reported(number, 1, EpochReport(1, 0.3))
    search.decisions.reported(number, 1, EpochReport(2, 0.4))
    assert [report.epoch for report in search.row(number).reports] == [1, 2]
    assert search.ledger.path.read_text().count('"report"') == 2


def test_a_trial_that_the_scheduler_stops_ends_with_its_best_value(begin):
    search = begin()
    number = search.start()
    search.now += 7
    search.decisions.reported(number, 1, EpochReport(1, 0.6, peak_mb=500))
    search.decisions.reported(number, 1, EpochReport(2, 0.4, peak_mb=400), stopped=True)
    finish = search.row(number).finish
    assert (finish.outcome, finish.value, finish.peak_mb, finish.duration_s) == ("stopped", 0.6, 500, 7)


def test_a_trial_stopped_while_it_was_over_its_cap_counts_as_capped(begin):
    search = begin()
    number = search.start()
    search.decisions.reported(number, 1, EpochReport(1, 0.6, peak_mb=1001), stopped=True)
    assert search.row(number).finish.outcome == "memory_cap"
    assert search.row(number).finish.value is None


def test_after_a_loss_the_earlier_attempt_has_no_say(begin):
    search = begin()
    number = search.start()
    search.lose(number)
    search.decisions.reported(number, 1, EpochReport(1, 0.3))
    search.decisions.finished(number, 1, COMPLETED)
    search.decisions.started(number, 1, "there")
    assert search.row(number).reports == ()
    assert search.row(number).finish is None
    assert search.row(number).node == "here"
    search.decisions.started(number, 2, "there")
    search.decisions.reported(number, 2, EpochReport(1, 0.3))
    assert len(search.row(number).reports) == 1


def test_a_row_that_has_ended_stays_so(begin):
    search = begin()
    number = search.end()
    search.decisions.reported(number, 1, EpochReport(3, 0.9))
    search.decisions.finished(number, 1, FAILED)
    search.decisions.lost(number, "killed")
    assert search.row(number).finish == COMPLETED
    assert search.row(number).ends == 1


def test_a_lost_process_is_begun_again_until_it_was_lost_too_often(begin):
    search = begin(restarts=2)
    number = search.start()
    for _ in range(2):
        search.decisions.lost(number, "killed")
        search.decisions.left(number)
        assert not search.decisions.has_no_more
        assert search.decisions.next_row().number == number
    search.decisions.lost(number, "killed")
    finish = search.row(number).finish
    assert (finish.outcome, finish.lost) == ("failed", True)
    assert "3 times" in finish.error


def test_when_every_trial_is_gone_the_unfinished_ones_wait_again(begin):
    search = begin()
    done, open_ = search.end(), search.start()
    assert search.decisions.restart_all()
    assert search.decisions.next_row().number == open_
    assert search.row(done).finish == COMPLETED


def test_trials_that_are_all_gone_again_and_again_are_given_up(begin):
    search = begin(restarts=2)
    search.start()
    assert [search.decisions.restart_all() for _ in range(3)] == [True, True, False]


def test_of_the_rows_that_ended_the_best_alone_keeps_its_checkpoint(begin):
    search = begin()
    search.end(Finish("completed", value=0.5))
    search.end(Finish("completed", value=0.7))
    search.end(Finish("completed", value=0.6))
    assert search.dropped == [0, 2]
    assert search.decisions.freed_bytes == 20


def test_asked_to_leave_it_waits_for_trials_that_save(begin):
    search = begin()
    number = search.start()
    assert not search.decisions.leave_if_due(asked=False)
    assert search.decisions.leave_if_due(asked=True)
    assert search.decisions.next_row() is None
    assert not search.decisions.has_left
    search.decisions.left(number)
    assert search.decisions.has_left
    assert search.decisions.conclusion() == "asked"


def test_a_trial_that_does_not_leave_is_waited_for_no_longer_than_its_grace(begin):
    search = begin(grace_s=30)
    search.start()
    search.decisions.leave_if_due(asked=True)
    search.now += 30 + LOST_S - 0.1
    assert not search.decisions.has_left
    search.now += 0.1
    assert search.decisions.has_left


def test_the_first_failures_alone_end_a_search(begin):
    search = begin(trials=3, failures_to_stop=2)
    search.end(FAILED)
    assert search.decisions.next_row() is not None
    search.decisions.started(1, 1, "here")
    search.decisions.finished(1, 1, FAILED)
    assert search.decisions.next_row() is None
    with pytest.raises(AllTrialsFailedError, match="no such data"):
        search.decisions.conclusion()
    assert search.observer.notes == ["trial 0 failed: no such data"]


@pytest.mark.parametrize("outcome", ["completed", "memory_cap", "diverged", "stopped"])
def test_one_trial_that_worked_is_enough_to_go_on(begin, outcome):
    search = begin(trials=3, failures_to_stop=2)
    search.end(Finish(outcome, value=0.1 if outcome == "completed" else None))
    search.end(FAILED)
    search.end(FAILED)
    assert search.decisions.conclusion() == "finished"


def test_failures_do_not_end_a_search_while_a_trial_has_come_further(begin):
    search = begin(trials=3, concurrency=3, failures_to_stop=2)
    numbers = [search.start() for _ in range(3)]
    search.decisions.reported(numbers[0], 1, EpochReport(1, 0.2))
    for number in numbers[1:]:
        search.decisions.finished(number, 1, FAILED)
        search.decisions.left(number)
    assert not search.decisions.has_left
    search.decisions.finished(numbers[0], 1, COMPLETED)
    assert search.decisions.conclusion() == "finished"


def test_a_search_whose_trials_all_failed_says_so_at_its_end(begin):
    search = begin(trials=2, failures_to_stop=3)
    search.end(FAILED)
    search.end(FAILED)
    with pytest.raises(AllTrialsFailedError):
        search.decisions.conclusion()


def test_a_snapshot_is_what_a_table_shows(begin):
    search = begin()
    search.end(Finish("completed", value=0.5))
    number = search.start()
    search.now += 3
    snapshot = search.decisions.snapshot(overhead_mb=70)
    assert (snapshot.running, snapshot.target, snapshot.concurrency, snapshot.cap_mb) == ({number}, 3, 2, 1000)
    assert (snapshot.elapsed_s, snapshot.best.number, snapshot.leaving, snapshot.overhead_mb) == (3, 0, False, 70)
    assert not math.isinf(snapshot.elapsed_s)


# -- trials that do not fit their cap


@pytest.fixture
def forecasts():
    return Forecasts()


def test_a_row_that_no_node_can_hold_ends_without_a_start_and_the_next_takes_its_place(begin, forecasts):
    search = begin(fit=forecasts)
    forecasts.answers = {0: INFEASIBLE, 1: INFEASIBLE}
    assert search.decisions.next_row().number == 2
    for number in (0, 1):
        assert (search.row(number).finish, search.row(number).starts) == (INFEASIBLE, 0)
    assert [row.number for row in search.observer.finished_rows] == [0, 1]
    assert search.decisions.snapshot(0).running == {2}
    assert '"started"' not in search.ledger.path.read_text()


def test_a_search_in_which_nothing_fits_has_finished_and_not_failed(begin, forecasts):
    search = begin(fit=forecasts)
    forecasts.answers = dict.fromkeys(range(3), INFEASIBLE)
    assert search.decisions.next_row() is None
    assert search.decisions.has_no_more
    assert search.decisions.conclusion() == "finished"


def test_while_a_forecast_is_awaited_the_row_is_proposed_and_nothing_else_happens(begin, forecasts):
    search = begin(fit=forecasts)
    forecasts.answers = {0: "ask later"}
    assert [search.decisions.next_row() for _ in range(3)] == [None] * 3
    assert (len(search.ledger.rows), forecasts.asked) == (1, [0, 0, 0])
    assert not search.decisions.has_no_more
    assert search.decisions.snapshot(0).running == frozenset()
    assert search.decisions.only_awaits_forecast
    forecasts.answers = {}
    assert search.decisions.next_row().number == 0
    assert not search.decisions.only_awaits_forecast


def test_a_search_whose_last_trial_has_left_awaits_no_forecast(begin, forecasts):
    search = begin(trials=1, fit=forecasts)
    forecasts.answers = {0: "ask later"}
    search.decisions.next_row()
    forecasts.answers = {}
    search.end()
    assert search.decisions.next_row() is None
    assert not search.decisions.only_awaits_forecast


def test_trials_at_work_are_not_kept_waiting_for_a_forecast(begin, forecasts):
    search = begin(fit=forecasts)
    number = search.start()
    forecasts.answers = {1: "ask later"}
    assert search.decisions.next_row() is None
    assert not search.decisions.only_awaits_forecast
    search.decisions.left(number)
    assert search.decisions.only_awaits_forecast
    search.decisions.leave_if_due(asked=True)
    assert not search.decisions.only_awaits_forecast


def test_the_last_row_is_waited_for_while_it_is_forecast(begin, forecasts):
    search = begin(trials=1, fit=forecasts)
    forecasts.answers = {0: "ask later"}
    assert search.decisions.next_row() is None
    assert not search.decisions.has_no_more, "Ray would not ask again"


def test_asked_to_leave_no_forecast_is_waited_for(begin, forecasts):
    search = begin(fit=forecasts)
    forecasts.answers = {0: "ask later"}
    search.decisions.next_row()
    assert search.decisions.leave_if_due(asked=True)
    assert search.decisions.has_left
    assert search.decisions.next_row() is None
    assert forecasts.asked == [0]
    assert search.row(0).finish is None, "it is asked for again by the next command"


def test_nothing_is_forecast_while_no_trial_could_start(begin, forecasts):
    search = begin(concurrency=1, fit=forecasts)
    search.start()
    assert search.decisions.next_row() is None
    assert (forecasts.asked, len(search.ledger.rows)) == ([0], 1)


def test_rows_of_an_earlier_run_are_forecast_too(begin, forecasts):
    first = begin(fit=forecasts)
    first.decisions.next_row()
    first.ledger.close()
    forecasts.answers = {0: INFEASIBLE}
    again = begin(fit=forecasts)
    assert again.decisions.next_row().number == 1
    assert again.row(0).finish == INFEASIBLE


def test_how_a_trial_is_fitted_is_recorded_and_shown(begin, forecasts):
    search = begin(fit=forecasts)
    number = search.start()
    search.decisions.fitted(number, 1, Forecast(912.0, "32 images at once"))
    assert (search.row(number).forecast_mb, search.row(number).fitted) == (912.0, "32 images at once")
    assert search.observer.fitted_rows == [search.row(number)]
    search.decisions.fitted(number, 0, Forecast(500.0))
    assert search.row(number).forecast_mb == 912.0, "an earlier attempt has no say"


def test_the_memory_to_plan_with_is_that_of_the_forecasts_and_else_the_cap(begin, forecasts, tmp_path):
    search = begin(fit=forecasts)
    search.start()
    assert search.decisions.memory_mb == 999
    search.ledger.close()
    assert begin().decisions.memory_mb == 1000


def hit(search):
    """A row that hits its cap, whose process has not left yet."""
    number = search.start()
    search.decisions.fitted(number, 1, Forecast(912.0))
    search.decisions.finished(number, 1, CAPPED)
    return number


def test_a_trial_that_hits_its_cap_goes_on_once_with_half_when_its_process_has_left(begin, forecasts):
    search = begin(fit=forecasts)
    number = hit(search)
    assert (search.row(number).finish, search.row(number).halvings) == (None, 1)
    assert search.dropped == [], "it goes on from its checkpoint"
    assert search.observer.notes == [
        "trial 0 hit its cap (1012 of 1000 MB, 912 were forecast) and goes on from its last checkpoint with half of "
        "what it held at once"
    ]
    assert search.decisions.next_row().number == 1, "its process is still there"
    search.decisions.left(number)
    again = search.decisions.next_row()
    assert (again.number, again.halvings) == (number, 1)
    search.decisions.started(number, 2, "here")
    search.decisions.finished(number, 2, CAPPED)
    assert search.row(number).finish == CAPPED
    search.decisions.left(number)
    assert search.decisions.next_row().number == 2
    assert search.ledger.path.read_text().count('"hit_cap"') == 1


def test_it_went_on_once_also_if_the_driver_was_killed_since(begin, forecasts):
    first = begin(fit=forecasts)
    hit(first)
    first.ledger.close()
    again = begin(fit=forecasts)
    assert again.decisions.next_row().halvings == 1
    again.decisions.started(0, 1, "here")
    again.decisions.finished(0, 1, CAPPED)
    assert again.row(0).finish == CAPPED


def test_without_forecasts_a_trial_that_hits_its_cap_has_ended(begin):
    search = begin()
    number = search.end(CAPPED)
    assert (search.row(number).finish, search.row(number).halvings) == (CAPPED, 0)
    assert search.observer.notes == []


@pytest.mark.parametrize("finish", [COMPLETED, FAILED, Finish("diverged")])
def test_a_trial_that_ended_otherwise_does_not_go_on(begin, forecasts, finish):
    search = begin(fit=forecasts)
    assert search.row(search.end(finish)).finish == finish


def test_what_hit_its_cap_has_no_say_any_more(begin, forecasts):
    search = begin(fit=forecasts)
    number = hit(search)
    search.decisions.reported(number, 1, EpochReport(1, 0.3))
    search.decisions.finished(number, 1, COMPLETED)
    assert (search.row(number).reports, search.row(number).finish) == ((), None)


def test_a_process_lost_after_it_hit_its_cap_is_no_loss_and_goes_on_with_half_alone(begin, forecasts):
    search = begin(fit=forecasts, restarts=0)
    number = hit(search)
    search.decisions.lost(number, "killed")
    assert search.row(number).finish is None
    search.decisions.left(number)
    assert search.decisions.next_row().number == number
    assert search.decisions.next_row().number != number


def test_when_every_trial_is_gone_one_that_hit_its_cap_waits_once(begin, forecasts):
    search = begin(fit=forecasts, trials=1)
    number = hit(search)
    assert search.decisions.restart_all()
    search.decisions.left(number)
    assert search.decisions.next_row().number == number
    assert search.decisions.next_row() is None


def test_ray_goes_on_asking_while_a_trial_may_hit_its_cap(begin, forecasts):
    search = begin(trials=1, fit=forecasts)
    number = search.start()
    assert not search.decisions.has_no_more
    search.decisions.finished(number, 1, CAPPED)
    assert not search.decisions.has_no_more
    search.decisions.left(number)
    assert not search.decisions.has_no_more
    search.decisions.next_row()


WORDS = "waits for room on laptop: 900 MB and 384 to spare, 700 are free"


LEFT = "left laptop, which is short of memory (310 MB free)"


def leave_for_room(search, number, attempt=1):
    search.decisions.left_node(number, attempt, LEFT)
    search.decisions.left(number)


def test_a_row_that_left_for_room_is_run_again_before_new_ones_and_the_user_reads_it_once(begin):
    search = begin(concurrency=2)
    number = search.start()
    search.decisions.left_node(number, 1, LEFT)
    assert search.observer.notes == [
        "trial 0 left laptop, which is short of memory (310 MB free); it goes on when there is room"
    ]
    assert search.decisions.next_row().number == 1, "its process is still there"
    search.decisions.left(number)
    assert search.decisions.next_row().number == number
    search.decisions.waits(number, 2, WORDS)
    assert len(search.observer.notes) == 1
    search.decisions.started(number, 2, "desktop")
    assert search.row(number).finish is None
    assert search.row(number).node == "desktop"
    leave_for_room(search, number, 2)
    assert len(search.observer.notes) == 2, "it ran in between"


def test_a_row_that_left_for_room_was_not_lost(begin):
    search = begin(restarts=0, concurrency=1)
    for attempt in (1, 2, 3):
        number = search.decisions.next_row().number
        search.decisions.started(number, attempt, "laptop")
        search.decisions.left_node(number, attempt, LEFT)
        if attempt == 2:
            search.decisions.lost(number, "its worker ended")
        search.decisions.left(number)
    assert (number, search.row(number).finish) == (0, None)
    number = search.decisions.next_row().number
    search.decisions.started(number, 4, "laptop")
    search.decisions.left_node(number, 4, LEFT)
    search.lose(number, "its worker ended")
    search.decisions.started(number, 5, "laptop")
    search.decisions.finished(number, 5, COMPLETED)
    search.decisions.left(number)
    assert search.row(0).finish == COMPLETED
    assert search.decisions.next_row().number == 1, "it does not wait any more"
    assert not any("lost" in note for note in search.observer.notes)


def test_what_an_attempt_says_after_it_left_for_room_is_ignored(begin):
    search = begin()
    number = search.start()
    search.decisions.left_node(number, 1, LEFT)
    search.decisions.reported(number, 1, EpochReport(1, 0.3))
    search.decisions.finished(number, 1, COMPLETED)
    search.decisions.left_node(number, 1, LEFT)
    assert search.row(number).reports == ()
    assert search.row(number).finish is None


def test_an_outdated_attempt_does_not_make_a_row_wait(begin):
    search = begin()
    number = search.start()
    search.lose(number)
    search.decisions.started(number, 2, "here")
    search.decisions.left_node(number, 1, LEFT)
    search.decisions.waits(number, 1, WORDS)
    assert search.decisions.snapshot(0.0).waiting == {}
    search.decisions.finished(number, 2, COMPLETED)
    assert search.row(number).finish == COMPLETED


def test_a_trial_that_waits_for_room_is_shown_and_noted_once_until_it_starts(begin):
    search = begin()
    number = search.decisions.next_row().number
    search.decisions.waits(number, 1, WORDS)
    search.decisions.waits(number, 1, "waits for 800")
    assert search.observer.notes == [f"trial 0 {WORDS}"]
    assert search.decisions.snapshot(0.0).waiting == {number: "waits for 800"}
    assert number in search.decisions.snapshot(0.0).running
    search.decisions.started(number, 1, "laptop")
    assert search.decisions.snapshot(0.0).waiting == {}


def test_a_waiting_trial_that_is_gone_does_not_wait(begin):
    search = begin()
    number = search.decisions.next_row().number
    search.decisions.waits(number, 1, WORDS)
    search.decisions.left(number)
    assert search.decisions.snapshot(0.0).waiting == {}
    search.decisions.waits(number, 1, WORDS)
    assert search.decisions.snapshot(0.0).waiting == {}


def test_a_search_that_leaves_waits_for_no_trial_that_waits_for_room(begin):
    search = begin()
    search.decisions.waits(search.decisions.next_row().number, 1, WORDS)
    assert search.decisions.leave_if_due(asked=True)
    assert search.decisions.has_left


def test_ray_is_asked_for_more_rows_as_long_as_one_that_runs_may_come_back(begin):
    search = begin(trials=1)
    number = search.start()
    assert not search.decisions.has_no_more
    leave_for_room(search, number)
    assert not search.decisions.has_no_more
    assert search.decisions.next_row().number == number
    search.decisions.started(number, 2, "here")
    search.decisions.finished(number, 2, COMPLETED)
    search.decisions.left(number)
    assert search.decisions.has_no_more


def test_a_trial_at_its_cap_does_not_hold_up_a_search_that_leaves(begin, forecasts):
    search = begin(fit=forecasts)
    search.decisions.leave_if_due(asked=False)
    number = search.start()
    search.decisions.leave_if_due(asked=True)
    search.decisions.finished(number, 1, CAPPED)
    assert search.decisions.has_left
    assert (search.row(number).finish, search.row(number).halvings) == (None, 1)


@pytest.mark.parametrize(("halvings", "outcome", "value"), [(0, "stopped", 0.6), (1, "memory_cap", None)])
def test_one_that_may_go_on_is_stopped_by_its_value_though_it_was_over_its_cap(
    begin, forecasts, halvings, outcome, value
):
    search = begin(fit=forecasts)
    number = search.start()
    if halvings:
        search.decisions.finished(number, 1, CAPPED)
        search.decisions.left(number)
        search.decisions.next_row()
        search.decisions.started(number, 2, "here")
    search.decisions.reported(number, 1 + halvings, EpochReport(1, 0.6, peak_mb=1001), stopped=True)
    finish = search.row(number).finish
    assert (finish.outcome, finish.value, finish.peak_mb) == (outcome, value, 1001)


def test_all_lost_at_once_runs_each_row_once_also_one_that_left_for_room(begin):
    search = begin()
    number = search.start()
    search.decisions.left_node(number, 1, LEFT)
    assert search.decisions.restart_all()
    assert search.decisions.next_row().number == number
    assert search.decisions.next_row().number != number


def test_a_row_that_is_given_back_may_start_elsewhere_and_its_place_counts_no_more(begin):
    search = begin(concurrency=1)
    number = search.decisions.next_row().number
    search.decisions.waits(number, 1, WORDS)
    assert search.decisions.next_row() is None
    search.decisions.gives_row_back(number, 1)
    assert search.decisions.snapshot(0.0).waiting == {}
    assert not search.decisions.is_done
    assert search.decisions.next_row().number == number
    assert search.decisions.snapshot(0.0).waiting == {number: WORDS}
    search.decisions.started(number, 2, "desktop")
    assert not search.decisions.gives_row_back(number, 1), "it runs"
    assert search.decisions.next_row() is None


def test_an_attempt_that_is_started_again_may_wait_for_room_and_give_its_row_back(begin):
    search = begin(concurrency=1)
    number = search.start()
    search.lose(number)
    search.decisions.waits(number, 2, WORDS)
    assert search.decisions.snapshot(0.0).waiting == {number: WORDS}
    search.decisions.gives_row_back(number, 2)
    assert search.decisions.next_row().number == number


def test_a_late_word_of_a_lost_attempt_does_not_keep_a_newer_one_from_waiting(begin):
    search = begin(concurrency=1)
    number = search.decisions.next_row().number
    search.lose(number)
    search.decisions.started(number, 1, "here")  # it is dead by now
    search.decisions.waits(number, 2, WORDS)
    assert search.decisions.snapshot(0.0).waiting == {number: WORDS}
    search.decisions.reported(number, 1, EpochReport(1, 0.3))
    assert search.row(number).reports == ()
    assert not search.decisions.gives_row_back(number, 1)
    search.decisions.gives_row_back(number, 2)
    assert search.decisions.next_row().number == number


def test_an_attempt_that_was_never_handed_out_has_no_say_however_high_its_number(begin):
    search = begin()
    number = search.start()
    search.decisions.started(number, 7, "elsewhere")
    search.decisions.finished(number, 7, COMPLETED)
    assert (search.row(number).node, search.row(number).finish) == ("here", None)


def test_of_a_row_that_was_given_back_the_one_that_waits_has_no_say(begin):
    search = begin(concurrency=1)
    number = search.decisions.next_row().number
    search.decisions.gives_row_back(number, 1)
    search.decisions.waits(number, 1, WORDS)
    search.decisions.started(number, 1, "here")
    assert (search.row(number).starts, search.observer.notes) == (0, [])


def test_what_a_trial_computes_with_is_recorded_and_shown(begin):
    search = begin()
    number = search.start()
    search.decisions.described(number, 1, {"precision": "bf16"})
    assert search.row(number).facts == {"precision": "bf16"}
    assert search.observer.described_rows == [search.row(number)]
    search.lose(number)
    search.decisions.described(number, 1, {"precision": "fp32"})
    assert search.row(number).facts == {"precision": "bf16"}, "an earlier attempt has no say"
    search.decisions.described(number, 2, {"precision": "fp32"})
    assert search.row(number).facts == {"precision": "fp32"}


# -- nodes that come and go


def test_as_many_rows_run_as_the_nodes_hold_now(begin):
    search = begin(concurrency=1)
    search.start()
    assert search.decisions.next_row() is None
    search.decisions.nodes_are(["one", "two"], 2)
    search.start()
    search.decisions.nodes_are(["one"], 1)
    search.decisions.left(0)
    assert search.decisions.next_row() is None, "the one that runs is enough"
    snapshot = search.decisions.snapshot(0.0)
    assert (snapshot.concurrency, snapshot.nodes) == (1, ("one",))


def test_without_a_node_that_has_room_the_search_waits_and_can_be_left(begin):
    search = begin()
    search.decisions.nodes_are([], 0)
    assert search.decisions.next_row() is None
    assert not search.decisions.has_no_more
    search.decisions.nodes_are(["one"], 1)
    assert search.decisions.next_row().number == 0
    search.decisions.left(0)
    search.decisions.nodes_are([], 0)
    assert search.decisions.leave_if_due(asked=True)
    assert search.decisions.has_left


def test_the_rows_that_train_on_a_node_are_those_that_have_started_there(begin):
    search = begin(concurrency=3)
    rows = [search.decisions.next_row().number for _ in range(3)]
    for number, node in zip(rows, ["one", "two", "one"], strict=True):
        search.decisions.started(number, 1, node)
    assert search.decisions.rows_on("one") == [0, 2]
    search.decisions.finished(0, 1, COMPLETED)
    assert search.decisions.rows_on("one") == [2]
    search.decisions.lost(2, "killed")
    assert search.decisions.rows_on("one") == []


@pytest.mark.parametrize("is_known_first", [True, False])
def test_a_row_that_is_lost_with_its_nodes_again_and_again_is_not_given_up(begin, is_known_first):
    search = begin(restarts=1, concurrency=1, trials=1)
    number = search.start()
    for _ in range(6):
        search.now += 1
        if is_known_first:
            search.decisions.nodes_are([], 1, gone=["here"])
        search.decisions.lost(number, "killed")
        search.decisions.left(number)
        assert search.row(number).finish is None
        search.now += 1
        if not is_known_first:
            search.decisions.nodes_are([], 1, gone=["here"])
        search.now += 1
        search.start()
    assert bool(search.observer.notes) == (not is_known_first), "the user has read that the node is gone"
    search.lose(number)
    search.decisions.lost(number, "killed")
    assert search.row(number).finish.error == "its process was lost 2 times: killed", "these are its own"


def test_a_row_that_is_lost_before_it_starts_may_have_been_lost_with_any_node(begin):
    search = begin(restarts=0, concurrency=1, trials=1)
    number = search.decisions.next_row().number
    search.decisions.nodes_are([], 1, gone=["two"])
    search.now += 1
    search.lose(number)
    search.decisions.lost(number, "killed")
    assert search.row(number).finish.error == "its process was lost 1 times: killed"


def test_of_an_attempt_that_is_gone_before_it_started_the_user_reads_nothing(begin):
    search = begin(restarts=2, concurrency=1, trials=1)
    number = search.decisions.next_row().number
    search.lose(number)  # on a node that had been left, and ended
    assert search.observer.notes == []
    search.decisions.started(number, 2, "here")
    search.lose(number)
    assert len(search.observer.notes) == 1
