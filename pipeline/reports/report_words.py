"""What a report says in figures and words: its tables' rows, and the command that makes a training again."""

import shlex
from collections.abc import Iterator, Sequence

from pipeline.durations import readable
from pipeline.percent import percent
from pipeline.reports.group_facts import GroupFacts
from pipeline.reports.search_facts import NodeWork
from pipeline.reports.training_facts import TrainingFacts
from pipeline.stages.last_runs import changes
from pipeline.stages.run_page import CONFIG_FILE

TABLE_COLUMNS = (
    "", "model", "test accuracy", "95 % interval", "published", "difference", "seeds",
    "validation accuracy", "loss", "calibration error", "parameters", "one image", "arithmetic",
)  # fmt: skip
SEED_COLUMNS = (
    "seed", "validation accuracy", "test accuracy", "95 % interval", "loss", "calibration error", "epochs", "time",
    "peak memory", "on", "run",
)  # fmt: skip
NODE_COLUMNS = ("on", "how many", "epochs", "time", "largest peak memory", "computed with")


def table_row(group: GroupFacts) -> list[str]:
    """A group under `TABLE_COLUMNS`."""
    test, first, median = group.test, group.first, group.median
    row, over = group.published, group.points_over_published
    parameters = first.run.parameters
    pflop = first.run.trained.pflop if first.run.trained else None
    return [
        group.letter,
        first.run.model,
        percent(test.mean) if test else "-",
        _interval(group),
        percent(row.published_accuracy) if row and row.published_accuracy is not None else "-",
        "-" if over is None else f"{over:+.2f} points",
        ", ".join(str(one.seed) for one in group.trainings if one.seed is not None) or "-",
        percent(group.validation.mean) if group.validation else "-",
        "-" if group.loss is None else f"{group.loss:.4f}",
        percent(group.ece),
        "-" if parameters is None else f"{parameters:,}",
        f"{median.latency.ms:.2f} ms" if median.latency else "-",
        "-" if pflop is None else arithmetic(pflop),
    ]


def table_lines(groups: Sequence[GroupFacts]) -> Iterator[str]:
    """What the figures of the table mean, and why some stand without a published one."""
    if len(groups) > 1:
        yield "In the order of the accuracy on validation images, on which every choice was made; A is the best."
    if any(len(group.trainings) > 1 for group in groups):
        yield (
            "Of several seeds: the mean, and the interval of the mean over seeds (Student's t). Of one seed: the "
            "interval over test images (Wilson)."
        )
    elif any(group.test for group in groups):
        yield "The interval of one seed is over test images (Wilson); another seed may lie outside of it."
    reasons: dict[str, list[str]] = {}
    for group in groups:
        if (row := group.published) is not None and row.reason:
            reasons.setdefault(row.reason, []).append(group.letter)
    for reason, letters in reasons.items():
        yield f"No published figure beside {', '.join(letters)}: {reason}."
    if any(group.published and group.published.published_accuracy is not None for group in groups):
        yield "Published: what the original notebooks reached on the same test images."
    if mirrored := [group.letter for group in groups if group.median.is_mirrored]:
        yield f"{', '.join(mirrored)}: each test image was seen from both sides, which takes twice the time."
    if any(group.median.latency for group in groups):
        yield "One image: the fastest pass for a single image on the machine that evaluated the model."
    for group in groups:
        for one in group.trainings:
            for what in one.missing:
                yield f"{group.letter}, {one.name}: {what}."


def seed_row(one: TrainingFacts) -> list[str]:
    """A training under `SEED_COLUMNS`."""
    trained, metrics = one.run.trained, one.metrics
    return [
        "-" if one.seed is None else str(one.seed),
        percent(one.validation_accuracy),
        percent(metrics.accuracy) if metrics else "-",
        f"{100 * metrics.accuracy_low:.2f} to {100 * metrics.accuracy_high:.2f} %" if metrics else "-",
        f"{metrics.loss:.4f}" if metrics else "-",
        percent(metrics.ece) if metrics else "-",
        f"{trained.epochs}, best {trained.best_epoch}" if trained else "-",
        readable(trained.trained_s) if trained else "-",
        f"{trained.peak_memory_mb:.0f} MB" if trained else "-",
        one.node or "-",
        one.run.key,
    ]


def node_row(work: NodeWork) -> list[str]:
    """What a node did under `NODE_COLUMNS`."""
    return [
        work.node,
        str(work.trials),
        str(work.epochs),
        readable(work.seconds),
        f"{work.peak_mb:.0f} MB",
        work.computes_with or "-",
    ]


def commands_again(group: GroupFacts) -> list[str]:
    """The commands that train a group again, with its settings in a file."""
    trained = group.first.run.trained
    commit = (trained.git_commit or "") if trained else ""
    clean = commit.removesuffix("-dirty")
    lines = (
        [f"git checkout {clean}" + ("  # and changes that no commit has" if clean != commit else "")] if clean else []
    )
    seeds = [str(one.seed) for one in group.trainings if one.seed is not None]
    flag = f" --seeds {','.join(seeds)}" if len(seeds) > 1 else f" --seed {seeds[0]}" if seeds else ""
    return [*lines, f"seqpipe run all --config {CONFIG_FILE}{flag}"]


def in_one_command(group: GroupFacts) -> str:
    """The same without a file, with the settings that differ from the defaults; empty where they are not known."""
    config = group.first.config
    if config is None:
        return ""
    words = ["seqpipe", "run", "all", "--model", config.model.name]
    for change in changes(config):
        key, _, value = change.partition("=")
        words += ["--recipe", value] if key == "recipe" else [] if key == "seed" else ["--set", change]
    seeds = ",".join(str(one.seed) for one in group.trainings)
    return shlex.join([*words, "--seeds" if len(group.trainings) > 1 else "--seed", seeds])


def arithmetic(pflop: float) -> str:
    """Floating point operations, in the unit that needs the fewest zeros."""
    for unit, size in (("PFLOP", 1.0), ("TFLOP", 1e-3)):
        if pflop >= 0.1 * size:
            return f"{pflop / size:.3g} {unit}"
    return f"{pflop / 1e-6:.3g} GFLOP"


def _interval(group: GroupFacts) -> str:
    test, metrics = group.test, group.median.metrics
    if test is not None and test.low is not None and test.high is not None:
        return f"{100 * test.low:.2f} to {100 * test.high:.2f} %"
    if metrics is not None:
        return f"{100 * metrics.accuracy_low:.2f} to {100 * metrics.accuracy_high:.2f} %"
    return "-"
