"""One-line error messages about a config: the key, the nearest known one, where it was written."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.config.group import short
from pipeline.config.keys import known_keys
from pipeline.config.models import MODEL_NAMES
from pipeline.config.suggestions import nearest
from pipeline.yaml_files import line_of


def explain(error: ValidationError, model: str, place: Callable[[Sequence[str]], str] = lambda _: "") -> str:
    """The first problem in one line, where it was written (`place`), and how many more there are."""
    problems = error.errors(include_url=False)
    first = problems[0]
    parts = [str(part) for part in first["loc"]]
    if len(parts) > 1 and parts[0] == "model" and parts[1] in MODEL_NAMES:
        del parts[1]  # pydantic adds the member of the union, which is not a key
    if first["type"] == "misread":
        parts.append(str(first["ctx"]["key"]))
    parts = [part for part in parts if not part.startswith(("tuple[", "literal["))]
    key = ".".join(parts)
    key = key if key.isprintable() else repr(key)
    if first["type"] == "extra_forbidden":
        known = known_keys(model)
        groups = sorted({".".join(name.split(".")[:depth]) for name in known for depth in (1, 2)})
        near = nearest(key, [*known, *groups])
        if key in known and len(parts) == 1:  # dotted, as in --set
            near = f"; in a file it is written `{key.replace('.', ': {')}: ...{'}' * key.count('.')}`"
        message = f"unknown key {key}{near} (`seqpipe config show` lists all)"
    elif first["type"] in ("value_error", "misread"):
        text = str(first["ctx"]["error"]) if "error" in first.get("ctx", ()) else first["msg"]
        message = text if not parts or text.startswith(f"{parts[0]}.") else f"{key}: {text}"
    else:
        text = first["msg"].replace("a valid tuple", "a list").replace("a valid dictionary", "a group of settings")
        message = f"{key} = {short(first['input'])}: {text[0].lower()}{text[1:]}"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"config: {message}{place(parts)}{more}"


def place(file: Path | None, later: Sequence[Mapping[str, Any]]) -> Callable[[Sequence[str]], str]:
    """A function that names the line of the file on which a key was set, if no later layer sets it."""

    def place(keys: Sequence[str]) -> str:
        for number in range(len(keys), 0, -1):
            if file is None or any(is_set(layer, keys[:number]) for layer in later):
                return ""
            if (line := line_of(file, keys[:number])) is not None:
                return f" ({file}, line {line})"
        return ""

    return place


def is_set(layer: object, keys: Sequence[str]) -> bool:
    """Whether a layer sets a key, given as its parts."""
    for key in keys:
        if not isinstance(layer, Mapping) or key not in layer:
            return False
        layer = layer[key]
    return True
