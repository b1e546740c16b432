"""What `seqpipe run --seeds` shows: each seed, and how the figures of each model spread over them."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pipeline.cli.console import emit, emit_json, table
from pipeline.cli.run_view import compared_with_published, outcome_json, show_results, what_was_done
from pipeline.percent import percent

if TYPE_CHECKING:
    from pipeline.evaluation.spread import Spread
    from pipeline.stages.runner import ModelOutcome
    from pipeline.stages.seed_group import SeedResult
    from pipeline.tracking.delivery import Tracker

_ROWS: "tuple[tuple[str, Callable[[Spread], str]], ...]" = (
    ("mean", lambda one: percent(one.mean)),
    ("deviation", lambda one: "-" if one.deviation is None else f"{100 * one.deviation:.2f} points"),
    (
        "95 % interval of the mean",
        lambda one: "-" if one.low is None or one.high is None else f"{100 * one.low:.2f} to {100 * one.high:.2f} %",
    ),
)


def show_outcomes(
    outcomes: "Sequence[ModelOutcome]",
    tracker: "Tracker",
    as_json: bool,
    *,
    next_command: str | None = None,
    how: str = "failed",
) -> None:
    """What came of each seed; `how` is how the stage ended that is not done and that ended the command."""
    results = _results(outcomes)
    if as_json:
        models = [_seed_json(one, tracker) for one in outcomes]
        emit_json(
            {"models": models, "seeds": [_spreads_json(model, of_model) for model, of_model in results.items()]}
        )
        return
    if results:
        _show_table(outcomes, results)
    for outcome in outcomes:
        ended = "failed" if outcome.failure is not None else how
        emit(f"{outcome.config.model.name}, seed {outcome.config.seed}: {what_was_done(outcome, ended)}")
        show_results(outcome, tracker, is_newest=outcome is outcomes[-1])
    if next_command:
        emit(f"next: {next_command}")


def _results(outcomes: "Sequence[ModelOutcome]") -> "dict[str, list[SeedResult]]":
    """The seeds of each model that are trained."""
    from pipeline.stages.results import Evaluation, TrainedModel
    from pipeline.stages.seed_group import SeedResult

    found: dict[str, list[SeedResult]] = {}
    for outcome in outcomes:
        if trained := outcome.results.get(TrainedModel):
            result = SeedResult(outcome.config.seed, trained, outcome.results.get(Evaluation))
            found.setdefault(outcome.config.model.name, []).append(result)
    return found


def _show_table(outcomes: "Sequence[ModelOutcome]", results: "dict[str, list[SeedResult]]") -> None:
    from pipeline.data.prepared import PreparedData
    from pipeline.stages.seed_group import spreads

    rows: list[list[str]] = []
    for model, of_model in results.items():
        for one in of_model:
            tested = one.evaluation
            rows.append(
                [
                    model,
                    str(one.seed),
                    percent(one.trained.validation_accuracy),
                    percent(tested.accuracy if tested else None),
                    f"{tested.loss:.4f}" if tested else "-",
                ]
            )
        of = spreads(of_model)
        for name, cell in _ROWS:
            tested_cell = cell(of.test_accuracy) if of.test_accuracy else "-"
            rows.append([model, name, cell(of.validation_accuracy), tested_cell, ""])
    prepared = outcomes[0].results[PreparedData]
    table(
        ["model", "seed", "validation accuracy", "test accuracy", "test loss"],
        rows,
        title=f"{prepared.dataset}, {len(prepared.class_names)} classes, {prepared.images_in('test')} test images",
    )


def _seed_json(outcome: "ModelOutcome", tracker: "Tracker") -> dict[str, Any]:
    row = compared_with_published([outcome]).get(outcome.config.model.name)
    content = {"seed": outcome.config.seed, **outcome_json(outcome, row, tracker)}
    return content if outcome.failure is None else content | {"failure": str(outcome.failure)}


def _spreads_json(model: str, of_model: "Sequence[SeedResult]") -> dict[str, Any]:
    from pipeline.stages.seed_group import spreads

    return {"model": model, "seeds": [one.seed for one in of_model], **asdict(spreads(of_model))}
