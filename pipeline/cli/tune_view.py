"""What `seqpipe tune` shows on stdout, as text or JSON: the trials of a search, or what a dry run would search."""

import shlex
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pipeline.cli.console import complain, emit, emit_json, program, short_path, table
from pipeline.cli.run_view import show_forecasts
from pipeline.counts import counted
from pipeline.durations import readable
from pipeline.percent import percent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.config.schema import ComputeConfig
    from pipeline.search.run import SearchOutcome, Survey
    from pipeline.tracking.delivery import Tracker
    from tuning.capacity import Capacity, Node
    from tuning.ledger import Row
    from tuning.traffic import Sent

SHOWN = 10
"""Trials in the table of results; the file has all of them."""


def show_outcome(outcome: "SearchOutcome", tracker: "Tracker", as_json: bool) -> None:
    """Show the trials of a search, the best one's config, and what to run next."""
    if as_json:
        emit_json(_outcome_json(outcome, tracker))
        return
    result, search, report = outcome.result, outcome.search, outcome.report
    if result.capacity is None and result.ended == "finished":
        emit("nothing to do: the search has all of its trials (--extend N adds more, --fresh begins anew)")
    _show_trials(outcome)
    if len(result.rows) > SHOWN:
        emit(f"all {len(result.rows)} trials: {search.path / 'trials.csv'}")
    failures = [row.finish.error for row in result.rows if row.finish and row.outcome == "failed"]
    if failures:
        emit(f"the first of {len(failures)} failures: {failures[0]}")
    if report.importances:
        from pipeline.search.report import importances_in_words

        completed = sum(row.outcome == "completed" for row in result.rows)
        shares = importances_in_words(report.importances)
        emit(f"what made the difference, as far as {completed} completed trials tell: {shares}")
    if result.ended == "exhausted":
        emit("every configuration of the space was tried")
    if result.capacity is not None:
        freed = f"{result.freed_bytes / 1e6:.0f} MB of checkpoints that nothing needs any more were deleted"
        emit(f"memory beside the trials: at most {result.overhead_mb:.0f} MB; {freed}")
    for node, sent in result.sent.items():
        emit(sent_in_words(node, sent))
    emit(f"  run {tracker.run_id(outcome.run) or outcome.run.key}: {tracker.location(outcome.run)}")
    if report.best_config is not None:
        emit(f"best config: {report.best_config}")
        emit(f"next: {shlex.join([program(), 'run', 'all', '--config', short_path(report.best_config)])}")


def sent_in_words(node: str, sent: "Sent") -> str:
    """What went over the network to a node, and came back."""
    shared, to, came = (
        f"{amount / 1e6:.0f} MB" for amount in (sent.shared_bytes, sent.checkpoint_bytes, sent.received_bytes)
    )
    return f"sent to {node}: {shared} of prepared data, {to} of checkpoints; {came} of checkpoints came from there"


def show_survey(survey: "Survey", as_json: bool) -> None:
    """Show what would be searched: the space, the nodes and the number of trials."""
    from pipeline.search.space import default_of, in_words, value_in_words

    request, search, capacity, status = survey.request, survey.search, survey.capacity, survey.status
    default = default_of(request.space, request.config)
    if as_json:
        emit_json(
            {
                "search": search.fingerprint,
                "model": search.model,
                "target": survey.target,
                "finished": status.finished if status else 0,
                "space": request.space.to_json(),
                "default": default,
                "plan": _capacity_json(capacity),
                "forecasts": {one.name: {"config": one.config, **one.training.to_json()} for one in survey.forecasts},
            }
        )
        return
    table(
        ["setting", "what it may be", "trial 0"],
        [[key, in_words(parameter), value_in_words(default[key])] for key, parameter in request.space.items()],
        title=f"search {search.fingerprint}: {search.model}, {request.config.train.epochs} epochs a trial",
    )
    known = [name for name in ("precision", "kernel") if any(name in node.facts for node in capacity.nodes)]
    table(
        ["node", "cores", "memory for trials", *known, "trials at once"],
        [
            [
                node.name,
                f"{node.cpus:g}",
                f"{node.memory_mb} MB",
                *(_computes_with(name, node, request.config.compute) for name in known),
                f"{fits}: {node.why_not}" if node.why_not else str(fits),
            ]
            for node, fits in zip(capacity.nodes, capacity.fits, strict=True)
        ],
        title=f"{capacity.cap_mb} MB for each trial, {capacity.concurrency} at once",
    )
    if differing := differing_precisions(capacity, request.config.compute):
        emit(differing)
    if survey.no_forecast:
        complain(f"no forecast: {survey.no_forecast}")
    show_forecasts(
        {one.name: (one.training, request.config.train.epochs) for one in survey.forecasts},
        "trial",
    )
    emit(f"{status.in_words() if status else 'not started yet'}; {counted(survey.target, 'trial')} in all")


