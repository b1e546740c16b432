"""Looks for a new champion and has it served: it is loaded beside the one that answers, then takes its place."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.errors import SeqpipeError, TrackingError
from pipeline.inference.classifier import Classifier
from pipeline.inference.loading import read_classifier
from pipeline.serving.metrics import Metrics
from pipeline.serving.served_model import ServedModel
from pipeline.tracking.connection import StoreConnection
from pipeline.tracking.model_versions import find_version, version_files
from pipeline.tracking.version_choice import StoredVersion, VersionChoice

LOCAL_EVERY_S = 1.0
SERVER_EVERY_S = 10.0


@dataclass(frozen=True)
class Registry:
    """Where the served model comes from: the alias to follow, in a registry."""

    choice: VersionChoice
    connection: StoreConnection

    @property
    def every_s(self) -> float:
        """How often to look: a local registry answers in a millisecond."""
        return SERVER_EVERY_S if self.connection.settings.is_http else LOCAL_EVERY_S

    def find(self) -> StoredVersion:
        """The version that holds the alias now."""
        return find_version(self.choice, self.connection)

    def load(self, version: StoredVersion) -> Classifier:
        """A version with its weights; this process goes on computing as it does."""
        with version_files(version, self.connection) as folder:
            return read_classifier(folder, version)


class ChampionWatch:
    """Follows an alias. `report` gets a line about each change, and about each thing that goes wrong once."""

    def __init__(
        self, registry: Registry, model: ServedModel, metrics: Metrics, report: Callable[[str], object]
    ) -> None:
        self._registry = registry
        self._model = model
        self._metrics = metrics
        self._report = report
        self._refused: str | None = None
        """The number of the version that cannot be served."""
        self._complaint = ""

    async def run(self) -> None:
        """Look for a new champion again and again, until it is cancelled."""
        while True:
            await asyncio.sleep(self._registry.every_s)
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Look once, and take a new champion if there is one."""
        try:
            version = self._registry.find()
        except SeqpipeError as error:
            self._complain(f"warning: no look at the registry: {error}")
            return
        served = self._model.current().version.number
        if version.number in (served, self._refused):
            return
        try:
            self._model.replace(self._registry.load(version))
        except TrackingError as error:  # the registry is away, so it is tried again
            self._complain(f"warning: version {served} is served on: {error}")
            return
        except Exception as error:  # the one that is served goes on, whatever is wrong with this one
            self._refused = version.number
            self._metrics.reload("refused")
            self._complain(f"warning: version {served} is served on: {error or type(error).__name__}")
            return
        self._refused, self._complaint = None, ""
        self._metrics.reload("taken")
        self._report(f"now serving {version}; before it version {served}")

    def _complain(self, text: str) -> None:
        if text != self._complaint:
            self._report(text)
        self._complaint = text
