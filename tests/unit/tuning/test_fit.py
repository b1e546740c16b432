"""Whether trials fit: forecasts that come when the test lets them, under a clock that the test moves."""

import math
import threading
from concurrent.futures import Future
from dataclasses import replace

import pytest
from ledgers import row

from tuning import fit, waiting
from tuning.capacity import Capacity, Node
from tuning.fit import SILENT_S, Fit, correction, fit_of, forecasting
from tuning.forecast import Forecast
from tuning.ledger import EpochReport

CAP_MB = 1000
NODES = [Node("small", 2, 4000), Node("large", 8, 9000)]


class Forecaster:
    """Forecasts `needs` MB for each node's name, and records what it is asked."""

    def __init__(self, **needs):
        self.needs = needs
        self.asked = []
        self.error = None

    def __call__(self, config, cap_mb, node):
        self.asked.append((config, cap_mb, node.name))
        if self.error:
            raise self.error
        return Forecast(self.needs[node.name])


class Forecasts:
    """A `Fit` whose helper thread is the test: `run` makes the calls that were begun."""

    def __init__(self, forecaster, nodes):
        self.now = 50.0
        self.notes = []
        self.begun = []
        self.fit = Fit(forecaster, nodes, CAP_MB, self.notes.append, self._begin, lambda: self.now, 0.0)

    def _begin(self, call):
        self.begun.append((Future(), call))
        return self.begun[-1][0]

    def run(self):
        while self.begun:
            future, call = self.begun.pop(0)
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)

    def answer(self, asked=None, rows=()):
        """The answer once the forecaster has worked."""
        asked = asked or row(1, {"x": 1})
        first = self.fit.answer(asked, [*rows, asked])
        if first != "ask later":
            return first
        self.run()
        return self.fit.answer(asked, [*rows, asked])


@pytest.fixture(autouse=True)
def _none_given_up_before(monkeypatch):
    monkeypatch.setattr(waiting, "_given_up", [])


@pytest.fixture
def begin():
    def begin(small=None, large=None, error=None):
        needs = {name: need for name, need in {"small": small, "large": large}.items() if need is not None}
        forecaster = Forecaster(**needs)
        forecaster.error = error
        return forecaster, Forecasts(forecaster, [node for node in NODES if node.name in needs])

    return begin


def test_the_forecaster_is_asked_once_and_meanwhile_the_row_waits(begin):
    forecaster, forecasts = begin(small=900)
    asked = row(1, {"x": 1})
    assert [forecasts.fit.answer(asked, [asked]) for _ in range(3)] == ["ask later"] * 3
    forecasts.run()
    assert forecasts.fit.answer(asked, [asked]) == "fits"
    assert forecaster.asked == [({"x": 1}, CAP_MB, "small")]


@pytest.mark.parametrize(("need", "fits"), [(1000.0, True), (1000.2, False), (1240, False)])
def test_a_row_fits_up_to_its_cap(begin, need, fits):
    _, forecasts = begin(small=need)
    answer = forecasts.answer()
    if fits:
        assert answer == "fits"
        return
    assert (answer.outcome, answer.is_forecast) == ("memory_cap", True)
    assert (answer.peak_mb, answer.cap_mb) == (math.ceil(need), CAP_MB)
    assert answer.error == f"needs {math.ceil(need)} MB, cap 1000"


def test_one_node_that_holds_it_is_enough_and_no_more_are_asked(begin):
    forecaster, forecasts = begin(small=900, large=900)
    assert forecasts.answer() == "fits"
    assert [name for _, _, name in forecaster.asked] == ["small"]
    forecaster, forecasts = begin(small=1300, large=900)
    assert forecasts.answer() == "fits"
    assert [name for _, _, name in forecaster.asked] == ["small", "large"]


def test_where_no_node_holds_it_the_least_need_is_said(begin):
    for needs in ({"small": 1300, "large": 1200}, {"small": 1200, "large": 1300}):
        _, forecasts = begin(**needs)
        assert forecasts.answer().error == "needs 1200 MB, cap 1000"


@pytest.mark.parametrize(
    ("ratios", "factor"), [([], 1.0), ([0.0, 0.8], 1.0), ([1.1, 1.3, 0.9], 1.3), ([1.2, 7.0], 2.0)]
)
def test_the_correction_is_the_largest_peak_over_its_forecast_between_1_and_2(ratios, factor):
    rows = [row(number, {"x": number}, peak_to_forecast=ratio) for number, ratio in enumerate(ratios)]
    assert correction(rows) == factor


def test_forecasts_are_corrected_by_what_was_measured(begin):
    forecaster, forecasts = begin(small=700)
    low = [row(0, {"x": 0}, peak_to_forecast=1.3)]
    assert forecasts.fit.memory_mb(low) == CAP_MB / 1.3
    assert forecasts.fit.memory_mb([]) == CAP_MB
    assert forecasts.answer(rows=low) == "fits"
    assert forecaster.asked[0][1] == 769, "the forecaster fits it into the cap / 1.3"
    forecaster.needs["small"] = 800
    answer = forecasts.answer(rows=low)
    assert (answer.peak_mb, answer.error) == (1040, "needs 1040 MB, cap 1000")


@pytest.mark.parametrize("factor", [1.1, 1.34, 1.6, 1.9])
def test_what_just_fits_the_corrected_cap_fits(begin, factor):
    _, forecasts = begin(small=CAP_MB / factor)
    assert forecasts.answer(rows=[row(0, {"x": 0}, peak_to_forecast=factor)]) == "fits"


