"""A search around its Ray part, which is replaced here: what is refused, which cap it gets, how it ends."""

import contextlib
import sys
import threading
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest
from ledgers import end, row, run_trial

from tuning import search
from tuning.capacity import WORKER_MB, Capacity, Node
from tuning.capped.run_capped import CapTooLowError
from tuning.errors import AllTrialsFailedError, AskedToLeaveError, CapDoesNotFitError
from tuning.forecast import Forecast
from tuning.ledger import EpochReport, Ledger, read
from tuning.observer import Observer
from tuning.search import capacity_for, end_of, next_target, run_search, survey
from tuning.settings import Settings
from tuning.space import Space
from tuning.traffic import Sent

SPACE = Space.parse({"x": {"integer": [0, 2]}})
FLOOR_MB = 100


class Notes(Observer):
    def __init__(self):
        self.notes = []

    def noted(self, text):
        self.notes.append(text)


class Ray:
    """What stands in for Ray: a cluster that only notes what was started, and a run that records trials."""

    def __init__(self):
        self.started = []
        self.capacity = None
        self.fit = None
        self.ends = []
        self.ended = "finished"
        self.nodes = [Node("far", 4, 4000)]
        self.concurrency_in_the_end = None

    @contextlib.contextmanager
    def local(self, node, should_stop):
        self.started.append("local")
        yield

    @contextlib.contextmanager
    def watched(self, address, token, should_stop=None):
        self.started.append((address, token))
        yield SimpleNamespace(look=lambda: self.nodes, while_head_lives=lambda call: call())

    def survey(self, address, token):
        self.started.append((address, token))
        return self.nodes

    def run_of(
        self, ledger, space, default, packed, settings, capacity, files, observer, should_stop, began, fit, watch
    ):
        self.capacity = capacity
        self.fit = fit

        def run():
            for number, finish in enumerate(self.ends):
                run_trial(ledger, default if number == 0 else {"x": number}, finish)
            return self.ended

        later = replace(capacity, concurrency=self.concurrency_in_the_end or capacity.concurrency)
        return SimpleNamespace(
            run=run,
            decisions=SimpleNamespace(freed_bytes=70),
            overhead_mb=900.0,
            sent=lambda: {"hp": Sent(5, 6, 7)} if watch else {},
            capacity=later,
        )


@pytest.fixture
def ray(monkeypatch):
    fake = Ray()
    module = ModuleType("tuning.on_ray.run")
    module.TuneRun = fake.run_of
    monkeypatch.setitem(sys.modules, "tuning.on_ray.run", module)
    monkeypatch.setattr(search.local_ray, "started", fake.local)
    monkeypatch.setattr(search.search_cluster, "watched", fake.watched)
    monkeypatch.setattr(search.search_cluster, "survey", fake.survey)
    monkeypatch.setattr(search, "this_machine", lambda reserve: Node("here", 2, 2000 - (reserve or 0)))
    monkeypatch.setattr(search, "floor_mb", lambda *_, **__: FLOOR_MB - 0.5)
    return fake


@pytest.fixture
def run(tmp_path, ray):
    def run(trials=2, *, extend=0, observer=None, should_stop=lambda: False, forecast=None, **settings):
        chosen = Settings(trials=trials, max_epochs=3, **settings)
        return run_search(
            print, SPACE, {"x": 0}, tmp_path / "s", {}, chosen,
            observer=observer, should_stop=should_stop, extend=extend, forecast=forecast,
        )  # fmt: skip

    return run


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path, {}) as ledger:
        yield ledger


# -- targets and ends


@pytest.mark.parametrize(
    ("target", "is_done", "trials", "extend", "expected"),
    [
        (0, True, 30, 0, 30),
        (0, True, 30, 5, 30),
        (30, False, 30, 0, 30),
        (30, False, 20, 0, 30),
        (30, False, 40, 0, 40),
        (30, True, 30, 5, 35),
        (30, True, 50, 5, 35),
        (30, False, 30, 5, 30),
    ],
)
def test_the_target_is_raised_and_only_a_finished_search_is_extended(target, is_done, trials, extend, expected):
    assert next_target(target, is_done, trials, extend) == expected


