"""A whole training step (forward, loss, backward, clipping, fused AdamW: the loop's own), against timm's blocks.

    python benchmarks/training_step.py [--rounds N] [--settings 2-threads 1-thread avx2] [--models small vanilla]

Both networks hold the same weights and differ in their blocks. "ours" is what a run resolves on this machine; the
other kinds of ours change one thing. The peer of vanilla is the same with `nn.LSTM`. The share of the GEMM peak is
the rate of a step's matrix products (all of its time, none of its other work) to the best that a large product
reached in the same rounds, through either library. Memory is the most that a training held, in a process of its own.
"""

import argparse
import json
import sys
from typing import Any

from measuring import gemm, memory
from measuring.benchmark import Benchmark
from measuring.markdown import Table, machine_in_words, milliseconds, percent
from measuring.ours import precisions, set_up
from measuring.records import Record
from measuring.settings import BY_NAME, EVERY, TWO_THREADS, Setting
from measuring.timing import interleaved, say, speedup
from measuring.training import batches_of, first_batch, made_up_split, step, training_of
from measuring.variants import networks, variants

from pipeline.config.models import MODEL_NAMES
from pipeline.config.resolution import resolve
from sequencer_models.flops import training_flops

STEPS_FOR_MEMORY = 4


def measure(options: argparse.Namespace, setting: Setting) -> dict[str, Any]:
    set_up(setting)
    return {model: measure_model(model, options.rounds, setting) for model in options.models}


def measure_model(model: str, rounds: int, setting: Setting) -> dict[str, Any]:
    """Every variant of one model, in turn with the GEMMs."""
    config = resolve(model)
    batches = batches_of(made_up_split(), config)
    batch = first_batch(batches)
    ours, theirs = networks(config)
    flops = training_flops(ours, batch.images[:1])
    compared = variants(model, setting)
    numerics = {one.name: one.numerics(setting, config) for one in compared}
    first = numerics[compared[0].name]
    with (
        training_of(ours, config, first, batches) as our,
        training_of(theirs or ours, config, first, batches) as their,
    ):
        ways = {
            one.name: step(their if one.is_peer else our, numerics[one.name], batch, one.kernels(numerics[one.name]))
            for one in compared
        }
        times = interleaved(ways | gemm.ways(precisions(setting)), rounds)
    rates = {precision: gemm.rates(times, precision) for precision in precisions(setting)}
    images = len(batch)
    found: dict[str, Any] = {
        "gflop_per_image": flops / 1e9,
        "batch": images,
        "gemm_gflop_per_s": rates,
        "variants": {},
    }
    for one in compared:
        taken = times[one.name]
        rate = images / taken.median_s
        found["variants"][one.name] = {
            "kind": one.kind,
            "precision": one.precision,
            "numerics": numerics[one.name].to_json(),
            **taken.to_json(),
            "images_per_s": round(rate, 1),
            "share_of_peak": {name: round(rate * flops / 1e9 / peak["peak"], 3) for name, peak in rates.items()},
            "against": {
                other.name: speedup(times[other.name], taken)
                for other in compared
                if other.kind == ("ours, eager" if model == "vanilla" else "timm's blocks")
            },
        }
        if setting == TWO_THREADS:
            found["variants"][one.name]["memory"] = memory.of_child(["--peak", setting.name, model, one.name])
        say(f"{model}: {one.name}: {rate:.0f} images/s")
    return found


def peak_memory(setting: Setting, model: str, name: str) -> dict[str, int]:
    """Memory of one variant in this process."""
    set_up(setting)
    config = resolve(model)
    variant = next(one for one in variants(model, setting) if one.name == name)
    numerics = variant.numerics(setting, config)
    with memory.watched() as found:
        batches = batches_of(made_up_split(1000), config)
        ours, theirs = networks(config, peer=variant.is_peer)
        with training_of(theirs or ours, config, numerics, batches) as training:
            one = step(training, numerics, first_batch(batches), variant.kernels(numerics))
            del ours, theirs
            for _ in range(STEPS_FOR_MEMORY):
                one()
    return found


def tables(record: Record) -> list[Table]:
    return [
        _table(model, figures, part)
        for part in record["settings"].values()
        for model, figures in part["figures"].items()
    ]


def _table(model: str, figures: dict[str, Any], part: dict[str, Any]) -> Table:
    peers = list(next(iter(figures["variants"].values()))["against"])
    has_memory = any("memory" in row for row in figures["variants"].values())
    columns = ["", "ms", "images/s", *(f"times {peer}" for peer in peers)]
    columns += [f"of the {precision} GEMM peak" for precision in figures["gemm_gflop_per_s"]]
    columns += ["peak memory, MB (resident)"] if has_memory else []
    rows = []
    for name, row in figures["variants"].items():
        cells = [name, milliseconds(row), f"{row['images_per_s']:.0f}"]
        cells += [f"{row['against'][peer]['speedup']:.2f}" for peer in peers]
        cells += [percent(share) for share in row["share_of_peak"].values()]
        if has_memory:
            cells.append(f"{row['memory']['peak_mb']} ({row['memory']['peak_resident_mb']})")
        rows.append(cells)
    peaks = ", ".join(
        f"{precision} {rates['BLAS']:.0f} by the BLAS and {rates['oneDNN']:.0f} by oneDNN"
        for precision, rates in figures["gemm_gflop_per_s"].items()
    )
    bounds = " and ".join(
        f"{rates['peak'] / figures['gflop_per_image']:.0f} in {precision}"
        for precision, rates in figures["gemm_gflop_per_s"].items()
    )
    notes = [
        f"Batch {figures['batch']}, {figures['gflop_per_image']:.3f} GFLOP an image; GEMM, GFLOP/s: {peaks}. "
        f"A step that were nothing but GEMMs at their peak would do {bounds} images/s.",
        machine_in_words(part["machine"]),
    ]
    return Table(f"Training step of {model}: {part['label']}", columns, rows, notes)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", nargs="+", choices=MODEL_NAMES, default=list(MODEL_NAMES))


BENCHMARK = Benchmark("training_step", measure, tables, settings=EVERY, add_arguments=_arguments)

if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        print(json.dumps(peak_memory(BY_NAME[sys.argv[2]], *sys.argv[3:])))
    else:
        BENCHMARK.main()
