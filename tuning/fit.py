"""Whether a trial fits its cap: asked of the forecaster before the start, corrected by what this search has measured.

A forecast is multiplied by the largest measured peak of the search over its forecast, so that what was forecast too
low is so once. The forecaster works in a helper thread; the search asks again until it has answered.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from tuning.capacity import Capacity, Node
from tuning.forecast import Forecaster
from tuning.ledger import Finish, Row
from tuning.space import Config
from tuning.waiting import Helper, give_up, result_of

SILENT_S = 120.0
"""How long a forecast may take: a first one may build a kernel, on a machine that is busy."""
CLOSE_S = 2.0
"""How long the forecaster may take to close."""
MOST_CORRECTION = 2.0
PATIENCE_S = 0.05
"""How long each question waits for the answer, since most forecasts take less."""

Answer = Finish | Literal["fits", "ask later"]
"""Of a row that is to be started; how it ends if no node can hold it."""
Begin = Callable[[Callable[[], float]], Future[float]]


def correction(rows: Sequence[Row]) -> float:
    """What the forecasts of a search are to be multiplied by: at least 1, at most 2."""
    return min(max([1.0, *(row.peak_to_forecast for row in rows)]), MOST_CORRECTION)


@dataclass(frozen=True)
class _Asked:
    row: int
    correction: float
    at: float
    peak_mb: Future[float]


class Fit:
    """The forecasts of one run of a search. `begin` starts a call in another thread; `noted` is told what fails."""

    def __init__(
        self,
        forecaster: Forecaster,
        nodes: Sequence[Node],
        cap_mb: int,
        noted: Callable[[str], None],
        begin: Begin,
        clock: Callable[[], float] = time.monotonic,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._forecaster = forecaster
        self._nodes = nodes
        self._cap_mb = cap_mb
        self._noted = noted
        self._begin = begin
        self._clock = clock
        self._patience_s = patience_s
        self._asked: _Asked | None = None
        self._is_given_up = False

    def memory_mb(self, rows: Sequence[Row]) -> float:
        """The memory that a trial is to plan with: less than the cap if forecasts were too low."""
        return self._cap_mb / correction(rows)

    def answer(self, row: Row, rows: Sequence[Row]) -> Answer:
        """Whether a row fits on some node.

        One that hit its cap goes on with half, whatever is forecast; one that has trained has shown what it holds.
        """
        if self._is_given_up or row.halvings or 0 < _peak_mb(row) <= self._cap_mb:
            return "fits"
        if self._asked is None or self._asked.row != row.number:
            self._asked = self._ask(row, correction(rows))
        asked = self._asked
        if not wait([asked.peak_mb], self._patience_s).done:
            if self._clock() - asked.at < SILENT_S:
                return "ask later"
            self._give_up(f"no answer within {SILENT_S:g} s")
            return "fits"
        self._asked = None
        if (error := asked.peak_mb.exception()) is not None:
            self._give_up(f"{type(error).__name__}: {error}")
            return "fits"
        needed_mb = math.ceil(round(asked.peak_mb.result() * asked.correction, 3))
        if needed_mb <= self._cap_mb:
            return "fits"
        words = f"needs {needed_mb} MB, cap {self._cap_mb}"
        return Finish("memory_cap", peak_mb=needed_mb, cap_mb=self._cap_mb, error=words, is_forecast=True)

    def _ask(self, row: Row, factor: float) -> _Asked:
        config, cap_mb = dict(row.config), int(self._cap_mb / factor)
        peak_mb = self._begin(lambda: _least_peak_mb(self._forecaster, config, cap_mb, self._nodes))
        return _Asked(row.number, factor, self._clock(), peak_mb)

    def _give_up(self, reason: str) -> None:
        self._is_given_up = True
        self._noted(f"memory is no longer forecast, so trials may hit their cap ({reason})")


def fit_of(
    forecaster: Forecaster | None, capacity: Capacity, noted: Callable[[str], None], begin: Begin
) -> Fit | None:
    """The forecasts of a run of a search, for the nodes that can hold a trial; None without a forecaster."""
    if forecaster is None:
        return None
    nodes = [node for node, fits in zip(capacity.nodes, capacity.fits, strict=True) if fits]
    return Fit(forecaster, nodes, capacity.cap_mb, noted, begin)


@contextmanager
def forecasting(forecaster: Forecaster | None, noted: Callable[[str], None]) -> Iterator[Begin]:
    """The thread that a forecaster works in. In the end it is closed, if it has a `close`, and waited for no longer.

    To be left last: what still hangs then counts as stuck, and a Ray of which a call may be stuck ends otherwise.
    """
    running: list[Future[float]] = []
    with Helper("forecast") as helper:

        def begin(call: Callable[[], float]) -> Future[float]:
            running[:] = [*(each for each in running if not each.done()), helper.begin(call)]
            return running[-1]

        try:
            yield begin
        finally:
            _close(forecaster, noted)
            for each in running:
                give_up(each)


def _close(forecaster: Forecaster | None, noted: Callable[[str], None]) -> None:
    close = getattr(forecaster, "close", None)
    if close is not None:
        try:
            with Helper("close") as helper:
                result_of(helper.begin(close), CLOSE_S)
        except Exception as error:
            noted(f"the memory forecast did not close ({type(error).__name__}: {error})")


def _peak_mb(row: Row) -> float:
    return max((report.peak_mb for report in row.reports), default=0.0)


def _least_peak_mb(forecaster: Forecaster, config: Config, cap_mb: int, nodes: Sequence[Node]) -> float:
    """The forecast peak on the node that needs least; no further node is asked once there is one that fits."""
    least_mb = math.inf
    for node in nodes:
        least_mb = min(least_mb, forecaster(config, cap_mb, node).peak_mb)
        if least_mb <= cap_mb:
            break
    return least_mb
