"""Which version of which registered model: by alias or number, as a user writes it. No MLflow here."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.config.suggestions import nearest
from pipeline.errors import ConfigError, ModelError
from pipeline.tracking.registry_names import CHALLENGER, CHAMPION

FORMS = "NAME@champion, NAME@ALIAS or NAME/NUMBER"


@dataclass(frozen=True)
class VersionChoice:
    """A version by its number or, where that is None, by its alias. No name stands for the only model there is."""

    name: str | None = None
    alias: str = CHAMPION
    number: str | None = None

    @classmethod
    def parse(cls, text: str) -> "VersionChoice":
        """Read `NAME`, `NAME@ALIAS` or `NAME/NUMBER`; `champion`, `challenger` or a number stand for the only model.

        `models:/` may stand before it.

        Raises:
            ConfigError: it is something else.
        """
        if text in (CHAMPION, CHALLENGER):
            return cls(alias=text)
        if text.isascii() and text.isdecimal():
            return cls(number=text)
        found = re.fullmatch(r"(?:models:/)?([^/:@]*?)(?:@([^/:@]+)|/([1-9][0-9]*))?", text)
        if found is None or not any(found.groups()):
            raise ConfigError(f"{text!r} is no version of a registered model: write {FORMS}")
        name, alias, number = found.groups()
        return cls(name or None, alias or CHAMPION, number)


@dataclass(frozen=True)
class StoredVersion:
    """A version in the registry; `source` is the address of its files."""

    name: str
    number: str
    aliases: tuple[str, ...]
    run_id: str | None
    source: str

    def __str__(self) -> str:
        return f"{self.name}, version {self.number}" + (f" ({', '.join(self.aliases)})" if self.aliases else "")


def choose(
    choice: VersionChoice, names: Sequence[str], versions_of: Callable[[str], Mapping[str, StoredVersion]]
) -> StoredVersion:
    """The version that was chosen of the registered models; `versions_of` gives those of a model by number.

    Raises:
        ConfigError: there is no such model, alias or version, or no name was given and there are several models.
        ModelError: nothing is registered.
    """
    name = choose_model(choice.name, names)
    versions = versions_of(name)
    if choice.number is not None:
        if choice.number not in versions:
            raise ConfigError(f"{name} has no version {choice.number}{_known('versions', versions)}")
        return versions[choice.number]
    by_alias = {alias: version for version in versions.values() for alias in version.aliases}
    if choice.alias not in by_alias:
        raise ConfigError(
            f"{name} has no {choice.alias}{_known('aliases', by_alias)}{_known('versions', versions)}: "
            f"name another: {name}@ALIAS or {name}/NUMBER"
        )
    return by_alias[choice.alias]


def choose_model(name: str | None, names: Sequence[str]) -> str:
    """The registered model of that name; without one the only model there is.

    Raises:
        ConfigError: there is none of that name, or no name was given and there are several.
        ModelError: nothing is registered.
    """
    if not names:
        raise ModelError("no model is registered here yet: `seqpipe run all` trains one and registers it")
    if name is None and len(names) > 1:
        raise ConfigError(f"several models are registered: name one of {', '.join(sorted(names))}")
    chosen = names[0] if name is None else name
    if chosen not in names:
        raise ConfigError(f"no model {chosen!r} is registered{nearest(chosen, names)}")
    return chosen


def _known(what: str, names: Mapping[str, object]) -> str:
    return f"; {what}: {', '.join(names)}" if names else f"; it has no {what}"
