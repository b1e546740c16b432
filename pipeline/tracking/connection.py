"""The connection to an MLflow store: its client, made when needed, and its experiment."""

import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from pipeline.errors import SeqpipeError, TrackingError
from pipeline.tracking import experiment_page, moved_store, store_errors, store_faults, store_file
from pipeline.tracking.mlflow_variables import quiet
from pipeline.tracking.new_store import create_store
from pipeline.tracking.settings import ResolvedMlflow
from pipeline.workspace.paths import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient

PROBE_TIMEOUT_S = 3.0
_TRACEBACK_LOGGER = "mlflow.store.db.utils"
"""Logs a traceback for each database failure that it also raises; one line of ours takes its place."""


class StoreConnection:
    """Opens the MLflow store of a workspace; MLflow is imported at the first use.

    `report` gets a line about anything unusual that was done, such as rewritten addresses.
    """

    def __init__(self, settings: ResolvedMlflow, workspace: Workspace, report: Callable[[str], None]) -> None:
        self.settings = settings
        self.workspace = workspace
        self._report = report
        self._client: MlflowClient | None = None
        self._experiment_id: str | None = None
        self._was_opened = False

    def client(self, *, to_write: bool = True) -> "MlflowClient":
        """The store's client; a local store is created where there is none, and checked to be writable if `to_write`.

        Raises:
            TrackingError: the store cannot be reached or used; the message says what to do.
        """
        with self.explaining():
            if self.settings.is_http:
                probe(self.settings)
            self._require_database(to_write)
            if self._client is None:
                moved_store.update_addresses(self.settings, self.workspace, self._report)
                quiet(os.environ)
                from mlflow import MlflowClient

                logging.getLogger(_TRACEBACK_LOGGER).setLevel(logging.CRITICAL)
                self._client = MlflowClient(self.settings.tracking_uri, self.settings.registry_uri)
                self._was_opened = True
            return self._client

    def reset(self) -> None:
        """Forget the client and the experiment after a failure; the next use opens the store again."""
        self._client = self._experiment_id = None

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Turn any failure inside into an error that says in one line what it means and what to do."""
        try:
            yield
        except SeqpipeError:
            raise
        except Exception as error:  # a store, a server or MLflow itself may fail in any way
            raise self.explain(error) from error

    @contextmanager
    def explaining_to_repeat(self) -> Iterator[None]:
        """The same for what is asked of the registry: no journal keeps that, so the command has to be repeated."""
        try:
            with self.explaining():
                yield
        except TrackingError as error:
            if not error.of_runs:
                raise
            raise TrackingError(f"{error.message}; then repeat the command", passes=error.passes) from error

    def explain(self, error: Exception) -> SeqpipeError:
        """The error that says in one line what a failure of the store means and what to do."""
        return store_faults.explain(error, self.settings)

    def has_experiment(self) -> bool:
        """Whether the experiment of the settings exists.

        Raises:
            TrackingError: the store cannot be reached or used.
        """
        with self.explaining():
            return self.client().get_experiment_by_name(self.settings.experiment) is not None

    def experiment_id(self) -> str:
        """The id of the experiment that runs go to, created where it does not exist.

        Raises:
            TrackingError: the store cannot be reached or used, or the experiment was deleted there.
        """
        if self._experiment_id is None:
            with self.explaining():
                self._experiment_id = self._find_or_create_experiment()
        return self._experiment_id

    def _find_or_create_experiment(self) -> str:
        client, name = self.client(), self.settings.experiment
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            try:
                created = client.create_experiment(name, artifact_location=self.settings.artifact_location)
                experiment = client.get_experiment(created)
            except Exception:  # another process may have been quicker
                experiment = client.get_experiment_by_name(name)
                if experiment is None:
                    raise
        if experiment.lifecycle_stage != "active":
            raise store_errors.lasting(
                self.settings.address,
                f"the experiment {name!r} was deleted in MLflow",
                f"restore it there (`mlflow experiments restore -x {experiment.experiment_id}`) or name another "
                "in mlflow.yaml",
            )
        for tag, value in experiment_page.missing_tags(experiment.tags).items():
            client.set_experiment_tag(experiment.experiment_id, tag, value)
        return str(experiment.experiment_id)

    def _require_database(self, to_write: bool) -> None:
        database = self.settings.database
        if database is None:
            return
        if not self._was_opened:
            create_store(self.settings, self.workspace, self._report)
        elif store_file.state_of(self.settings) != "ready":
            raise TrackingError(  # MLflow would go on writing into the file that is gone
                f"the MLflow store {database} was removed while it was used; the next command makes a "
                "new one and delivers everything again from the journals"
            )
        if to_write:  # MLflow would log a traceback for each refused write
            store_file.require_writable(database)


def probe(settings: ResolvedMlflow) -> None:
    """Check within `PROBE_TIMEOUT_S` that the server accepts connections; MLflow's own timeouts are long.

    Raises:
        TrackingError: it does not.
    """
    parts = urlsplit(settings.tracking_uri)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    if parts.scheme in getproxies() and not proxy_bypass(host):
        return  # only the proxy can say
    try:
        socket.create_connection((host, port), PROBE_TIMEOUT_S).close()
    except OSError as error:
        raise store_faults.explain(error, settings) from None