def test_a_search_ends_with_its_target_or_with_its_space(ledger):
    ledger.raise_target(2)
    run_trial(ledger, {"x": 0}, end())
    assert end_of(ledger, SPACE) is None
    run_trial(ledger, {"x": 1}, end())
    assert end_of(ledger, SPACE) == "finished"
    ledger.raise_target(9)
    assert end_of(ledger, SPACE) is None
    run_trial(ledger, {"x": 2}, None)
    assert end_of(ledger, SPACE) is None, "one still runs"
    ledger.finish(2, end("failed"))
    assert end_of(ledger, SPACE) == "exhausted"


def test_a_default_outside_of_the_space_does_not_exhaust_it(ledger):
    ledger.raise_target(9)
    for x in (7, 0, 1):
        run_trial(ledger, {"x": x}, end())
    assert end_of(ledger, SPACE) is None
    run_trial(ledger, {"x": 2}, end())
    assert end_of(ledger, SPACE) == "exhausted"


def test_a_space_that_cannot_be_counted_is_never_exhausted(ledger):
    ledger.raise_target(9)
    run_trial(ledger, {"x": 0.5}, end())
    assert end_of(ledger, Space.parse({"x": {"uniform": [0, 1]}})) is None


def test_trials_run_again_only_where_every_one_failed(run, ray, tmp_path):
    ray.ends = [end("failed"), end("failed")]
    run()
    ray.ends = []
    run()
    assert [row.finish for row in read(tmp_path / "s").rows] == [None, None]
    with Ledger(tmp_path / "s", {"space": SPACE.to_json(), "mode": "max", "max_epochs": 3}) as ledger:
        ledger.finish(0, end("memory_cap"))
        ledger.finish(1, end("failed"))
    run()
    assert [row.outcome for row in read(tmp_path / "s").rows] == ["memory_cap", "failed"]


# -- the cap


def rows_with(*rows, cap_mb=None, cap_trials=None):
    return SimpleNamespace(rows=list(rows), cap_mb=cap_mb, cap_trials=cap_trials)


HERE = [Node("here", 2, 2000)]
FITS = 2000 // 2 - WORKER_MB


@pytest.mark.parametrize(
    ("decided", "peak_mb", "expected"),
    [
        (None, 0, FITS),
        (500, 0, 500),  # whatever else is free by now
        (500, 400, 500),
        (500, 500, FITS),  # an unfinished trial needs more than was decided
        (2000, 0, FITS),  # no longer free
    ],
)
def test_a_search_that_continues_keeps_its_cap_while_that_fits_and_is_enough(decided, peak_mb, expected):
    settings = Settings(trials=2, max_epochs=3, concurrency=2)
    unfinished = replace(row(0, {"x": 0}), reports=(EpochReport(1, 0.5, peak_mb=peak_mb),))
    ledger = rows_with(unfinished, cap_mb=decided)
    assert capacity_for(ledger, HERE, settings).cap_mb == expected


def test_a_resumed_trial_gets_a_tenth_more_than_its_peak_and_fewer_run_for_that():
    settings = Settings(trials=2, max_epochs=3)
    peak = row(0, {"x": 0}, curve=[0.5] * 3)
    assert [report.peak_mb for report in peak.reports][-1] == 303
    assert capacity_for(rows_with(peak), [Node("here", 4, 1900)], settings).concurrency == 3
    assert capacity_for(rows_with(), [Node("here", 4, 1900)], settings).concurrency == 4
    tight = [Node("here", 2, 2 * (WORKER_MB + 303 + 20))]
    assert capacity_for(rows_with(), tight, settings).concurrency == 2
    assert capacity_for(rows_with(peak), tight, settings).concurrency == 1
    ended = row(0, {"x": 0}, end("memory_cap"), [0.5] * 3)
    assert capacity_for(rows_with(ended), tight, settings).concurrency == 2, "it is not resumed"


