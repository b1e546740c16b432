"""What `seqpipe run` shows: the plan of a dry run, and what came of a real one."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pipeline.cli.console import emit, emit_json, table
from pipeline.counts import counted
from pipeline.durations import readable
from pipeline.percent import percent

if TYPE_CHECKING:
    from pipeline.data.prepared import PreparedData
    from pipeline.evaluation.published import ComparisonRow
    from pipeline.promotion.gate import GateDecision
    from pipeline.stages.plan import Decision
    from pipeline.stages.request import Request
    from pipeline.stages.runner import ModelOutcome
    from pipeline.tracking.delivery import Tracker
    from pipeline.training.forecaster import TrainingForecast


def show_plans(
    request: "Request",
    plans: "Sequence[Sequence[Decision]]",
    forecasts: "Mapping[str, TrainingForecast]",
    as_json: bool,
) -> None:
    """What a command would do with each stage of each config, and why; and what each training needs."""
    planned = [(config, request.label(config), plan) for config, plan in zip(request.configs, plans, strict=True)]
    if as_json:
        emit_json(
            {
                "models": [
                    {
                        "model": config.model.name,
                        **({"seed": config.seed} if request.seeds else {}),
                        **_plan_json(plan, forecasts.get(label)),
                    }
                    for config, label, plan in planned
                ]
            }
        )
        return
    rows = [[label, one.stage, _would(one), f"{one.state}: {one.why}"] for _, label, plan in planned for one in plan]
    table(["model", "stage", "would", "why"], rows)
    epochs = {label: config.train.epochs for config, label, _ in planned}
    show_forecasts({model: (one, epochs[model]) for model, one in forecasts.items()}, "training")


def show_forecasts(forecasts: "Mapping[str, tuple[TrainingForecast, int]]", what: str) -> None:
    """A table of what trainings need of this machine: each with its number of epochs."""
    if not forecasts:
        return
    table(
        [what, "memory", "of", "images at once", "time", "images/s", "PFLOP", "disk"],
        [
            [
                name,
                f"{one.peak_mb:.0f} MB" if one.fits else f"{one.peak_mb:.0f} MB: does not fit",
                "-" if one.limit_mb is None else f"{one.limit_mb:.0f} MB",
                f"{one.micro_batch_size}{', activation checkpointing' if one.checkpointing else ''}",
                _time_in_words(one.seconds, epochs),
                "-" if one.images_per_s is None else f"{one.images_per_s:.0f}",
                f"{one.pflop:.2g}",
                f"{one.disk_mb:.0f} MB",
            ]
            for name, (one, epochs) in forecasts.items()
        ],
        title="forecast for this machine",
    )


def _time_in_words(seconds: float | None, epochs: int) -> str:
    if seconds is None:
        return "-"
    return f"{readable(seconds)} for {counted(epochs, 'epoch')}"


def show_outcomes(
    outcomes: "Sequence[ModelOutcome]",
    tracker: "Tracker",
    as_json: bool,
    *,
    next_command: str | None = None,
    how: str = "failed",
) -> None:
    """What came of each model; `how` is how the stage ended that is not done."""
    compared = compared_with_published(outcomes)
    if as_json:
        models = [outcome_json(one, compared.get(one.config.model.name), tracker) for one in outcomes]
        emit_json({"models": models})
        return
    if compared:
        _show_comparison(list(compared.values()), outcomes[0])
    for outcome in outcomes:
        emit(f"{outcome.config.model.name}: {what_was_done(outcome, how)}")
        show_results(outcome, tracker, is_newest=outcome is outcomes[-1])
    if next_command:
        emit(f"next: {next_command}")


def what_was_done(outcome: "ModelOutcome", how: str) -> str:
    """Each stage that was made; if one is not done, also those that are up to date, and `how` it ended."""
    if outcome.did_nothing:
        return "nothing to do, every stage is up to date"
    parts = [f"{one.stage} {readable(one.seconds)}" for one in outcome.stages if one.status == "done"]
    if outcome.unfinished:
        parts += [f"{one.stage} up to date" for one in outcome.stages if one.status == "skipped"]
        parts.append(f"{outcome.unfinished} {how}")
    return ", ".join(parts)


def _would(decision: "Decision") -> str:
    return "run" if decision.runs else "skip"


def _plan_json(plan: "Sequence[Decision]", forecast: "TrainingForecast | None") -> dict[str, Any]:
    content: dict[str, Any] = {"stages": {one.stage: _decision_json(one) for one in plan}}
    if forecast is not None:
        content["forecast"] = forecast.to_json()
    return content


def _decision_json(decision: "Decision") -> dict[str, str]:
    return {
        "would": _would(decision),
        "state": decision.state,
        "why": decision.why,
        "fingerprint": decision.fingerprint,
    }


def compared_with_published(outcomes: "Sequence[ModelOutcome]") -> "dict[str, ComparisonRow]":
    """Each evaluated model beside the published figures."""
    from pipeline.data.prepared import PreparedData
    from pipeline.evaluation.published import ModelResult, comparison_rows
    from pipeline.stages.results import Evaluation

    results = [
        ModelResult(
            model=outcome.config.model.name,
            accuracy=evaluation.accuracy,
            accuracy_low=evaluation.accuracy_low,
            accuracy_high=evaluation.accuracy_high,
            loss=evaluation.loss,
            images=evaluation.images,
            dataset=prepared.dataset,
            class_names=prepared.class_names,
            fraction=prepared.fraction,
        )
        for outcome in outcomes
        if (evaluation := outcome.results.get(Evaluation)) and (prepared := outcome.results.get(PreparedData))
    ]
    return {row.model: row for row in comparison_rows(results)}


def _show_comparison(rows: "Sequence[ComparisonRow]", first: "ModelOutcome") -> None:
    from pipeline.data.prepared import PreparedData

    prepared = first.results[PreparedData]
    table(
        ["model", "test accuracy", "95 % interval", "loss", "published", "difference"],
        [
            [
                row.model,
                percent(row.accuracy),
                f"{100 * row.accuracy_low:.2f} to {100 * row.accuracy_high:.2f} %",
                f"{row.loss:.4f}",
                percent(row.published_accuracy),
                "-" if row.difference_points is None else f"{row.difference_points:+.2f} points",
            ]
            for row in rows
        ],
        title=f"{prepared.dataset}, {len(prepared.class_names)} classes, {rows[0].images} test images",
    )
    for reason in dict.fromkeys(row.reason for row in rows if row.reason):
        emit(f"not compared with the published figures: {reason}")


def show_results(outcome: "ModelOutcome", tracker: "Tracker", *, is_newest: bool) -> None:
    """Where the results of one model are."""
    from pipeline.data.prepared import PreparedData
    from pipeline.stages.results import Registration, TrainedModel
    from pipeline.stages.train import identity_of

    if trained := outcome.results.get(TrainedModel):
        identity = identity_of(trained)
        emit(f"  run {tracker.run_id(identity) or identity.key}: {tracker.location(identity)}")
    elif prepared := outcome.results.get(PreparedData):
        emit(f"  {_counts(prepared)} images in {prepared.folder}")
    if registered := outcome.results.get(Registration):
        is_new = outcome.stages[-1].status == "done"
        aliases = f" ({', '.join(registered.aliases)})" if is_new and is_newest else ""  # they may have moved on
        emit(f"  model {registered.name}, version {registered.version}{aliases}")
        if is_new and registered.decision is not None:
            show_decision(registered.decision)


def show_decision(decision: "GateDecision") -> None:
    """What the gate decided, every rule with its figures."""
    from pipeline.promotion import report

    emit(f"  gate: {report.summary(decision)}")
    if decision.verdicts:
        table(report.COLUMNS, report.rows(decision))


def refusal(outcomes: "Sequence[ModelOutcome]") -> str | None:
    """Which of the models that a command registered the gate refused; None if it refused none."""
    from pipeline.stages.results import Registration

    refused = [
        f"{made.name} version {made.version} ({outcome.config.model.name})"
        for outcome in outcomes
        if (made := outcome.results.get(Registration)) and made.is_refused and outcome.stages[-1].status == "done"
    ]
    if not refused:
        return None
    return (
        f"the gate did not promote {', '.join(refused)}: registered, and the champion stays; the rules are "
        "`registry.gate` in the config, and `seqpipe models promote` makes one champion all the same"
    )


def _counts(prepared: "PreparedData") -> str:
    return ", ".join(f"{prepared.images_in(split)} {split}" for split in prepared.counts)


def outcome_json(outcome: "ModelOutcome", row: "ComparisonRow | None", tracker: "Tracker") -> dict[str, Any]:
    """What came of one config, as plain values; `row` compares it with the published figures."""
    from pipeline.data.prepared import PreparedData
    from pipeline.stages.results import Evaluation, Registration, TrainedModel
    from pipeline.stages.train import identity_of

    results = outcome.results
    content: dict[str, Any] = {
        "model": outcome.config.model.name,
        "stages": {
            one.stage: {
                "status": one.status,
                "why": one.why,
                "fingerprint": one.fingerprint,
                "seconds": round(one.seconds, 3),
            }
            for one in outcome.stages
        },
    }
    if outcome.unfinished:
        content["unfinished"] = outcome.unfinished
    if prepared := results.get(PreparedData):
        content["data"] = prepared.model_dump(mode="json")
    if trained := results.get(TrainedModel):
        content["training"] = trained.model_dump(mode="json")
        content["run_id"] = tracker.run_id(identity_of(trained))
    if row is not None:
        content["test_accuracy"] = row.accuracy
        content["evaluation"] = results[Evaluation].model_dump(mode="json")
        content["comparison"] = asdict(row)
    if registered := results.get(Registration):
        content["registered"] = registered.model_dump(mode="json")
    return content