def test_an_answer_is_corrected_as_it_was_asked(begin):
    _, forecasts = begin(small=900)
    asked = row(1, {"x": 1})
    assert forecasts.fit.answer(asked, [asked]) == "ask later"
    forecasts.run()
    assert forecasts.fit.answer(asked, [row(0, {"x": 0}, peak_to_forecast=1.5), asked]) == "fits"


def test_a_row_that_hit_its_cap_goes_on_whatever_is_forecast(begin):
    forecaster, forecasts = begin(small=5000)
    assert forecasts.answer(row(1, {"x": 1}, halvings=1)) == "fits"
    assert forecaster.asked == []


@pytest.mark.parametrize(("peak_mb", "is_asked"), [(0.0, True), (900.0, False), (1000.0, False), (1001.0, True)])
def test_a_row_that_has_trained_within_the_cap_needs_no_forecast(begin, peak_mb, is_asked):
    forecaster, forecasts = begin(small=5000)
    trained = replace(row(1, {"x": 1}), reports=(EpochReport(1, 0.5, peak_mb=peak_mb),))
    assert (forecasts.answer(trained) != "fits") == is_asked
    assert bool(forecaster.asked) == is_asked


@pytest.mark.parametrize("error", [ValueError("no such layer"), KeyboardInterrupt(), SystemExit(3)])
def test_a_forecaster_that_raises_is_not_asked_again_and_that_is_said_once(begin, error):
    forecaster, forecasts = begin(small=5000, error=error)
    assert forecasts.answer(row(1, {"x": 1})) == "fits"
    forecaster.error = None
    assert forecasts.answer(row(2, {"x": 2})) == "fits"
    assert len(forecaster.asked) == 1
    assert len(forecasts.notes) == 1
    assert type(error).__name__ in forecasts.notes[0]


def test_what_is_no_forecast_counts_as_an_error():
    forecasts = Forecasts(lambda config, cap_mb, node: None, NODES)
    assert forecasts.answer() == "fits"
    assert "AttributeError" in forecasts.notes[0]


def test_a_forecaster_that_does_not_answer_is_waited_for_two_minutes(begin):
    _, forecasts = begin(small=5000)
    asked = row(1, {"x": 1})
    assert forecasts.fit.answer(asked, [asked]) == "ask later"
    forecasts.now += SILENT_S - 0.1
    assert forecasts.fit.answer(asked, [asked]) == "ask later"
    forecasts.now += 0.1
    assert forecasts.fit.answer(asked, [asked]) == "fits"
    assert forecasts.answer(row(2, {"x": 2})) == "fits"
    assert forecasts.notes == ["memory is no longer forecast, so trials may hit their cap (no answer within 120 s)"]
    assert not waiting.is_anything_stuck(), "Ray's own end is not to be put off for it"


def test_each_question_waits_a_moment_for_the_answer():
    def begin(call):
        future = Future()
        threading.Timer(0.02, lambda: future.set_result(call())).start()
        return future

    asked = row(1, {"x": 1})
    fits = Fit(Forecaster(small=900), NODES[:1], CAP_MB, print, begin, patience_s=5)
    assert fits.answer(asked, [asked]) == "fits"


# -- around a run


CAPACITY = Capacity(CAP_MB, 2, tuple(NODES), (0, 3), 1.0)


def test_without_a_forecaster_there_are_no_forecasts():
    assert fit_of(None, CAPACITY, print, print) is None


def test_nodes_that_hold_no_trial_at_all_are_not_asked_for():
    forecaster = Forecaster(large=1300)
    asked = row(1, {"x": 1})
    with forecasting(forecaster, print) as begin:
        forecasts = fit_of(forecaster, CAPACITY, print, begin)
        while (answer := forecasts.answer(asked, [asked])) == "ask later":
            threading.Event().wait(0.005)
    assert answer.error == "needs 1300 MB, cap 1000"
    assert [name for _, _, name in forecaster.asked] == ["large"]


def test_a_forecast_that_is_awaited_when_the_run_ends_is_given_up():
    over, asked = threading.Event(), row(1, {"x": 1})
    with forecasting(None, print) as begin:
        forecasts = fit_of(lambda config, cap_mb, node: over.wait(), CAPACITY, print, begin)
        assert forecasts.answer(asked, [asked]) == "ask later"
        assert not waiting.is_anything_stuck()
    assert waiting.is_anything_stuck()
    over.set()


def test_of_several_forecasts_those_that_hang_are_given_up():
    over = threading.Event()
    with forecasting(None, print) as begin:
        begin(lambda: 900.0).result(5)
        hanging = [begin(over.wait), begin(over.wait)]
    assert waiting._given_up == hanging
    over.set()


def test_a_forecaster_that_its_close_ends_is_not_stuck():
    over = threading.Event()
    with forecasting(Closing(over.set), print) as begin:
        future = begin(over.wait)
    assert future.result(5)
    assert not waiting.is_anything_stuck()


class Closing:
    def __init__(self, close):
        self.close = close


def test_a_forecaster_is_closed_however_the_search_ends():
    closed, notes = [], []
    with pytest.raises(ZeroDivisionError), forecasting(Closing(lambda: closed.append(1)), notes.append):
        raise ZeroDivisionError
    for without in (None, print):
        with forecasting(without, notes.append):
            pass
    assert (closed, notes) == ([1], [])


def test_a_forecaster_that_does_not_close_holds_nothing_up(monkeypatch):
    monkeypatch.setattr(fit, "CLOSE_S", 0.1)
    over, notes = threading.Event(), []
    with forecasting(Closing(over.wait), notes.append):
        pass
    assert notes == ["the memory forecast did not close (TimeoutError: no answer within 0.1 s)"]
    assert waiting.is_anything_stuck()
    over.set()
    with forecasting(Closing(lambda: 1 / 0), notes.append):
        pass
    assert "ZeroDivisionError" in notes[1]
