"""What a search tries next: Optuna's TPE over a study that is replayed from the rows, so a crash loses nothing.

Each proposal depends on the rows, the search's seed and the row's number alone. How the sampler sees a row:

    completed    its value
    stopped      pruned, with its curve
    memory_cap   pruned, and infeasible by peak / cap - 1 (TPE ignores a plain failure, and would propose it again)
    diverged, failed   pruned, and infeasible by a fixed amount
    running      running, so that configurations like it are avoided (the constant liar)
    lost         failed, which it ignores: the machine failed, not the configuration
"""

import hashlib
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Self

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from tuning.ledger import Origin, Row
from tuning.space import Choice, Integer, LogUniform, Parameter, Space, canonical

Kind = Literal["optuna", "random"]
Mode = Literal["max", "min"]

_Distributions = dict[str, BaseDistribution]

DRAWS = 20
_BROKEN = 1.0  # as infeasible as a trial that needs twice its cap


class Sampler:
    """Proposes one configuration after another; translates a row for Optuna once, and again when it has changed."""

    def __init__(self, space: Space, seed: int, kind: Kind, mode: Mode) -> None:
        self._space = space
        self._seed = seed
        self._kind = kind
        self._mode = mode
        self._distributions = _distributions(space)
        self._translated: list[_Translated] = []

    def propose(self, rows: Sequence[Row]) -> tuple[dict[str, Any], Origin] | None:
        """A configuration that no row has, and where it comes from; None when the space is exhausted."""
        self._translate(rows)
        known = {each.key for each in self._translated}
        study = _study([each.trial for each in self._translated if each.trial is not None], self._mode)
        for draw in range(DRAWS):
            study.sampler = self._sampler(_seed(self._seed, len(rows), draw))
            trial = study.ask(self._distributions)
            config = {name: _decoded(self._space[name], value) for name, value in trial.params.items()}
            if canonical(config) not in known:
                return config, self._kind
            study.tell(trial, state=TrialState.FAIL)  # which the sampler ignores
        left = _first_unknown(self._space, known, _seed(self._seed, len(rows), DRAWS))
        return (left, "enumerated") if left is not None else None

    def _translate(self, rows: Sequence[Row]) -> None:
        """Bring `_translated` up to date: a row that has changed is another object."""
        del self._translated[len(rows) :]
        for index, row in enumerate(rows):
            if index == len(self._translated):
                self._translated.append(_Translated.of(row, self._space, self._distributions))
            elif self._translated[index].row is not row:
                self._translated[index] = _Translated.of(row, self._space, self._distributions)

    def _sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        if self._kind == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        return _Tpe(self._distributions, seed)


@dataclass(frozen=True)
class _Translated:
    """A row with what Optuna is given for it: None for a row outside of the space."""

    row: Row
    key: str
    trial: FrozenTrial | None

    @classmethod
    def of(cls, row: Row, space: Space, distributions: _Distributions) -> Self:
        return cls(row, row.key, None if space.outside(row.config) else _frozen(row, space, distributions))


class _Tpe(optuna.samplers.TPESampler):
    """TPE over trials that all have the same distributions; Optuna would compare those of all trials each time."""

    def __init__(self, distributions: _Distributions, seed: int) -> None:
        super().__init__(seed=seed, constant_liar=True)
        self._in_order = {name: each for name, each in sorted(distributions.items()) if not each.single()}

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> _Distributions:
        return dict(self._in_order)


class _SharedTrial(FrozenTrial):
    """A trial that studies share: the copy that a study makes of it is itself."""

    def __deepcopy__(self, memo: object) -> Self:
        return self


def replay(rows: Sequence[Row], space: Space, mode: Mode) -> optuna.Study:
    """An in-memory Optuna study of the rows; those outside of the space are left out."""
    distributions = _distributions(space)
    return _study([_frozen(row, space, distributions) for row in rows if not space.outside(row.config)], mode)


def importances(rows: Sequence[Row], space: Space, mode: Mode) -> dict[str, float]:
    """The share of the value's variance that each parameter explains (they sum to 1), the largest first.

    Empty with too few completed trials to say.
    """
    study = replay(rows, space, mode)
    completed = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(completed) < 4 or len({trial.value for trial in completed}) < 2:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dict(optuna.importance.get_param_importances(study))


def history(rows: Sequence[Row], mode: Mode) -> list[tuple[int, float, float]]:
    """Number, value and best value so far of the completed rows, in order."""
    better = max if mode == "max" else min
    best: float | None = None
    points = []
    for row in rows:
        if row.score is not None:
            best = row.score if best is None else better(best, row.score)
            points.append((row.number, row.score, best))
    return points


def _study(trials: Sequence[FrozenTrial], mode: Mode) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=storage, direction="maximize" if mode == "max" else "minimize")
    number = storage.get_study_id_from_name(study.study_name)
    for trial in trials:  # `Study.add_trials` would check each of them again
        storage.create_new_trial(number, trial)
    return study


def _frozen(row: Row, space: Space, distributions: _Distributions) -> FrozenTrial:
    params = {name: _encoded(space[name], row.config[name]) for name in space}
    finish = row.finish
    state, value = TrialState.RUNNING, None
    constraints: dict[str, float] = {}
    if finish is not None:
        state = TrialState.PRUNED
        if finish.lost:
            state = TrialState.FAIL
        elif finish.outcome == "completed" and finish.value is not None:
            state, value = TrialState.COMPLETE, finish.value
        elif finish.outcome == "memory_cap":
            excess = finish.peak_mb / finish.cap_mb - 1 if finish.cap_mb else 0.0
            constraints = {"memory": max(excess, 0.01)}  # it was over its cap, even if the last measurement was not
        elif finish.outcome in ("diverged", "failed"):
            constraints = {"ends": _BROKEN}
    curve = {report.epoch: report.value for report in row.reports if math.isfinite(report.value)}
    started, ended = (
        datetime.min,
        datetime.min if state.is_finished() else None,
    )  # Optuna wants a time, and reads none
    trial = _SharedTrial(-1, state, value, started, ended, params, distributions, {}, {}, curve, trial_id=-1)
    for name, excess in constraints.items():
        trial.set_constraint(name, excess)
    return trial


def _sampler(kind: Kind, seed: int) -> optuna.samplers.BaseSampler:
    if kind == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, constant_liar=True)


def _seed(*parts: int) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")


def _first_unknown(space: Space, known: set[str], start: int) -> dict[str, Any] | None:
    if space.size is None:
        return None
    return next((config for config in _from(space, space.size, start) if canonical(config) not in known), None)


def _from(space: Space, size: int, start: int) -> Iterator[dict[str, Any]]:
    return (space.at((start + index) % size) for index in range(size))


def _distributions(space: Space) -> _Distributions:
    return {name: _distribution(parameter) for name, parameter in space.items()}


def _distribution(parameter: Parameter) -> BaseDistribution:
    if isinstance(parameter, Choice):
        return CategoricalDistribution([canonical(option) for option in parameter.options])
    if isinstance(parameter, Integer):
        return IntDistribution(parameter.low, parameter.values()[-1], step=parameter.step)
    return FloatDistribution(parameter.low, parameter.high, log=isinstance(parameter, LogUniform))


def _encoded(parameter: Parameter, value: Any) -> Any:
    return canonical(value) if isinstance(parameter, Choice) else value


def _decoded(parameter: Parameter, value: Any) -> Any:
    if isinstance(parameter, Choice):
        return next(option for option in parameter.options if canonical(option) == value)
    return value
