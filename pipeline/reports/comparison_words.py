"""A comparison of runs in words: sections of lines and tables, which the command and the page show alike."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.config.difference import Difference
from pipeline.counts import counted
from pipeline.promotion.bootstrap import Interval
from pipeline.promotion.comparison import Comparison, Disagreement
from pipeline.promotion.seeds import Estimate
from pipeline.reports.run_comparison import Against, Figures, RunComparison
from pipeline.reports.validation_comparison import ValidationComparison, ValidationFigures

_FEW = 5


@dataclass(frozen=True)
class Section:
    """A heading, a table (no columns: none), and lines below it."""

    heading: str
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    lines: Sequence[str] = ()


def letter(number: int) -> str:
    """The name of what is shown beside others: A, B, ..., Z, AA, AB, ..."""
    return (letter(number // 26 - 1) if number >= 26 else "") + chr(ord("A") + number % 26)


def sections(found: RunComparison | ValidationComparison) -> Iterator[Section]:
    """First every side, then each against the first."""
    return _on_validation(found) if isinstance(found, ValidationComparison) else _on_test(found)


def _on_test(found: RunComparison) -> Iterator[Section]:
    yield Section(
        f"{len(found.class_names)} classes, {found.images} test images",
        ["", "run", "model", "parameters", "test accuracy", "95 % interval", "loss", "calibration error"],
        [_figure_row(letter(number), side) for number, side in enumerate(found.sides)],
        sorted({f"the intervals of accuracy are over {side.interval_of}" for side in found.sides}),
    )
    for number, against in enumerate(found.against, start=1):
        yield from against_sections(letter(number), against, found.class_names)


def _figure_row(name: str, side: Figures) -> list[str]:
    return [
        name,
        side.name,
        side.model,
        "-" if side.parameters is None else str(side.parameters),
        f"{100 * side.accuracy:.2f} %",
        f"{100 * side.accuracy_low:.2f} to {100 * side.accuracy_high:.2f} %",
        f"{side.loss:.4f}",
        f"{side.ece:.4f}",
    ]


def against_sections(name: str, against: Against, class_names: Sequence[str]) -> Iterator[Section]:
    """The differences of a side, called `name`, from the first one, A."""
    yield _settings(name, against.settings)
    if against.paired is not None:
        yield from _paired(name, against.paired, class_names)
    elif against.accuracy is not None and against.log_loss is not None:
        yield _groups(name, against.accuracy, against.log_loss)


def _settings(name: str, differing: Sequence[Difference] | None) -> Section:
    heading = f"settings of A and {name}"
    if differing is None:
        return Section(heading, lines=["the settings of one of them are not known in this workspace"])
    if not differing:
        return Section(heading, lines=["they are the same"])
    rows = [[one.key, _value(one.before), _value(one.after)] for one in differing]
    return Section(heading, ["setting", "A", name], rows)


def _on_validation(found: ValidationComparison) -> Iterator[Section]:
    yield Section(
        f"{len(found.class_names)} classes, {found.images} validation images",
        ["", "run", "model", "trained", "validation accuracy", "95 % interval", "loss", "at epoch"],
        [_validation_row(letter(number), side) for number, side in enumerate(found.sides)],
        [
            "on validation images, since a trial of a search predicts no test images: to choose among trials by test "
            "figures would spend them",
            "each figure is of the best epoch, and the best of many trials owes some of its own to luck: train its "
            "settings with `seqpipe run all --config FILE`, and compare that on the test images",
            "the intervals of accuracy are over images",
        ],
    )
    for number, against in enumerate(found.against, start=1):
        name = letter(number)
        yield _settings(name, against.settings)
        yield Section(
            f"{name} less A",
            lines=[
                f"accuracy {_points(against.accuracy)} (Newcombe, as if on different images: which ones a trial got "
                "right is not kept, so no test is paired, and the interval is rather too wide)"
            ],
        )


def _validation_row(name: str, side: ValidationFigures) -> list[str]:
    return [
        name,
        side.name,
        side.model,
        side.trained,
        f"{100 * side.accuracy:.2f} %",
        f"{100 * side.accuracy_low:.2f} to {100 * side.accuracy_high:.2f} %",
        "-" if side.loss is None else f"{side.loss:.4f}",
        str(side.epoch),
    ]


def _paired(name: str, paired: Comparison, class_names: Sequence[str]) -> Iterator[Section]:
    counts = paired.counts
    yield Section(
        f"{name} less A",
        lines=[
            f"accuracy {_points(paired.accuracy)} (paired bootstrap over images)",
            f"log loss {_nats(paired.log_loss)} (the same)",
            f"only A is right on {counted(counts.only_first, 'image')}, only {name} on {counts.only_second}: "
            f"p {paired.p_value:.3g} (exact McNemar test, two-sided)",
            "this holds for these two trained models; other seeds may differ: compare groups (A+B, A:seeds)",
        ],
    )
    yield Section(
        f"{name} less A, by class",
        ["class", "images", "A", name, "points", "p", "p for all classes"],
        [
            [
                one.name,
                str(one.counts.images),
                f"{100 * one.first_recall:.2f} %",
                f"{100 * one.second_recall:.2f} %",
                f"{100 * one.counts.difference:+.2f}",
                f"{one.p_value:.3g}",
                f"{one.adjusted_p_value:.3g}",
            ]
            for one in paired.classes
        ],
        ["p of the exact McNemar test on the images of the class; for all classes corrected by Holm"],
    )
    shown = paired.disagreements[:_FEW]
    yield Section(
        f"A and {name} disagree on {counted(len(paired.disagreements), 'image')}",
        ["image", "class", "A says", f"{name} says"] if shown else (),
        [_disagreement_row(one, class_names) for one in shown],
    )


def _disagreement_row(one: Disagreement, class_names: Sequence[str]) -> list[str]:
    return [
        str(one.image),
        class_names[one.label],
        f"{class_names[one.first]} {100 * one.first_confidence:.0f} %",
        f"{class_names[one.second]} {100 * one.second_confidence:.0f} %",
    ]


def _groups(name: str, accuracy: Estimate, log_loss: Estimate) -> Section:
    return Section(
        f"{name} less A",
        lines=[
            f"accuracy {_points(accuracy)}, p {accuracy.p_value:.3g}",
            f"log loss {_nats(log_loss)}, p {log_loss.p_value:.3g}",
            f"over {accuracy.unit} (t distribution, {accuracy.degrees:.1f} degrees of freedom)"
            + (": a group of one run does not show what its seed does" if accuracy.unit == "images" else ""),
        ],
    )


def _points(one: Interval | Estimate) -> str:
    return f"{100 * one.estimate:+.2f} points, 95 % interval {100 * one.low:+.2f} to {100 * one.high:+.2f}"


def _nats(one: Interval | Estimate) -> str:
    return f"{one.estimate:+.4f}, 95 % interval {one.low:+.4f} to {one.high:+.4f}"


def _value(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
