"""Forecasts of trainings against what they then hold and take: random configs of the three default spaces.

    python benchmarks/forecast.py [--configs 40] [--data FOLDER]

Half of the configs are fitted to a cap between the least and the most that they can do with. Each is trained as a
trial of a search is, for two epochs of some seconds each. Its time is forecast from timed steps of another process.
"""

import argparse
import math
import random
import statistics
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from measuring.benchmark import Benchmark
from measuring.markdown import Table, machine_in_words, percent
from measuring.records import FOLDER, Record
from measuring.settings import Setting
from measuring.timing import say
from measuring.trials import train_alone, training_trial
from measuring.workspaces import Place, with_data

from pipeline.config.resolution import resolve, with_values
from pipeline.config.schema import RunConfig
from pipeline.data.subset import expected_images
from pipeline.search.space import default_space
from pipeline.search.trial import warm_up
from pipeline.training.forecaster import TrainingForecaster
from sequencer_models.catalog import MODELS
from tuning.capped.run_capped import run_capped
from tuning.space import Choice, Integer, LogUniform, Parameter

SEED = 7
NO_CAP_MB = 100_000
SETS = ("train.epochs=2", "compute.device=cpu")
EPOCH_S = 6.0
"""What an epoch is to take at the forecast speed: in a shorter one a checkpoint's write counts for much."""
PICTURE = "forecast.png"


def measure(options: argparse.Namespace, setting: Setting) -> dict[str, Any]:
    draws, rows = random.Random(SEED), []
    with tempfile.TemporaryDirectory() as name, TrainingForecaster() as forecaster:
        folder = Path(name)
        place = with_data(Place(folder / "place", folder / "cache"), options.data)
        for number in range(options.configs):
            config = drawn(draws, list(MODELS)[number % len(MODELS)])
            row = compare(
                forecaster, place.root, config, draws.random() if number % 2 else None, folder / str(number)
            )
            say(f"{number}: " + ", ".join(f"{key} {value}" for key, value in row.items()))
            rows.append(row)
    draw(rows)
    return {"configs": rows}


def drawn(draws: random.Random, model: str) -> RunConfig:
    """A random config of a model's default space, in a random precision and by a random kernel."""
    config = resolve(model, sets=SETS)
    values = {name: _value(draws, parameter) for name, parameter in default_space(model).items()}
    values["compute.precision"] = draws.choice(["fp32", "bf16"])
    values["compute.kernel"] = draws.choice(["auto", "eager"])
    values["compute.threads"] = draws.choice([1, 2])
    return with_values(config, values)


def _value(draws: random.Random, parameter: Parameter) -> Any:
    match parameter:
        case Choice(options):
            return draws.choice(list(options))
        case Integer():
            return draws.choice(list(parameter.values()))
        case LogUniform(low, high):
            return low * (high / low) ** draws.random()
        case _:
            return draws.uniform(parameter.low, parameter.high)


def compare(
    forecaster: TrainingForecaster, root: Path, config: RunConfig, tightness: float | None, folder: Path
) -> dict[str, Any]:
    """What was forecast, and what was measured; `tightness`: where its cap lies between the least and the most."""
    memory = forecaster.memory(config, len(config.data.class_names))
    cap_mb = NO_CAP_MB
    if tightness is not None:
        least, most = (memory.fit(config, mb).peak_mb for mb in (0.0, math.inf))
        cap_mb = math.ceil(least + tightness * (most - least))
    forecast = forecaster.forecast_trial(config, cap_mb)
    (folder / "work").mkdir(parents=True)
    speed = forecast.images_per_s or 0.0
    fraction = min(1.0, max(0.01, EPOCH_S * speed / expected_images(config.data)[0]))
    trial = training_trial(with_values(config, {"data.fraction": round(fraction, 3)}), root)
    found = run_capped(
        train_alone,
        trial,
        folder,
        cap_mb,
        cap_mb=NO_CAP_MB,
        warm_up=partial(warm_up, config),
        on_message=lambda _: None,
    )
    if found.value is None:
        raise RuntimeError(found.traceback or found.error)
    return {
        "model": config.model.name,
        "precision": config.compute.precision,
        "kernel": config.compute.kernel,
        "batch": config.train.batch_size,
        "images_at_once": forecast.micro_batch_size,
        "checkpointing": forecast.checkpointing,
        "cap_mb": None if tightness is None else cap_mb,
        "forecast_mb": round(forecast.peak_mb),
        "measured_mb": round(found.peak_mb),
        "forecast_images_per_s": forecast.images_per_s,
        "measured_images_per_s": round(found.value, 1),
    }


def draw(rows: list[dict[str, Any]]) -> None:
    """The forecasts against the measurements, as a picture beside the results."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4.8), constrained_layout=True)
    for axis, what, unit in zip(axes, ("mb", "images_per_s"), ("peak memory, MB", "images/s"), strict=True):
        points = [(row[f"measured_{what}"], row[f"forecast_{what}"], row["model"]) for row in rows]
        for model in MODELS:
            axis.scatter(*zip(*[(x, y) for x, y, name in points if name == model], strict=True), s=18, label=model)
        ends = [min(min(x, y) for x, y, _ in points), max(max(x, y) for x, y, _ in points)]
        axis.plot(ends, ends, color="grey", linewidth=0.8, label="as measured")
        for share in (0.95, 1.10) if what == "mb" else (0.75, 1.25):
            axis.plot(ends, [share * end for end in ends], color="grey", linewidth=0.8, linestyle=":")
        axis.set(xscale="log", yscale="log", xlabel=f"measured: {unit}", ylabel="forecast")
        axis.legend()
    figure.savefig(FOLDER / PICTURE, dpi=110)


def ratios(rows: list[dict[str, Any]], what: str) -> list[float]:
    """Forecast over measured."""
    return sorted(row[f"forecast_{what}"] / row[f"measured_{what}"] for row in rows)


def tables(record: Record) -> list[Table]:
    found = []
    for part in record["settings"].values():
        rows = part["figures"]["configs"]
        lines = []
        for what, name, low, high in (("mb", "peak memory", 0.95, 1.10), ("images_per_s", "images/s", 0.75, 1.25)):
            all_of_them = ratios(rows, what)
            within = sum(low <= ratio <= high for ratio in all_of_them)
            lines.append(
                [
                    name,
                    f"{all_of_them[0]:.2f} to {all_of_them[-1]:.2f}",
                    f"{statistics.median(all_of_them):.2f}",
                    f"{within} of {len(rows)} ({percent(low - 1)} to {percent(high - 1)})",
                ]
            )
        title = f"Forecast over measured, {len(rows)} random configs of the default spaces"
        columns = ["", "forecast / measured", "median", "within"]
        found.append(Table(title, columns, lines, [f"![forecasts]({PICTURE})", machine_in_words(part["machine"])]))
    return found


BENCHMARK = Benchmark(
    "forecast",
    measure,
    tables,
    rounds=None,
    add_arguments=lambda parser: parser.add_argument("--configs", type=int, default=40),
)

if __name__ == "__main__":
    BENCHMARK.main()
