"""Options that several commands share."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipeline.config.recipes import RECIPES
from pipeline.stages.catalog import ALL, STAGES
from sequencer_models.catalog import MODELS

Model = StrEnum("Model", {name: name for name in MODELS})  # type: ignore[misc]  # mypy cannot know the names
"""The models of the catalog."""
Stage = StrEnum("Stage", {name: name for name in (ALL, *STAGES)})  # type: ignore[misc]
"""The stages of the catalog, and all of them."""
Recipe = StrEnum("Recipe", {name: name for name in RECIPES})  # type: ignore[misc]
"""The recipes of the config."""


class Device(StrEnum):
    """Where a model trains."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


def names_of(models: Sequence[Model] | None) -> list[str]:
    """The models that were named, each once."""
    return list(dict.fromkeys(model.value for model in models or ()))


def registered_versions(incomplete: str) -> list[str]:
    """What a shell offers for a registered version: those of a local registry that have an alias.

    Where there is one model, its champion and its challenger are offered by these words alone, too: bash takes `@`
    for the end of a word.
    """
    from pipeline.tracking.registry_names import CHALLENGER, CHAMPION

    known = _known_versions()
    lone = [one for one in (CHAMPION, CHALLENGER) if one in map(_alias_of, known)]
    offered = [*(lone if len(_names_in(known)) == 1 else ()), *known]
    return [one for one in offered if one.startswith(incomplete)]


def registered_names(incomplete: str) -> list[str]:
    """What a shell offers for a registered model."""
    return [one for one in _names_in(_known_versions()) if one.startswith(incomplete)]


def _names_in(versions: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(one.split("@")[0] for one in versions))


def _alias_of(version: str) -> str:
    return version.split("@")[1]


def _known_versions() -> list[str]:
    """`NAME@ALIAS` of every alias in a local registry; nothing where it cannot be read."""
    import os

    from pipeline.errors import SeqpipeError
    from pipeline.tracking import settings
    from pipeline.tracking.model_versions import known_choices
    from pipeline.workspace.paths import Workspace

    try:
        return known_choices(settings.load(Workspace.find(), os.environ))
    except SeqpipeError:  # the command itself says what is wrong
        return []


Models = Annotated[
    list[Model] | None,
    typer.Option(
        "--model",
        "-m",
        help=f"Which model; repeat it for several. Default: {next(iter(MODELS))}. "
        + " ".join(f"{name}: {spec.summary}." for name, spec in MODELS.items()),
        show_default=False,
    ),
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", help="A YAML file of settings (`seqpipe config show` writes one).")
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="KEY.PATH=VALUE",
        help="One setting, such as train.epochs=20; repeatable, the last counts.",
    ),
]
RecipeOption = Annotated[
    Recipe | None,
    typer.Option(
        "--recipe",
        help="Settings for a purpose, under --config and --set. "
        + " ".join(f"{name}: {recipe.purpose}." for name, recipe in RECIPES.items()),
        show_default=False,
    ),
]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of weights, order and augmentation.")]
Seeds = Annotated[
    str | None,
    typer.Option(
        "--seeds",
        metavar="0-2",
        help="Several seeds, one after another, and how their figures spread; 0-2, or 0,3,7. That the gate refuses "
        "one is only said: exit code 0.",
        show_default=False,
    ),
]
DeviceOption = Annotated[Device | None, typer.Option("--device", help="Where the model trains.")]
Json = Annotated[bool, typer.Option("--json", help="Write the result as JSON to stdout.")]
RegisteredVersion = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME@ALIAS",
        help="Which registered model: NAME@ALIAS or NAME/NUMBER. Default: the champion of the only one there is.",
        show_default=False,
        autocompletion=registered_versions,
    ),
]
VersionWord = Annotated[
    str,
    typer.Argument(
        metavar="VERSION",
        help="`champion`, `challenger`, `3`, `NAME@champion` or `NAME/3`.",
        show_default=False,
        autocompletion=registered_versions,
    ),
]
ModelName = Annotated[
    str | None,
    typer.Argument(
        metavar="[NAME]",
        help="The registered model; left out: the only one.",
        show_default=False,
        autocompletion=registered_names,
    ),
]
