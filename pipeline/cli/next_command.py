"""The command that a user would want next, as it can be pasted."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli import options
from pipeline.cli.console import program, short_path

if TYPE_CHECKING:
    from pipeline.stages.runner import ModelOutcome


def settings_words(
    models: Sequence[options.Model] | None,
    config: Path | None,
    sets: Sequence[str] | None,
    seed: int | None,
    device: options.Device | None,
    recipe: options.Recipe | None = None,
    seeds: str | None = None,
) -> dict[str, list[str]]:
    """The settings of a command by flag, so that the next one can be about the same models."""
    return {
        "--model": [one.value for one in models or ()],
        "--recipe": [recipe.value] if recipe else [],
        "--config": [short_path(config.expanduser())] if config else [],
        "--set": list(sets or ()),
        "--seed": [str(seed)] if seed is not None else [],
        "--seeds": [seeds] if seeds is not None else [],
        "--device": [device.value] if device else [],
    }


def after_run(outcomes: "Sequence[ModelOutcome]", words: Mapping[str, list[str]]) -> str:
    """What comes after a `run`: the stages that are left; else the UI, or a model that was not run yet."""
    if not outcomes[-1].is_complete:
        return _run_all(words)
    ran = {one.config.model.name for one in outcomes}
    others = [model.value for model in options.Model if model.value not in ran]
    is_for_one_model = any(value.startswith("model.") for value in words["--set"]) or words["--config"]
    ui = shlex.join([program(), "ui"])
    if not others or is_for_one_model:
        return ui
    return f"{ui}; or another model: {_run_all({**words, '--model': others[:1]})}"


def _run_all(words: Mapping[str, list[str]]) -> str:
    flags = [word for name, values in words.items() for value in values for word in (name, value)]
    return shlex.join([program(), "run", "all", *flags])
