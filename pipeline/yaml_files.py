"""Strict YAML: values that YAML reads differently from how they look are refused.

In YAML `yes` is a boolean, `010` is 8, `1:30` is 90, and a key that is given twice loses its first value.
"""

import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from pipeline.errors import ConfigError

LARGEST_BYTES = 256 << 10
MOST_VALUES = 20_000
"""The most values of a file, with aliases expanded: a few lines of nested aliases can stand for billions."""

_TAG = "tag:yaml.org,2002:"
_PLAIN_TAGS = tuple(_TAG + name for name in ("str", "int", "float", "bool", "null"))


class YamlError(Exception):
    """A text that is not YAML, or that YAML reads differently from how it looks; the message has the line."""


def read_mapping(path: Path, example: str) -> dict[str, Any]:
    """The mapping of settings in a file; an empty file has none.

    Raises:
        ConfigError: it does not exist, cannot be read, or is not a mapping; the message shows `example`.
    """
    try:
        content = parse(_text(path))
    except YamlError as error:
        raise ConfigError(f"{path}: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: must be a mapping of settings, such as `{example}`")
    return content


def parse(text: str) -> Any:
    """The plain value of a text: mappings, lists, strings, numbers, booleans and null.

    Raises:
        YamlError: it is not valid YAML, or is ambiguous.
    """
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            return None if node is None else _Builder(loader).value(node)
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise YamlError(f"not valid YAML: {' '.join(str(error).split())[:160]}") from None


def line_of(path: Path, keys: Sequence[str]) -> int | None:
    """The line on which a file sets a setting; None if it does not."""
    node, line = yaml.compose(_text(path), yaml.SafeLoader), None
    for wanted in keys:
        found = node.value if isinstance(node, MappingNode) else ()
        pairs = [(key, value) for key, value in found if key.value == wanted]
        if not pairs:
            return None
        key, node = pairs[0]
        line = key.start_mark.line + 1
    return line


def _text(path: Path) -> str:
    """The text of a file; refuses files that could block or never end, such as a pipe."""
    try:
        path = path.expanduser()
        if not stat.S_ISREG(path.stat().st_mode):
            kind = "a folder" if path.is_dir() else "not a regular file"
            raise ConfigError(f"{path}: cannot be read: {kind}; name a file of settings")
        with path.open("rb") as file:
            content = file.read(LARGEST_BYTES + 1)
        if len(content) > LARGEST_BYTES:
            raise ConfigError(f"{path}: larger than {LARGEST_BYTES >> 10} KB; a file of settings is smaller")
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file{_looked_for(path)}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text; save the file as UTF-8") from None
    except (OSError, ValueError, RuntimeError) as error:  # a path with a NUL, or the home folder of an unknown user
        raise ConfigError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _looked_for(path: Path) -> str:
    return "" if path.is_absolute() else f" ({path.absolute()})"


class _Builder:
    """Builds plain values from YAML nodes."""

    def __init__(self, loader: yaml.SafeLoader) -> None:
        self._loader = loader
        self._values = 0
        self._within: set[int] = set()

    def value(self, node: Node) -> Any:
        self._values += 1
        if self._values > MOST_VALUES:
            raise YamlError(f"more than {MOST_VALUES} values, aliases written out")
        if isinstance(node, ScalarNode):
            return self._scalar(node)
        if id(node) in self._within:
            raise YamlError(f"{_line(node)}: a setting contains itself; write it without the alias")
        self._within.add(id(node))
        try:
            if isinstance(node, MappingNode) and node.tag == f"{_TAG}map":
                return self._mapping(node)
            if isinstance(node, SequenceNode) and node.tag == f"{_TAG}seq":
                return [self.value(item) for item in node.value]
        finally:
            self._within.discard(id(node))
        raise YamlError(f"{_line(node)}: the tag {node.tag!r} has no meaning here; take it out")

    def _mapping(self, node: MappingNode) -> dict[str, Any]:
        own: dict[str, Any] = {}
        lines: dict[str, int] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == f"{_TAG}merge":
                for part in self._merged(value_node):
                    merged = part | merged
                continue
            key = self._scalar(key_node) if isinstance(key_node, ScalarNode) else None
            if not isinstance(key, str):
                raise YamlError(f"{_line(key_node)}: the name of a setting must be text: a mapping of settings")
            if key in own:
                raise YamlError(
                    f"{_line(key_node)}: {_shown(key)} is given twice (first on line {lines[key]}); keep one of them"
                )
            own[key] = self.value(value_node)
            lines[key] = key_node.start_mark.line + 1
        return merged | own

    def _merged(self, node: Node) -> Iterator[dict[str, Any]]:
        for part in node.value if isinstance(node, SequenceNode) else [node]:
            content = self.value(part)
            if not isinstance(content, dict):
                raise YamlError(f"{_line(part)}: << takes a mapping")
            yield content

    def _scalar(self, node: ScalarNode) -> Any:
        if node.tag not in _PLAIN_TAGS:
            if node.tag == f"{_TAG}timestamp":
                raise YamlError(_reading(node, "a date", "quote it if you mean the text"))
            raise YamlError(f"{_line(node)}: {_shown(node.value)} has no meaning here; quote it if you mean the text")
        if node.style is None:
            _refuse_surprise(node)
        value = self._loader.construct_object(node)
        if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" or letter == "\0" for letter in value):
            raise YamlError(f"{_line(node)}: {_shown(value)} contains an invalid character")
        return value


def _refuse_surprise(node: ScalarNode) -> None:
    """Refuse an unquoted value that YAML reads differently from how it looks."""
    text = node.value
    if node.tag == f"{_TAG}bool" and text.lower() not in ("true", "false"):
        raise YamlError(
            _reading(node, "a truth value", "write true or false if you mean one, quote it if you mean the word")
        )
    if re.fullmatch(r"[-+]?0[0-9_]+", text):
        raise YamlError(_reading(node, "a number in base 8", "write it without the leading 0"))
    if node.tag in (f"{_TAG}int", f"{_TAG}float") and ":" in text:
        raise YamlError(_reading(node, "a number in base 60", "quote it if you mean the text"))


def _reading(node: ScalarNode, kind: str, advice: str) -> str:
    return f"{_line(node)}: {_shown(node.value)} is {kind} here; {advice}"


def _line(node: Node) -> str:
    return f"line {node.start_mark.line + 1}"


def _shown(text: str) -> str:
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= 60 else text[:57] + "..."