def test_a_cap_that_was_asked_for_is_taken_as_it_is():
    settings = Settings(trials=2, max_epochs=3, cap_mb=700)
    assert capacity_for(rows_with(cap_mb=500), HERE, settings).cap_mb == 700


def test_the_least_memory_of_a_trial_limits_how_many_run(ray):
    assert survey(Settings(trials=2, max_epochs=3)).concurrency == 2
    assert survey(Settings(trials=2, max_epochs=3, least_cap_mb=1500)).concurrency == 1
    assert ray.started == []


def test_a_survey_of_a_cluster_asks_its_nodes(ray):
    settings = Settings(trials=2, max_epochs=3, address="far:1", token="abc")
    assert survey(settings).nodes == tuple(ray.nodes)
    assert ray.started == [("far:1", "abc")]
    assert "abc" not in repr(settings)


DESK, HP = Node("desk", 2, 5500), Node("hp", 2, 3000)
OF_DESK = 5500 // 2 - WORKER_MB


@pytest.mark.parametrize(
    ("nodes", "decided", "trials", "cap_mb", "concurrency"),
    [
        ([DESK], None, None, OF_DESK, 2),
        ([DESK, HP], OF_DESK, 2, OF_DESK, 3),  # a laptop has joined: its memory is used, and the cap stays
        ([DESK, HP], OF_DESK, None, 1340, 4),  # it is not known how many fitted before
        ([DESK, HP], None, None, 1340, 4),
        ([DESK], 1340, 4, 1340, 2),  # the other laptop is gone
        ([HP], 1340, 4, 1340, 2),
        ([HP], OF_DESK, 2, 1340, 2),  # on the smaller one alone
        ([HP], OF_DESK, 1, OF_DESK, 1),
        ([replace(DESK, why_not="it leaves"), HP], 1340, 4, 1340, 2),
    ],
)
def test_a_search_goes_on_with_its_cap_where_laptops_have_joined_or_are_gone(
    nodes, decided, trials, cap_mb, concurrency
):
    ledger = rows_with(cap_mb=decided, cap_trials=trials)
    found = capacity_for(ledger, nodes, Settings(trials=9, max_epochs=3, least_cap_mb=500))
    assert (found.cap_mb, found.concurrency) == (cap_mb, concurrency)
    assert found.concurrency == min(sum(found.fits), concurrency)


# -- a run


def test_a_search_that_has_its_trials_starts_nothing(run, ray):
    ray.ends = [end(value=0.5), end(value=0.7)]
    first = run()
    assert (first.ended, first.best.number, first.freed_bytes, first.overhead_mb) == ("finished", 1, 70, 900.0)
    assert first.capacity == ray.capacity == Capacity(FITS, 2, tuple(HERE), (2,), 1.0)
    ray.started.clear()
    again = run()
    assert (again.ended, again.best.number, again.capacity, again.freed_bytes) == ("finished", 1, None, 0)
    assert ray.started == []


def test_a_space_without_more_configurations_is_recorded_once_and_starts_nothing_again(run, ray, tmp_path):
    ray.ends, ray.ended = [end(), end(), end()], "exhausted"
    assert run(trials=9).ended == "exhausted"
    assert read(tmp_path / "s").is_exhausted
    ray.started.clear()
    assert run(trials=9).ended == "exhausted"
    assert ray.started == []


def test_a_search_that_was_asked_to_leave_says_so_and_is_not_exhausted(run, ray, tmp_path):
    ray.ends, ray.ended = [end()], "asked"
    assert run().ended == "asked"
    assert not read(tmp_path / "s").is_exhausted


def test_a_cap_that_does_not_fit_is_refused_before_anything_starts(run, ray, monkeypatch):
    monkeypatch.setattr(search, "floor_mb", lambda *_, **__: pytest.fail("its child was started"))
    with pytest.raises(CapDoesNotFitError, match=f"largest cap that fits now is {2000 - WORKER_MB} MB"):
        run(cap_mb=5000)
    assert ray.started == []


