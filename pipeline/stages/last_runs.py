"""The settings that each model was run with last in a workspace, with every seed; `seqpipe status` shows them."""

import json
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from pipeline.config.keys import as_words, flatten
from pipeline.config.models import MODEL_NAMES
from pipeline.config.recipes import DEFAULT
from pipeline.config.resolution import resolve
from pipeline.config.schema import RunConfig
from pipeline.workspace.durable_files import write_json
from pipeline.workspace.paths import Workspace

NAME = "last_runs.json"


def write(workspace: Workspace, configs: Sequence[RunConfig]) -> None:
    """Keep the configs, those of each model together; nothing is written if they are kept already.

    Raises:
        WorkspaceError: the workspace cannot be written.
    """
    kept = _content(workspace)
    given: dict[str, list[Any]] = {}
    for config in configs:
        given.setdefault(config.model.name, []).append(config.model_dump(mode="json"))
    content = kept | {name: of_model if len(of_model) > 1 else of_model[0] for name, of_model in given.items()}
    if content != kept:
        write_json(workspace.hidden / NAME, content)


def read(workspace: Workspace) -> dict[str, list[RunConfig]]:
    """The configs of each model's last run, one for each seed, where there are some that this version can read."""
    found: dict[str, list[RunConfig]] = {}
    for name, content in _content(workspace).items():
        try:
            configs = [RunConfig.model_validate(one) for one in (content if isinstance(content, list) else [content])]
        except ValidationError:
            continue
        if name in MODEL_NAMES and configs and all(config.model.name == name for config in configs):
            found[name] = configs
    return found


def changes(config: RunConfig) -> list[str]:
    """What differs from the model's defaults and the config's recipe, as words for `--set`."""
    of_recipe = {"recipe": config.recipe, "data.classes": config.data.classes}
    defaults = flatten(resolve(config.model.name, flags=of_recipe)) | {
        "recipe": DEFAULT,
        "data.classes": flatten(resolve(config.model.name))["data.classes"],
    }
    return as_words({key: value for key, value in flatten(config).items() if value != defaults.get(key)})


def _content(workspace: Workspace) -> dict[str, Any]:
    try:
        content = json.loads((workspace.hidden / NAME).read_bytes())
    except (OSError, ValueError):  # none yet, or damaged: the next run rewrites it
        return {}
    return content if isinstance(content, dict) else {}
