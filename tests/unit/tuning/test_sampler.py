import json
import math
import random
from dataclasses import replace
from hashlib import sha256

import optuna
import pytest
from ledgers import end, reports, row
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from tuning.sampler import Sampler, history, importances, replay
from tuning.space import Space, canonical

SPACE = Space.parse(
    {
        "lr": {"log_uniform": [1e-4, 1e-2]},
        "drop": {"uniform": [0, 0.3]},
        "width": {"choice": [[96, 192], [192, 384], [384, 768]]},
        "depth": {"integer": [2, 8, 2]},
        "batch": {"choice": [32, 64, 128, 256]},
    }
)


def propose(rows, space, seed, kind, mode):
    return Sampler(space, seed, kind, mode).propose(rows)


def is_hog(config):
    return config["width"] == [384, 768] or (config["batch"] == 256 and config["depth"] >= 6)


def tried(number, config, origin="optuna"):
    value = -abs(math.log10(config["lr"]) + 3) - config["drop"]
    finish = end("memory_cap", peak_mb=1030, cap_mb=1000) if is_hog(config) else end("completed", value)
    return row(number, config, finish, origin=origin)


def search(seed, kind, trials, space=SPACE):
    rows = []
    while len(rows) < trials:
        config, origin = propose(rows, space, seed, kind, "max")
        rows.append(tried(len(rows), config, origin))
    return rows


def hogs_after_ten(kind, seeds):
    later = [row for seed in seeds for row in search(seed, kind, 30)[10:]]
    return sum(row.finish.outcome == "memory_cap" for row in later) / len(later)


def test_after_ten_trials_hogs_are_proposed_at_most_half_as_often_as_at_random():
    seeds = range(6)
    assert hogs_after_ten("optuna", seeds) <= hogs_after_ten("random", seeds) / 2


def test_it_finds_better_values_than_random():
    def best(kind):
        rows = [row for seed in range(4) for row in search(seed, kind, 30)]
        return sum(sorted(row.finish.value for row in rows if row.finish.value is not None)[-8:])

    assert best("optuna") > best("random")


@pytest.mark.parametrize("kind", ["optuna", "random"])
def test_one_seed_proposes_the_same_again_and_another_does_not(kind):
    assert search(1, kind, 14) == search(1, kind, 14)
    assert search(1, kind, 3) != search(2, kind, 3)


SMALL = Space.parse({"a": {"choice": [1, 2, 3, [4]]}, "b": {"integer": [1, 9]}, "only": {"choice": ["one"]}})


def distributions_of(space):
    """Optuna's distributions of a space."""
    kinds = {
        "choice": lambda *options: CategoricalDistribution([canonical(option) for option in options]),
        "integer": lambda low, high, step: IntDistribution(low, high - (high - low) % step, step=step),
        "uniform": FloatDistribution,
        "log_uniform": lambda low, high: FloatDistribution(low, high, log=True),
    }
    return {name: kinds[each.kind](*each.arguments()) for name, each in space.items()}


def proposed_by_optuna(rows, space, seed, kind, mode):
    """A proposal with nothing but Optuna's own interface: a new study of copies of all rows for each."""
    known = {each.key for each in rows}
    study = optuna.create_study(direction="maximize" if mode == "max" else "minimize")
    copied = ("state", "value", "params", "distributions", "intermediate_values", "constraints")
    for trial in replay(rows, space, mode).get_trials(deepcopy=False):
        study.add_trial(optuna.trial.create_trial(**{name: getattr(trial, name) for name in copied}))
    distributions = distributions_of(space)
    for draw in range(20):
        number = int.from_bytes(sha256(repr((seed, len(rows), draw)).encode()).digest()[:4], "big")
        tpe = optuna.samplers.TPESampler(seed=number, constant_liar=True)
        study.sampler = tpe if kind == "optuna" else optuna.samplers.RandomSampler(seed=number)
        trial = study.ask(distributions)
        config = {
            name: json.loads(value) if hasattr(space[name], "options") else value
            for name, value in trial.params.items()
        }
        if canonical(config) not in known:
            return config, kind
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    return None


def happens_to(each, draw):
    """A row after something has happened to it: an epoch, an end of any kind, or that it is opened again."""
    if each.finish is not None:
        return replace(each, finish=None, starts=0) if draw.random() < 0.1 else each
    match draw.choice(
        ["epoch", "epoch", "completed", "stopped", "memory_cap", "diverged", "failed", "lost", "nothing"]
    ):
        case "nothing":
            return each
        case "epoch":
            return replace(each, reports=tuple(reports([draw.choice([draw.random(), math.nan]) for _ in range(3)])))
        case "lost":
            return replace(each, finish=end("failed", lost=True))
        case "completed" | "stopped" as outcome:
            return replace(each, finish=end(outcome, draw.random()))
        case outcome:
            return replace(each, finish=end(outcome, peak_mb=draw.uniform(600, 1000)))


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize("kind", ["optuna", "random"])
@pytest.mark.parametrize("space", [SPACE, SMALL], ids=["large", "small"])
def test_whatever_happens_to_rows_the_next_proposal_is_that_of_a_new_study_of_them(space, kind, mode):
    draw = random.Random(f"{len(space)}{kind}{mode}")
    sampler, rows = Sampler(space, 5, kind, mode), [row(0, {"lr": 7.0})]  # outside of the space
    for _ in range(35):
        proposal = sampler.propose(rows)
        expected = proposed_by_optuna(rows, space, 5, kind, mode)
        assert proposal == expected or (expected is None and proposal[1] == "enumerated")
        rows.append(row(len(rows), proposal[0], origin=proposal[1]))
        for index in draw.sample(range(len(rows)), min(len(rows), 3)):
            rows[index] = happens_to(rows[index], draw)


