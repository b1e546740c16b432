"""Look at what `seqpipe run all --json` printed, the first time and repeated: check_run.py FIRST.json AGAIN.json."""

import json
import sys
from pathlib import Path
from typing import Any

STAGES = ("prepare", "train", "evaluate", "register")
CHANCE = 0.1  # of the ten classes


def main(first: str, again: str) -> None:
    """End with a line per fault, or with one line that says what was found."""
    runs = [json.loads(Path(name).read_text()) for name in (first, again)]
    faults = [*faults_of_first_run(runs[0]), *faults_of_repeated_run(*runs)]
    if faults:
        sys.exit("\n".join(faults))
    for model in runs[0]["models"]:
        accuracy, version = model["test_accuracy"], model["registered"]
        print(f"{model['model']}: test accuracy {accuracy:.4f}, {version['name']} version {version['version']}")


def faults_of_first_run(result: dict[str, Any]) -> list[str]:
    """Every stage was done, the model learnt something, and a version was registered."""
    faults = [] if result["models"] else ["the first run names no model"]
    for model in result["models"]:
        name = model["model"]
        faults += [f"{name}: {stage} is {was}, not done" for stage, was in statuses(model) if was != "done"]
        if not CHANCE < model["test_accuracy"] <= 1:
            faults.append(f"{name}: a test accuracy of {model['test_accuracy']} is no better than chance")
        if not (model["registered"]["name"] and str(model["registered"]["version"]).isdigit()):
            faults.append(f"{name}: no version was registered: {model['registered']}")
    return faults


def faults_of_repeated_run(first: dict[str, Any], again: dict[str, Any]) -> list[str]:
    """Nothing was done over, and the same accuracies and versions are named."""
    faults = []
    if len(again["models"]) != len(first["models"]):
        faults.append(f"the repeated run names {len(again['models'])} models, the first {len(first['models'])}")
    for before, after in zip(first["models"], again["models"], strict=False):
        name = before["model"]
        faults += [f"{name}: {stage} is {was}, not skipped" for stage, was in statuses(after) if was != "skipped"]
        faults += [
            f"{name}: {key} is {after[key]} when repeated, was {before[key]}"
            for key in ("model", "test_accuracy", "registered")
            if after[key] != before[key]
        ]
    return faults


def statuses(model: dict[str, Any]) -> list[tuple[str, str]]:
    """(stage, status) in the order of the stages; a stage that is not named counts as missing."""
    return [(stage, model["stages"].get(stage, {}).get("status", "missing")) for stage in STAGES]


if __name__ == "__main__":
    main(*sys.argv[1:])
