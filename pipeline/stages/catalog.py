"""The stages in the order in which they run.

To add one, write a module here that offers a `STAGE` (see stage.py), and add the module's name to `STAGES`. The names
alone are listed so that the command line knows its choices without importing the stages.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.stages.stage import Stage

STAGES: tuple[str, ...] = ("prepare", "train", "evaluate", "register")
ALL = "all"
"""Stands for the last stage, and so for every stage."""


def stage_named(name: str) -> "Stage":
    """The stage of that name."""
    stage: Stage = import_module(f"pipeline.stages.{name}").STAGE
    return stage


def stages_through(name: str = ALL) -> "list[Stage]":
    """The stages up to and including `name`.

    Raises:
        ConfigError: there is no such stage.
    """
    return [stage_named(one) for one in STAGES[: STAGES.index(checked_name(name)) + 1]]


def checked_name(name: str) -> str:
    """The name of a stage, `all` meaning the last.

    Raises:
        ConfigError: there is no such stage.
    """
    if name == ALL:
        return STAGES[-1]
    if name not in STAGES:
        raise ConfigError(f"there is no stage {name!r}; choose from {', '.join(STAGES)}, or {ALL}")
    return name
