"""The part of a report's page on one group of seeds: figures, charts of the median, lineage, how to repeat it."""

import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from pipeline.errors import SeqpipeError, WorkspaceError
from pipeline.evaluation import plots
from pipeline.evaluation.predictions import Mistake, most_confident_mistakes
from pipeline.percent import percent, whole_percent
from pipeline.promotion import report as gate_words
from pipeline.reports import page
from pipeline.reports.group_facts import GroupFacts
from pipeline.reports.inline_svg import inline_svg
from pipeline.reports.report_words import SEED_COLUMNS, commands_again, in_one_command, seed_row
from pipeline.reports.training_facts import TrainingFacts
from pipeline.stages.run_page import CONFIG_FILE

MISTAKES = 24


def group_part(group: GroupFacts) -> str:
    """Everything on a group but its row in the table."""
    return "".join(_parts(group))


def _parts(group: GroupFacts) -> Iterator[str]:
    shown = group.median
    for name, figures in (("Validation", group.validation), ("Test", group.test)):
        if figures is not None:
            yield page.text(f"{name} accuracy {figures.in_words()}.")
    yield page.table(f"Seeds of {group.letter}", SEED_COLUMNS, [seed_row(one) for one in group.trainings])
    if len(group.trainings) > 1:
        by = "test" if shown.metrics is not None else "validation"
        yield page.text(f"The charts are of {shown.name}, the median by {by} accuracy.", muted=True)
    yield page.charts(_charts(group.letter, shown))
    yield from _mistakes(shown)
    yield from _model(group)
    yield page.heading(3, "Where it comes from")
    yield page.facts(shown.lineage.items())
    yield from _gate(group)
    yield from _again(group)


def _charts(name: str, one: TrainingFacts) -> Iterator[str]:
    if one.epochs and one.run.trained is not None:
        best, epochs = one.run.trained.best_epoch, len(one.epochs)
        alt = (
            f"Learning curves over {epochs} epochs; the best is {best}, validation {percent(one.validation_accuracy)}"
        )
        yield inline_svg(plots.learning_curves(one.epochs, best), f"{name}-curves", alt)
    if one.metrics is None:
        return
    metrics = one.metrics
    worst = min(metrics.classes, key=lambda scores: scores.recall)
    yield inline_svg(
        plots.confusion_chart(metrics),
        f"{name}-confusion",
        f"Confusion of {metrics.images} test images; least often recognised: {worst.name}, {percent(worst.recall)}",
    )
    yield inline_svg(
        plots.reliability_diagram(metrics),
        f"{name}-calibration",
        f"Accuracy by confidence; expected calibration error {percent(metrics.ece)}",
    )
    each = "; ".join(f"{scores.name} {percent(scores.f1)}" for scores in metrics.classes)
    yield inline_svg(plots.class_scores_chart(metrics), f"{name}-classes", f"F1 by class: {each}")


def _mistakes(one: TrainingFacts) -> Iterator[str]:
    if one.predictions is None:
        return
    yield page.heading(3, "Most confident mistakes")
    mistakes = most_confident_mistakes(one.predictions, MISTAKES)
    if not mistakes:
        yield page.text("There are none: every test image is classified rightly.")
        return
    try:
        yield page.tiles(_tiles(one, mistakes))
    except SeqpipeError as error:
        yield page.text(f"The images cannot be shown: {error}.")


def _tiles(one: TrainingFacts, mistakes: Sequence[Mistake]) -> list[tuple[bytes, str, str]]:
    assert one.predictions is not None
    prepared, names, ids = one.run.prepared, one.predictions.class_names, one.predictions.ids
    if prepared is None:
        raise WorkspaceError("the test images are not in this workspace")
    if not np.array_equal(prepared.array("test_ids"), ids):
        raise WorkspaceError("the test images here are not those that were predicted")
    images = prepared.array("test_images")
    return [
        (
            _png(images[each.row]),
            f"test image {ids[each.row]}, {names[each.label]}",
            f"{names[each.label]} taken for {names[each.predicted]}, {_in_one_line(whole_percent(each.confidence))}",
        )
        for each in mistakes
    ]


def _png(image: np.ndarray[Any, Any]) -> bytes:
    """An image of H x W x 3, uint8, as PNG."""
    content = io.BytesIO()
    Image.fromarray(image).save(content, "PNG", optimize=True)
    return content.getvalue()


def _in_one_line(words: str) -> str:
    return words.replace(" ", "\N{NO-BREAK SPACE}")


def _model(group: GroupFacts) -> Iterator[str]:
    if group.first.config is None:
        return
    from pipeline.evaluation.model_picture import draw_model, portrait_of

    portrait = portrait_of(group.first.config, depth=2)
    alt = f"The layers of {portrait.title}: " + ", ".join(layer.in_words for layer in portrait.layers)
    drawn = page.wide(inline_svg(draw_model(portrait), f"{group.letter}-model", alt), "The layers of the model")
    yield page.folded(f"The model: {len(portrait.layers)} layers, {portrait.parameters:,} parameters", drawn)


def _gate(group: GroupFacts) -> Iterator[str]:
    for one in group.trainings:
        for version in one.registrations:
            if version.decision is not None and version.decision.verdicts:
                words = f"The gate on {version.name}/{version.version} ({one.name})"
                rows = page.table(words, gate_words.COLUMNS, gate_words.rows(version.decision))
                yield page.folded(words, page.text(f"{gate_words.summary(version.decision)}.") + rows)


def _again(group: GroupFacts) -> Iterator[str]:
    if group.first.config is None:
        return
    yield page.heading(3, "How to make it again")
    yield page.code("\n".join(commands_again(group)))
    yield page.text(f"{CONFIG_FILE} holds the settings below; it is among the artifacts of the run, too.", muted=True)
    yield page.folded(f"All settings ({CONFIG_FILE})", page.code(group.first.config_text.rstrip()))
    if command := in_one_command(group):
        yield page.folded("In one command, with this version's defaults", page.code(command))