def test_a_sampler_goes_on_from_fewer_rows_as_if_it_had_seen_no_others():
    rows = search(1, "optuna", 16)
    sampler = Sampler(SPACE, 1, "optuna", "max")
    sampler.propose(rows)
    assert sampler.propose(rows[:12])[0] == rows[12].config


def test_a_row_is_translated_again_only_after_it_has_changed(monkeypatch):
    rows, asked = search(1, "optuna", 12), []
    outside = Space.outside
    monkeypatch.setattr(Space, "outside", lambda self, config: asked.append(config) or outside(self, config))
    sampler = Sampler(SPACE, 1, "optuna", "max")
    sampler.propose(rows)
    assert len(asked) == 12
    rows[3] = replace(rows[3], finish=end("diverged"))
    sampler.propose(rows)
    assert asked[12:] == [rows[3].config]


def test_no_configuration_is_proposed_twice_and_a_finite_space_ends():
    space = Space.parse({"a": {"choice": [1, 2, 3]}, "b": {"integer": [1, 4]}})
    rows = [row(0, space.at(0), end("completed", 0.0))]
    while proposed := propose(rows, space, 0, "optuna", "max"):
        config, origin = proposed
        rows.append(row(len(rows), config, end("completed", config["a"] * config["b"]), origin=origin))
    assert len({row.key for row in rows}) == len(rows) == space.size == 12


def test_the_last_of_a_large_space_are_found_by_counting():
    space = Space.parse({"a": {"integer": [0, 4999]}})
    rows = [row(n, {"a": n}, end("completed", n)) for n in range(5000) if n != 4321]
    assert propose(rows, space, 0, "random", "max") == ({"a": 4321}, "enumerated")


def test_rows_still_running_are_avoided():
    space = Space.parse({"x": {"uniform": [0, 1]}})
    done = [row(n, {"x": n / 12}, end("completed", -abs(n / 12 - 0.5))) for n in range(12)]
    running = [row(12 + n, {"x": 0.5 + n / 1000}) for n in range(6)]

    def distance(rows):
        return sum(abs(propose(rows, space, seed, "optuna", "max")[0]["x"] - 0.5) for seed in range(20))

    assert distance(done + running) > 1.2 * distance(done)


@pytest.mark.parametrize(
    "finish",
    [
        end("diverged"),
        end("failed", error="boom"),
        end("memory_cap", peak_mb=990.0, cap_mb=1000.0),  # an allocation was refused before it was made
        end("memory_cap", peak_mb=0.0, cap_mb=0.0),
    ],
)
def test_it_keeps_away_from_where_trials_end_badly(finish):
    space = Space.parse({"x": {"uniform": [0, 1]}})
    rows = [row(n, {"x": n / 16}, finish if n >= 8 else end("completed", n / 16)) for n in range(16)]
    proposals = [propose(rows, space, seed, "optuna", "max")[0]["x"] for seed in range(20)]
    assert sum(x >= 0.55 for x in proposals) <= 6


def test_where_nothing_fits_it_goes_to_where_the_least_is_missing():
    space = Space.parse({"x": {"uniform": [0, 1]}})
    xs = [1 - n / 16 for n in range(16)]
    rows = [row(n, {"x": x}, end("memory_cap", peak_mb=1100 + 900 * x, cap_mb=1000)) for n, x in enumerate(xs)]
    proposals = [propose(rows, space, seed, "optuna", "max")[0]["x"] for seed in range(20)]
    assert sum(proposals) / len(proposals) < 0.35


def test_a_lost_machine_says_nothing_about_a_configuration():
    space = Space.parse({"x": {"uniform": [0, 1]}})
    done = [row(n, {"x": n / 12}, end("completed", n)) for n in range(12)]

    def after_losing(x):
        lost = [row(12 + n, {"x": x + n / 100}, end("failed", lost=True)) for n in range(8)]
        return propose([*done, *lost], space, 0, "optuna", "max")

    assert after_losing(0.9) == after_losing(0.1)


def test_stopped_rows_count_by_their_curve():
    space = Space.parse({"x": {"uniform": [0, 1]}})
    rows = [row(n, {"x": n / 16}, end("stopped", 0.0), [-abs(n / 16 - 0.3)]) for n in range(16)]
    proposals = [propose(rows, space, seed, "optuna", "max")[0]["x"] for seed in range(20)]
    assert sum(abs(x - 0.3) < 0.25 for x in proposals) >= 13


def test_a_default_outside_of_the_space_does_no_harm():
    space = Space.parse({"x": {"uniform": [0, 1]}})
    rows = [row(0, {"x": 7.0}, end("completed", 1.0))]
    assert 0 <= propose(rows, space, 0, "optuna", "max")[0]["x"] <= 1


def test_proposals_are_json_with_the_options_themselves():
    config, _ = propose([], SPACE, 0, "optuna", "max")
    assert config["width"] in SPACE["width"].options
    assert isinstance(config["depth"], int)
    assert canonical(config)


def test_importance_finds_the_parameter_that_matters():
    rows = search(0, "random", 30)
    found = importances(rows, SPACE, "max")
    assert next(iter(found)) == "lr"
    assert sum(found.values()) == pytest.approx(1)
    assert found == importances(rows, SPACE, "max")
    assert importances(rows[:3], SPACE, "max") == {}


@pytest.mark.parametrize(("mode", "best"), [("max", [1, 3, 3]), ("min", [1, 1, 0.5])])
def test_history_holds_the_best_so_far(mode, best):
    values = [1, None, 3, 0.5]
    rows = [row(n, {"x": n}, end("completed" if v is not None else "memory_cap", v)) for n, v in enumerate(values)]
    assert history(rows, mode) == [(0, 1, best[0]), (2, 3, best[1]), (3, 0.5, best[2])]
