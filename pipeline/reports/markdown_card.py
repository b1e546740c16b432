"""The Markdown model card of one training: what it is, how well it does, where it fails, and where it comes from."""

from collections.abc import Iterable, Iterator, Sequence

from pipeline.percent import percent
from pipeline.reports.group_facts import GroupFacts
from pipeline.reports.report_words import arithmetic, commands_again
from pipeline.reports.training_facts import TrainingFacts

MARK = "<!-- made by `seqpipe report` -->"
"""The first line of a card, by which one is known."""
_CONFUSIONS = 5


def card_of(group: GroupFacts, training: TrainingFacts) -> str:
    """The card of a training, which is one of the group's."""
    return "\n".join([MARK, *_lines(group, training)]) + "\n"


def is_card(content: bytes) -> bool:
    """Whether a file is a card that this made."""
    return content.startswith(MARK.encode())


def _lines(group: GroupFacts, one: TrainingFacts) -> Iterator[str]:
    metrics, trained, prepared = one.metrics, one.run.trained, one.run.prepared
    yield from (f"# {one.run.name}", "")
    classes = metrics.class_names if metrics else prepared.class_names if prepared else ()
    what = f"A classifier of 32 x 32 images into {len(classes)} classes: {', '.join(classes)}."
    yield from (what if classes else "A classifier of 32 x 32 images.", "")
    yield from _table(
        ("", ""),
        [
            ("architecture", one.run.model),
            ("parameters", "" if one.run.parameters is None else f"{one.run.parameters:,}"),
            ("arithmetic of the training", arithmetic(trained.pflop) if trained and trained.pflop else ""),
            ("one image", f"{one.latency.ms:.2f} ms on {one.latency.machine}" if one.latency else ""),
            ("views of an image", "it and its mirror image" if one.is_mirrored else ""),
        ],
    )
    yield from ("", "## How well it does", "")
    yield from _figures(group, one)
    yield from _classes(one)
    yield from ("", "## What it is not for", "")
    yield (
        "It knows its classes and nothing else: an image of anything becomes one of them. It was trained and tested "
        "on small, centred photos of one data set; other cameras, crops and sizes are harder. Its probabilities are "
        "calibrated as far as the error above says, on images like those."
    )
    yield from ("", "## Where it comes from", "")
    yield from _table(("", ""), one.lineage.items())
    if one.config is not None:
        yield from (
            "",
            "## How to make it again",
            "",
            *(f"    {line}" for line in commands_again(_alone(group, one))),
        )
        yield from ("", "with these settings as `config.yaml`:", "", "```yaml", one.config_text.rstrip(), "```")
    if one.missing:
        yield from ("", "## What is missing here", "", *(f"- {what}" for what in one.missing))


def _figures(group: GroupFacts, one: TrainingFacts) -> Iterator[str]:
    metrics, row = one.metrics, one.against_published
    rows = [("validation accuracy", percent(one.validation_accuracy))]
    if metrics is not None:
        low, high = percent(metrics.accuracy_low), percent(metrics.accuracy_high)
        rows += [
            (
                "test accuracy",
                f"{percent(metrics.accuracy)} of {metrics.images} images (95 % interval {low} to {high})",
            ),
            ("test loss", f"{metrics.loss:.4f} nats"),
            ("macro-F1", percent(metrics.macro_f1)),
            ("expected calibration error", percent(metrics.ece)),
        ]
    if row is not None and row.published_accuracy is not None:
        rows.append(("published", f"{percent(row.published_accuracy)} ({row.difference_points:+.2f} points here)"))
    if len(group.trainings) > 1 and group.test is not None:
        rows.append(("over its seeds", group.test.in_words()))
    yield from _table(("figure", "value"), rows)
    if row is not None and row.reason:
        yield from ("", f"No published figure stands beside it: {row.reason}.")


def _classes(one: TrainingFacts) -> Iterator[str]:
    if one.metrics is None:
        return
    yield ""
    yield from _table(
        ("class", "precision", "recall", "F1", "images"),
        [
            (scores.name, percent(scores.precision), percent(scores.recall), percent(scores.f1), str(scores.support))
            for scores in one.metrics.classes
        ],
    )
    names = one.metrics.class_names
    counted = [
        (count, names[label], names[predicted])
        for label, row in enumerate(one.metrics.confusion)
        for predicted, count in enumerate(row)
        if label != predicted and count
    ]
    if counted:
        most = sorted(counted, key=lambda each: -each[0])[:_CONFUSIONS]
        words = "; ".join(f"{label} for {predicted} ({count})" for count, label, predicted in most)
        yield from ("", f"Mistaken most often: {words}.")


def _alone(group: GroupFacts, one: TrainingFacts) -> GroupFacts:
    return GroupFacts(group.letter, (one,))


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Rows whose cells are all known, as a table."""
    yield f"| {' | '.join(columns)} |"
    yield f"| {' | '.join(['---'] * len(columns))} |"
    for row in rows:
        if all(row):
            yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
