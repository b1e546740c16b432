"""Where the time of a training step of small goes, before (`nn.LSTM`, products by the BLAS) and after (as resolved).

    python benchmarks/step_profile.py [--rounds N]

Time that each operation spends in itself, from torch's profiler, medians over the steps. `nn.LSTM` does the products
with its inputs inside, where the native kernel leaves them to the linear maps: compare the sum of the two rows.
"""

import argparse
import statistics
from collections.abc import Mapping
from typing import Any

from measuring.benchmark import Benchmark
from measuring.markdown import Table, machine_in_words, percent
from measuring.ours import kernels_of, numerics, precisions, set_up
from measuring.records import Record
from measuring.settings import Setting
from measuring.timing import WARM_UP
from measuring.training import batches_of, first_batch, made_up_split, step, training_of
from torch.profiler import ProfilerActivity, profile

from pipeline.config.resolution import resolve
from pipeline.training.models import build_model
from sequencer_models.kernels import Kernels

GROUPS = {
    "linear maps and convolutions": (
        "aten::mm", "aten::addmm", "aten::bmm", "aten::mkldnn_convolution", "aten::convolution_backward",
    ),
    "recurrence": ("_NativeLstm", "_NativeLstmBackward", "aten::mkldnn_rnn_layer", "aten::mkldnn_rnn_layer_backward"),
    "LayerNorm": ("aten::native_layer_norm", "aten::native_layer_norm_backward"),
    "GELU": ("aten::gelu", "aten::gelu_backward"),
    "optimiser, clipping": (
        "aten::_fused_adamw_", "aten::linalg_vector_norm", "aten::mul_", "aten::_foreach_norm", "aten::_foreach_mul_",
        "Optimizer.step#AdamW.step", "Optimizer.zero_grad#AdamW.zero_grad",
    ),
    "conversions, copies": (
        "aten::copy_", "aten::_to_copy", "aten::to", "aten::cat", "aten::fill_", "aten::clone", "aten::contiguous",
    ),
}  # fmt: skip
REST = "everything else"


def measure(options: argparse.Namespace, setting: Setting) -> list[dict[str, Any]]:
    set_up(setting)
    config = resolve("small")
    batches = batches_of(made_up_split(1000), config)
    batch = first_batch(batches)
    found = []
    model = build_model(config, 4)
    for precision in precisions(setting):
        chosen = numerics(precision, setting)
        with training_of(model, config, chosen, batches) as training:
            for when, ways in (("before", Kernels()), ("after", kernels_of(chosen))):
                one = step(training, chosen, batch, ways)
                for _ in range(WARM_UP):
                    one()
                rounds = []
                for _ in range(options.rounds):
                    with profile(activities=[ProfilerActivity.CPU]) as profiled:
                        one()
                    events = {event.key: event.self_cpu_time_total / 1000 for event in profiled.key_averages()}
                    rounds.append(grouped(events))
                medians = {group: round(statistics.median(row[group] for row in rounds), 3) for group in rounds[0]}
                found.append({"precision": precision, "when": when, "ways": str(ways), "ms": medians})
    return found


def grouped(events: Mapping[str, float]) -> dict[str, float]:
    """Times by operation to times by group; what belongs to none is the rest."""
    group_of = {key: group for group, keys in GROUPS.items() for key in keys}
    sums = dict.fromkeys([*GROUPS, REST], 0.0)
    for key, ms in events.items():
        sums[group_of.get(key, REST)] += ms
    return sums


def tables(record: Record) -> list[Table]:
    found = []
    for part in record["settings"].values():
        columns = part["figures"]
        totals = [sum(column["ms"].values()) for column in columns]
        rows = [
            [group, *(f"{column['ms'][group]:.1f} ({percent(column['ms'][group] / total)})" for column, total in
                      zip(columns, totals, strict=True))]
            for group in (*GROUPS, REST)
        ]  # fmt: skip
        rows.append(["all", *(f"{total:.0f}" for total in totals)])
        titles = ["milliseconds", *(f"{column['precision']} {column['when']}" for column in columns)]
        found.append(
            Table("A training step of small, where the time goes", titles, rows, [machine_in_words(part["machine"])])
        )
    return found


BENCHMARK = Benchmark("step_profile", measure, tables)

if __name__ == "__main__":
    BENCHMARK.main()