def test_the_reserve_that_was_asked_for_is_left_out_of_the_plan(run, ray):
    run(reserve_mb=900)
    assert [node.memory_mb for node in ray.capacity.nodes] == [1100]
    surveyed = survey(Settings(trials=1, max_epochs=1, reserve_mb=900))
    assert [node.memory_mb for node in surveyed.nodes] == [1100]


@pytest.mark.parametrize(("cap_mb", "refused"), [(FLOOR_MB + 15, True), (FLOOR_MB + 16, False)])
def test_a_cap_that_the_imports_alone_fill_is_refused(run, ray, tmp_path, cap_mb, refused):
    if not refused:
        run(cap_mb=cap_mb)
        return
    with pytest.raises(CapTooLowError) as caught:
        run(cap_mb=cap_mb)
    assert (caught.value.floor_mb, caught.value.cap_mb) == (FLOOR_MB, cap_mb)
    assert ray.capacity is None
    assert read(tmp_path / "s").cap_mb is None, "a cap that was refused is not remembered"


def test_the_cap_is_remembered_and_a_smaller_one_later_is_said(run, ray, tmp_path, monkeypatch):
    noted = Notes()
    run(trials=1, observer=noted)
    monkeypatch.setattr(search, "this_machine", lambda reserve: Node("here", 2, 3000))
    run(trials=2, observer=noted)
    assert (read(tmp_path / "s").cap_mb, noted.notes) == (FITS, [])
    monkeypatch.setattr(search, "this_machine", lambda reserve: Node("here", 2, 1000))
    run(trials=3, observer=noted)
    assert read(tmp_path / "s").cap_mb == 1000 // 2 - WORKER_MB
    assert noted.notes == [f"less memory is free than before: a trial may hold {500 - WORKER_MB} MB now, not {FITS}"]
    run(trials=4, observer=noted, cap_mb=300)
    assert len(noted.notes) == 1, "asked for"


def test_on_a_cluster_the_capacity_is_that_of_its_nodes(run, ray):
    ray.concurrency_in_the_end = 3
    found = run(address="far:1")
    assert found.capacity.nodes == tuple(ray.nodes)
    assert found.capacity.concurrency == 3, "as it was in the end"
    assert found.sent == {"hp": Sent(5, 6, 7)}
    assert ray.started == [("far:1", None)]


def test_an_objective_that_cannot_be_imported_is_refused_with_its_own_error(run, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError(
            "the floor could not be measured (failed): \nTraceback\npipeline.errors.MachineUnfitError: no GPU"
        )

    monkeypatch.setattr(search, "floor_mb", fail)
    with pytest.raises(AllTrialsFailedError, match="no trial can start: no GPU") as caught:
        run()
    assert caught.value.kind == "MachineUnfitError"
    assert "Traceback" in caught.value.details


def test_an_error_without_a_traceback_is_its_last_line(run, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("the floor could not be measured\nended by SIGKILL")

    monkeypatch.setattr(search, "floor_mb", fail)
    with pytest.raises(AllTrialsFailedError, match=r"^no trial can start: ended by SIGKILL$") as caught:
        run()
    assert caught.value.kind == ""


def test_asked_to_leave_before_the_first_trial_it_does_not_wait_for_the_imports(run, monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(search, "floor_mb", lambda *_, **__: release.wait(30) and 1.0)
    try:
        with pytest.raises(AskedToLeaveError):
            run(should_stop=lambda: True)
    finally:
        release.set()


class Forecaster:
    def __init__(self):
        self.closed = 0

    def __call__(self, config, cap_mb, node):
        return Forecast(300.0)

    def close(self):
        self.closed += 1


def test_a_run_gets_the_forecasts_and_the_forecaster_is_closed_after_it(run, ray):
    run()
    assert ray.fit is None
    forecaster = Forecaster()
    run(trials=3, forecast=forecaster)
    assert ray.fit.memory_mb([]) == FITS
    assert forecaster.closed == 1


def test_a_forecaster_is_closed_also_if_nothing_is_started(run, ray):
    forecaster = Forecaster()
    with pytest.raises(CapDoesNotFitError):
        run(cap_mb=5000, forecast=forecaster)
    assert forecaster.closed == 1