def _computes_with(name: str, node: "Node", compute: "ComputeConfig") -> str:
    """The precision or the kernel of trials on a node: what is asked for, or what it takes by itself."""
    asked = str(getattr(compute, name))
    return node.facts.get(name, "-") if asked == "auto" else asked


def differing_precisions(capacity: "Capacity", compute: "ComputeConfig") -> str:
    """What to say of nodes that would train in different precisions; nothing where they do not."""
    of = {
        node.name: node.facts["precision"]
        for node, fits in zip(capacity.nodes, capacity.fits, strict=True)
        if fits and "precision" in node.facts
    }
    if compute.precision != "auto" or len(set(of.values())) < 2:
        return ""
    each = ", ".join(f"{precision} on {name}" for name, precision in of.items())
    return (
        f"each node trains in the precision that it is fastest in ({each}), so values compare a little less well; "
        "--set compute.precision=fp32 (or bf16) holds the search to one"
    )


def _show_trials(outcome: "SearchOutcome") -> None:
    from pipeline.search.report import ranked

    rows = outcome.result.rows
    counts = Counter(row.outcome or "unfinished" for row in rows)
    of_each = ", ".join(f"{number} {name}" for name, number in counts.most_common())
    table(
        ["trial", "outcome", "validation", "epochs", "memory", "time", "settings (the default's aside)"],
        [_cells(row, outcome.default) for row in ranked(rows)[:SHOWN]],
        title=f"search {outcome.search.fingerprint}: {outcome.search.model}, "
        f"{len(rows)} of {outcome.result.target} trials ({of_each})",
    )


def _cells(row: "Row", default: "Mapping[str, Any]") -> list[str]:
    from pipeline.search.report import settings_in_words

    finish, settings = row.finish, settings_in_words(row, default)
    if finish is None:
        return [str(row.number), "unfinished", percent(None), str(row.last_epoch), "-", "-", settings]
    memory = f"needs {finish.peak_mb:.0f} MB" if finish.is_forecast else f"{finish.peak_mb:.0f} MB"
    time = "-" if finish.is_forecast else readable(finish.duration_s)
    return [str(row.number), finish.outcome, percent(finish.value), str(finish.epochs), memory, time, settings]


def _outcome_json(outcome: "SearchOutcome", tracker: "Tracker") -> dict[str, Any]:
    from pipeline.search.report import as_record

    result, best = outcome.result, outcome.result.best
    return {
        "search": outcome.search.fingerprint,
        "folder": str(outcome.search.path),
        "model": outcome.search.model,
        "ended": "interrupted" if outcome.left is not None else result.ended,
        "ran": result.capacity is not None,
        "target": result.target,
        "trials": [as_record(row) for row in result.rows],
        "best": as_record(best) if best else None,
        "best_config": str(outcome.report.best_config) if outcome.report.best_config else None,
        "importances": dict(outcome.report.importances),
        "sent": {node: asdict(sent) for node, sent in result.sent.items()},
        "memory_beside_trials_mb": round(result.overhead_mb, 1),
        "freed_bytes": result.freed_bytes,
        "plan": _capacity_json(result.capacity) if result.capacity else None,
        "run_id": tracker.run_id(outcome.run),
    }


def _capacity_json(capacity: "Capacity") -> dict[str, Any]:
    return {
        "trial_memory_mb": capacity.cap_mb,
        "concurrency": capacity.concurrency,
        "cores_per_trial": capacity.cpus_per_trial,
        "nodes": [
            {
                "name": node.name,
                "cores": node.cpus,
                "memory_mb": node.memory_mb,
                "fits": fits,
                "precision": node.facts.get("precision"),
                "kernel": node.facts.get("kernel"),
                "why_not": node.why_not or None,
            }
            for node, fits in zip(capacity.nodes, capacity.fits, strict=True)
        ],
    }
