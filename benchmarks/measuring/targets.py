"""What the project set itself, and what was reached, from the kept results."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from measuring import records
from measuring.markdown import Table, percent

Figure = Callable[[], str | None]


@dataclass(frozen=True)
class Target:
    """What is asked, and the text of what was measured; None where it was not."""

    what: str
    asked: str
    reached: Figure


def table() -> Table:
    """Targets against results."""
    rows = [[one.what, one.asked, one.reached() or "not measured"] for one in TARGETS]
    return Table("Targets", ["", "target", "reached"], rows)


def _step(kind: str, against: str, setting: str = "2-threads") -> Figure:
    def reached() -> str | None:
        found = _figures("training_step", setting)
        if found is None or "small" not in found:
            return None
        row = found["small"]["variants"][kind]
        return f"{row['against'][against]['speedup']:.2f}x ({row['images_per_s']:.0f} images/s)"

    return reached


def _share() -> str | None:
    found = _figures("training_step", "2-threads")
    if found is None or "small" not in found:
        return None
    rates = found["small"]["gemm_gflop_per_s"]["fp32"]
    share = found["small"]["variants"]["ours, fp32"]["share_of_peak"]["fp32"]
    of_blas = share * rates["peak"] / rates["BLAS"]
    return f"{percent(share)} of {rates['peak']:.0f} GFLOP/s ({percent(of_blas)} of what the BLAS reaches)"


def _mixer(precision: str) -> Figure:
    def reached() -> str | None:
        found = _figures("mixer_and_block", "2-threads")
        if found is None:
            return None
        rows = [row for row in found if row["module"] == "BiLSTM2D" and row["precision"] == precision]
        ours = [row for row in rows if (row["side"], row["C"]) in ((8, 192), (4, 384))]  # small's own shapes
        ratios = [row["speedup"] for row in rows]
        own = ", ".join(f"{row['speedup']:.2f}x at {row['side']}x{row['side']}, C={row['C']}" for row in ours)
        return f"{own}; {min(ratios):.2f} to {max(ratios):.2f}x over all shapes"

    return reached


def _to_accuracy() -> str | None:
    found = _figures("time_to_accuracy", "default")
    seconds = [run["seconds"] for run in found or () if run["seconds"] is not None]
    return ", ".join(f"{value / 60:.1f}" for value in seconds) + " min" if seconds else None


def _cold_start() -> str | None:
    found = _figures("cold_start", "default")
    return found and " / ".join(f"{row['median_ms'] / 1000:.1f} s" for row in found.values())


def _overshoot() -> str | None:
    found = _figures("search_caps", "default")
    if found is None:
        return None
    most = max(one["seen from outside"] for one in found["overshoot_mb"].values())
    others = sum(found["outcomes"]["none"].values())
    return f"{most:+d} MB of {found['cap_mb']}; {found['others_equal']} of {others} others as alone, to the last bit"


def _search_time() -> str | None:
    found = _figures("search_time", "default")
    return found and f"{found['ratio']:.2f}x"


def _first_trial() -> str | None:
    found = _figures("search_time", "default")
    return (
        found and f"{statistics.median(found['start_s']):.1f} s ({found['first_start_ever_s']:.1f} s the first time)"
    )


def _growth() -> str | None:
    found = _figures("search_growth", "default")
    if found is None:
        return None
    held = found["held_mb"]
    return f"{held[str(found['trials'])] - held['200']:+.0f} MB"


def _nodes() -> str | None:
    found = _figures("search_nodes", "default")
    return found and f"{found['ratio']:.2f}x"


def _fit() -> str | None:
    found = _figures("search_fit", "default")
    return (
        found and f"{found['at_the_cap_after_a_start']} of {found['trials']}; {sum(found['fitted'].values())} fitted"
    )


def _room() -> str | None:
    found = _figures("search_fit", "default")
    if found is None or found["room"] is None:
        return None
    disturbed, same = found["room"]["disturbed"], found["room"]["same_figures"]
    figures = "the same figures" if same else "other figures"
    return f"{disturbed['lost']} lost, least available {disturbed['least_available_mb']} MB, {figures}"


def _forecast() -> str | None:
    found = _figures("forecast", "default")
    if found is None:
        return None
    limits = {"mb": (0.95, 1.10), "images_per_s": (0.75, 1.25)}
    ratios = {
        what: [row[f"forecast_{what}"] / row[f"measured_{what}"] for row in found["configs"]] for what in limits
    }
    within = {what: sum(low <= each <= high for each in ratios[what]) for what, (low, high) in limits.items()}
    return f"{within['mb']} and {within['images_per_s']} of {len(found['configs'])}"


def _laptops(part: str, reached: Callable[[Any], str]) -> Figure:
    def told() -> str | None:
        found = _figures("two_laptops", "default")
        return reached(found[part]) if found and part in found else None

    return told


def _beside(rate: Any) -> str:
    return " / ".join(f"{each / 1000:.2f} GB" for each in rate["2"]["beside_mb"].values())


def _after_join(join: Any) -> str:
    seconds = [each["first_step_s"] for each in join["joins"]]
    return f"{statistics.median(seconds):.1f} s (at most {max(seconds):.1f} s)"


def _torture(torture: Any) -> str:
    compared = torture["compared"]
    lost, doubled = len(compared["lost"]), len(compared["doubled"])
    best = "the same best" if compared["same_best"] else "another best"
    return f"{compared['ended_once']} of {compared['trials']} ended once, {lost} lost, {doubled} doubled, {best}"


def _figures(benchmark: str, setting: str) -> Any:
    record = records.read(benchmark)
    return record and records.figures(record, setting)


TARGETS = (
    Target(
        "training step of small, fp32, against timm's blocks in fp32",
        "1.5x",
        _step("ours, fp32", "timm's blocks, fp32"),
    ),
    Target(
        "the same, bf16, against timm's blocks under bf16 autocast",
        "2.5x",
        _step("ours, bf16", "timm's blocks, bf16"),
    ),
    Target("the same, bf16, against timm's blocks in fp32", "5x", _step("ours, bf16", "timm's blocks, fp32")),
    Target("the same at AVX2, fp32 against fp32", "1.4x", _step("ours, fp32", "timm's blocks, fp32", "avx2")),
    Target("BiLSTM2D alone, fp32", "2.5x", _mixer("fp32")),
    Target("BiLSTM2D alone, bf16", "3x", _mixer("bf16")),
    Target("share of the measured fp32 GEMM peak, whole fp32 step", "70 %", _share),
    Target("small from a cold start to 84.85 % on validation", "4 min", _to_accuracy),
    Target("from the command to the first step, first run ever / afterwards", "20 s / 4 s", _cold_start),
    Target("trials over their memory cap, the most", "at most 64 MB or 10 %", _overshoot),
    Target("a search of equal trials of a minute, against a plain loop", "at most 1.15x", _search_time),
    Target("from `seqpipe tune` to the end of a first epoch of three steps", "at most 15 s", _first_trial),
    Target("a driver's memory after trial 2000, against that after trial 200", "within 40 MB", _growth),
    Target("trials an hour on two Ray nodes of one core, against one", "1.8x", _nodes),
    Target("trials of small under 1000 MB that end at the cap after a start", "none", _fit),
    Target("trials of medium lost in 8 GB beside a program that takes all but 300 MB", "none", _room),
    Target(
        "forecasts of forty random configs: memory 5 % too low to 10 % too high, images/s within 25 %",
        "all",
        _forecast,
    ),
    Target(
        "trials an hour on two laptops of one core, against one",
        "1.8x",
        _laptops("rate", lambda rate: f"{rate['ratio']:.2f}x (plain loops: {rate['loops_ratio']:.2f}x)"),
    ),
    Target("from `cluster join` to the first step there, data not there", "25 s", _laptops("join", _after_join)),
    Target("held beside the trials on laptops A / B", "at most 1.2 GB / 0.5 GB", _laptops("rate", _beside)),
    Target(
        "sent to laptop B in a search",
        "the prepared arrays once, checkpoints of running trials",
        _laptops("rate", lambda rate: f"{rate['2']['sent_to_b_mb']:.0f} MB; arrays {rate['prepared_mb']:.0f} MB"),
    ),
    Target(
        "forty short trials on two laptops, something happens every 20 s",
        "none lost or doubled, same best",
        _laptops("torture", _torture),
    ),
)
