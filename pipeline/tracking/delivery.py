"""The one module that talks to MLflow runs: it delivers journals, whenever the store can be reached.

Nothing here stops or slows a training: a store that cannot be reached is said once, and told everything later.
MLflow is imported when a store is first opened.
"""

import getpass
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from pipeline.errors import SeqpipeError, TrackingError
from pipeline.tracking import delivery_state, moved_store, store_faults, store_file
from pipeline.tracking.delivery_state import Delivered, JournalRecord, RunRecord, Status, StoreRecord
from pipeline.tracking.journal import FILE_NAME, Event, Kind
from pipeline.tracking.journal import read as read_journal
from pipeline.tracking.settings import ResolvedMlflow, quiet, sqlite_uri
from pipeline.workspace.durable_files import writing
from pipeline.workspace.locks import exclusive, is_held
from pipeline.workspace.paths import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

RUN_KEY_TAG = "seqpipe.run_key"
RETRY_AFTER_S = 30.0
PROBE_TIMEOUT_S = 3.0
_PARAM_CHARACTERS = 6000
_TAG_CHARACTERS = 8000
_DIGEST_CHARACTERS = 36
_TRACEBACKS_OF = "mlflow.store.db.utils"
"""What logs a traceback for each failure of a database, and raises it too: we make one line of that."""


@dataclass(frozen=True)
class RunIdentity:
    """A run: `key` is unique to the training (fingerprint and attempt), `name` is what people read.

    `parent` is the key of the run that it is shown under, `lock` the name of the lock that whoever works on it holds.
    """

    key: str
    name: str
    parent: str = ""
    lock: str = ""


class Tracker:
    """Delivers the journals of runs to the MLflow store of a workspace.

    `on_problem` is told, once per outage, in one line, why the store was not told something.
    """

    def __init__(self, settings: ResolvedMlflow, workspace: Workspace, on_problem: Callable[[str], None]) -> None:
        self.settings = settings
        self.workspace = workspace
        self._on_problem = on_problem
        self._client: MlflowClient | None = None
        self._experiment_id: str | None = None
        self._opened = False
        self._retry_at = 0.0
        self._said: str | None = None
        self.problem: SeqpipeError | None = None
        """What kept the last delivery from the store; None if nothing did."""
        self._noting = threading.Lock()
        self._sending = threading.Lock()

    def record(
        self,
        run: RunIdentity,
        journal_id: str,
        folder: Path,
        *,
        upto: int | None = None,
        status: Status | None = None,
    ) -> None:
        """Keep on disk what the store should be told: a journal up to an offset (None: its end), and a status.

        Raises:
            WorkspaceError: the workspace cannot be written.
        """
        if upto is None:
            path = folder / FILE_NAME
            upto = path.stat().st_size if path.exists() else 0
        place = folder.relative_to(self.workspace.root) if folder.is_relative_to(self.workspace.root) else folder
        with self._noting:
            known = delivery_state.read_run(self.workspace, run.key)
            record = known or RunRecord(run.key, run.name)
            before = repr(known)
            record.name = run.name
            record.parent = run.parent
            record.lock = run.lock or record.lock
            record.journals[journal_id] = JournalRecord(place.as_posix(), upto)
            record.status = status or record.status
            if repr(record) != before or not delivery_state.run_path(self.workspace, run.key).exists():
                delivery_state.write_run(self.workspace, record)

    def deliver(
        self,
        run: RunIdentity,
        journal_id: str,
        folder: Path,
        *,
        upto: int | None = None,
        status: Status | None = None,
        force: bool = False,
    ) -> bool:
        """Tell the store everything of a run that it does not know yet; whether it knows all now.

        `journal_id` names the journal in `folder`, such as `train/<fingerprint>`; a run may have several. Repeating a
        delivery changes nothing. Never raises: after a failure the store is left alone for half a minute, unless
        `force`.
        """
        try:
            self.record(run, journal_id, folder, upto=upto, status=status)
        except SeqpipeError as error:
            self._say(str(error))
            return False
        return self.deliver_recorded(run.key, force=force)

    def deliver_pending(self) -> int:
        """Tell the store what it missed of any run; how many runs were brought up to date."""
        return sum(self.deliver_recorded(record.key) for record in self.waiting())

    def waiting(self) -> list[RunRecord]:
        """The runs of which the store has still to be told something; all of them if it is gone."""
        if self.settings.is_gone:
            delivery_state.forget_store(self.workspace, self.settings.address)
        return delivery_state.pending(self.workspace, self.settings.address)

    def close_dead(self, resumed: Collection[str | None] = ()) -> list[str]:
        """End the open runs that no process works on, except those that the caller goes on with; their names."""

        def is_dead(record: RunRecord) -> bool:
            return record.key not in resumed and not delivery_state.is_worked_on(self.workspace, record)

        return self.close_open(is_dead)

    def close_open(self, is_over: Callable[[RunRecord], bool]) -> list[str]:
        """End the open runs that are over, as KILLED unless they were finished; their names."""
        closed = []
        for record in delivery_state.open_runs(self.workspace):
            if is_over(record):
                with self._noting:
                    record.status = "FINISHED" if delivery_state.is_finished(self.workspace, record.key) else "KILLED"
                    delivery_state.write_run(self.workspace, record)
                self.deliver_recorded(record.key)
                closed.append(record.name)
        return closed

    def run_id(self, run: RunIdentity) -> str | None:
        """The store's id of a run, or None as long as the store does not have it."""
        store = delivery_state.read_store(self.workspace, run.key, self.settings.address)
        return store.run_id if store else None

    def location(self, run: RunIdentity) -> str:
        """Where a person finds the run, in words."""
        store = delivery_state.read_store(self.workspace, run.key, self.settings.address)
        if store is None:
            return f"{run.name}: not in MLflow yet ({self.settings.address}); it is delivered by the next command"
        page = f"#/experiments/{store.experiment_id}/runs/{store.run_id}?workflowType=machine_learning"
        if self.settings.is_http:
            return f"{self.settings.address}/{page}"
        return f"`seqpipe ui`, then http://127.0.0.1:5000/{page}"

    def connect(self, *, to_write: bool = True) -> "MlflowClient":
        """The store's client; a local store is made when it is not there, and can be written unless only read.

        Raises:
            TrackingError: the store cannot be reached or used; the message says what to do.
        """
        try:
            if self.settings.is_http:
                _probe(self.settings)
            self._require_database(to_write)
            if self._client is None:
                moved_store.follow(self.settings, self.workspace, self._on_problem)
                quiet(os.environ)
                from mlflow import MlflowClient

                logging.getLogger(_TRACEBACKS_OF).setLevel(logging.CRITICAL)
                self._client = MlflowClient(self.settings.tracking_uri, self.settings.registry_uri)
                self._opened = True
            return self._client
        except SeqpipeError:
            raise
        except Exception as error:
            raise self.explained(error) from error

    def explained(self, error: Exception) -> SeqpipeError:
        """What a failure of the store means, and what to do, in one line."""
        return store_faults.explained(error, self.settings)

    def experiment_id(self) -> str:
        """The id of the experiment that runs go to; it is made when it is not there."""
        if self._experiment_id is None:
            client, name = self.connect(), self.settings.experiment
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                try:
                    created = client.create_experiment(name, artifact_location=self.settings.artifact_location)
                    experiment = client.get_experiment(created)
                except Exception:  # another process was quicker; if that is not it, the next line has no answer
                    experiment = client.get_experiment_by_name(name)
                    if experiment is None:
                        raise
            if experiment.lifecycle_stage != "active":
                raise store_faults.lasting(
                    self.settings.address,
                    f"the experiment {name!r} was deleted in MLflow",
                    f"restore it there (`mlflow experiments restore -x {experiment.experiment_id}`) or name another "
                    "in mlflow.yaml",
                )
            self._experiment_id = experiment.experiment_id
        return self._experiment_id

    def _require_database(self, to_write: bool) -> None:
        database = self.settings.database
        if database is None:
            return
        if not self._opened:
            make_database(self.settings, self.workspace, self._say)
        elif store_file.look(self.settings) != "made":
            raise TrackingError(  # MLflow would go on writing into the file that is gone
                f"the MLflow store {database} was removed while it was used; the next command makes a "
                "new one and delivers everything again from the journals"
            )
        if to_write:  # MLflow would answer each of its own refusals with a traceback
            store_file.require_writable(database)

    def deliver_recorded(self, key: str, *, force: bool = False) -> bool:
        """Tell the store what was recorded of a run, as `deliver` does."""
        with self._sending:
            if not force and time.monotonic() < self._retry_at:
                return False
            try:
                if not force and is_held(self.workspace.lock(f"run-{key}")):  # its holder, suspended maybe, tells it
                    return False
                with exclusive(self.workspace.lock(f"run-{key}"), logger.info, what=f"the delivery of {key}"):
                    record = delivery_state.read_run(self.workspace, key)
                    if record is not None:
                        self._send(record)
            except Exception as error:  # a store may fail in any way, and no way may end a training
                logger.debug("delivery failed", exc_info=True)
                self._client = self._experiment_id = None
                self._retry_at = time.monotonic() + RETRY_AFTER_S
                self.problem = self.explained(error)
                if self.problem is not error:
                    self.problem.__cause__ = error
                self._say(str(self.problem))
                return False
            self._retry_at, self._said, self.problem = 0.0, None, None
            return True

    def _send(self, record: RunRecord) -> None:
        client = self.connect()
        store = delivery_state.read_store(self.workspace, record.key, self.settings.address)
        known_params = _params_of(client, store.run_id) if store else None
        if store is None or known_params is None:  # none yet, or it was deleted there
            store = self._find_or_create(client, record)
            delivery_state.write_store(self.workspace, record.key, store)
            known_params = _params_of(client, store.run_id) or {}
        for journal_id, journal in record.journals.items():
            self._send_journal(client, record, store, journal_id, journal, known_params)
        if store.status != record.status:
            if record.status == "RUNNING":
                client.update_run(store.run_id, status="RUNNING")
            else:
                client.set_terminated(store.run_id, record.status, end_time=store.last_event_ms or None)
            store.status = record.status
            delivery_state.write_store(self.workspace, record.key, store)

    def _find_or_create(self, client: "MlflowClient", record: RunRecord) -> StoreRecord:
        experiment_id = self.experiment_id()
        found = client.search_runs([experiment_id], f"tags.`{RUN_KEY_TAG}` = '{record.key}'", max_results=1)
        if found:
            run = found[0]
        else:
            tags = {
                RUN_KEY_TAG: record.key,
                "mlflow.user": _user(),
                "mlflow.source.name": "seqpipe run",
                "mlflow.source.type": "LOCAL",
            }
            if (parent_id := self._parent_id(record)) is not None:
                tags["mlflow.parentRunId"] = parent_id
            start_ms = self._first_event_ms(record)
            run = client.create_run(experiment_id, start_time=start_ms, tags=tags, run_name=record.name)
        return StoreRecord(self.settings.address, run.info.run_id, experiment_id, run.info.status)

    def _parent_id(self, record: RunRecord) -> str | None:
        """The store's id of the run that a run is shown under, which is told first."""
        parent = delivery_state.read_run(self.workspace, record.parent) if record.parent else None
        if parent is None:
            return None
        if delivery_state.read_store(self.workspace, parent.key, self.settings.address) is None:
            with exclusive(
                self.workspace.lock(f"run-{parent.key}"), logger.info, what=f"the delivery of {parent.key}"
            ):
                self._send(parent)
        store = delivery_state.read_store(self.workspace, parent.key, self.settings.address)
        return store.run_id if store else None

    def _first_event_ms(self, record: RunRecord) -> int | None:
        """When the run began, which in an outage is not when the store is told of it."""
        for journal in record.journals.values():
            path = delivery_state.journal_path(self.workspace, journal)
            for event in read_journal(path) if path else ():
                return event.time_ms
        return None

    def _send_journal(
        self,
        client: "MlflowClient",
        record: RunRecord,
        store: StoreRecord,
        journal_id: str,
        journal: JournalRecord,
        known_params: dict[str, str],
    ) -> None:
        before = store.delivered.get(journal_id)
        start = before.offset if before else 0
        path = delivery_state.journal_path(self.workspace, journal)
        if path is None:
            if start < journal.upto:
                self._say(f"{record.name}: {journal.folder} was removed before MLflow was told all of it")
            store.delivered[journal_id] = Delivered(journal.upto, "")
            delivery_state.write_store(self.workspace, record.key, store)
            return
        rewritten = before is not None and (
            path.stat().st_size < start or delivery_state.tail_digest(path, start) != before.tail
        )
        events = list(read_journal(path, 0 if rewritten else start, journal.upto))
        if not events:
            return
        self._send_events(client, store.run_id, path.parent, events, known_params, skip_present=rewritten)
        store.last_event_ms = max(store.last_event_ms, *(event.time_ms for event in events))
        store.delivered[journal_id] = Delivered(events[-1].end, delivery_state.tail_digest(path, events[-1].end))
        delivery_state.write_store(self.workspace, record.key, store)

    def _send_events(
        self,
        client: "MlflowClient",
        run_id: str,
        folder: Path,
        events: Sequence[Event],
        known_params: dict[str, str],
        *,
        skip_present: bool,
    ) -> None:
        """Send events, in the order that makes a run readable early: what it is, then how it goes.

        Stores ignore a metric that they have with the same step, time and value, so sending the same journal again
        does no harm. `skip_present` is for a journal that was cut back and made anew, with other times: steps that
        the store has are then left as they are.
        """
        from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

        of_kind = {kind: [event for event in events if event.kind == kind] for kind in get_args(Kind)}
        tags: dict[str, str] = {}
        for event in of_kind["tags"]:
            tags |= {key: str(value)[:_TAG_CHARACTERS] for key, value in event.content["values"].items()}
        params: dict[str, str] = {}
        for event in of_kind["params"]:  # MLflow refuses to change a parameter: the first value stays
            for key, value in event.content["values"].items():
                if key not in known_params:
                    params.setdefault(key, str(value)[:_PARAM_CHARACTERS])
        client.log_batch(  # in as many requests as MLflow's limits need
            run_id,
            params=[Param(key, value) for key, value in params.items()],
            tags=[RunTag(key, value) for key, value in tags.items()],
        )
        known_params.update(params)

        for event in of_kind["dataset"]:
            values: dict[str, Any] = dict(event.content["values"])
            context = InputTag("mlflow.data.context", str(values.get("context", "training")))
            dataset = Dataset(
                name=str(values["name"]),
                digest=str(values["digest"])[:_DIGEST_CHARACTERS],
                source_type=str(values.get("source_type", "local")),
                source=_text(values.get("source", {})),
                schema=_text(values["schema"]) if "schema" in values else None,
                profile=_text(values["profile"]) if "profile" in values else None,
            )
            client.log_inputs(run_id, datasets=[DatasetInput(dataset, tags=[context])])

        metrics = [
            Metric(key, float(value), event.time_ms, int(event.content["step"]))
            for event in of_kind["metrics"]
            for key, value in event.content["values"].items()
        ]
        if skip_present:
            present = {
                (metric.key, metric.step)
                for key in {metric.key for metric in metrics}
                for metric in client.get_metric_history(run_id, key)
            }
            metrics = [metric for metric in metrics if (metric.key, metric.step) not in present]
        client.log_batch(run_id, metrics=metrics)

        files = dict.fromkeys((e.content["file"], e.content["folder"]) for e in of_kind["artifact"])
        for file, shown_in in files:
            if (folder / file).is_file():
                client.log_artifact(run_id, str(folder / file), shown_in or None)
            else:
                self._say(f"{folder / file} was removed before MLflow was given it")

    def _say(self, problem: str) -> None:
        if problem != self._said:
            self._said = problem
            self._on_problem(problem)


def make_database(settings: ResolvedMlflow, workspace: Workspace, say: Callable[[str], None] = logger.info) -> None:
    """Make a local store where there is none, whole or not at all: processes that open a half-made one break it.

    One whose making was broken off before it was told anything is put aside, which `say` is told.

    Raises:
        TrackingError: what is there is no MLflow store, or is damaged.
        WorkspaceError: the place cannot be written.
    """
    database = settings.database
    if database is None or store_file.look(settings) == "made":
        return
    with exclusive(workspace.lock("mlflow-store"), logger.info, what="the making of the MLflow store"):
        if (state := store_file.look(settings)) == "made":
            return
        quiet(os.environ)
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        with writing(database):
            database.parent.mkdir(parents=True, exist_ok=True)
            store_file.put_aside(database)
            beside = database.with_name(f".{database.name}.{os.getpid()}.tmp")
            try:
                SqlAlchemyStore(sqlite_uri(beside), settings.artifact_location).engine.dispose()
                beside.replace(database)
            finally:
                beside.unlink(missing_ok=True)
        delivery_state.forget_store(workspace, settings.address)
        if state == "unfinished":
            say(f"the MLflow store {database} was never finished and held nothing; it is made anew")


def _params_of(client: "MlflowClient", run_id: str) -> dict[str, str] | None:
    """The parameters that the store has of a run, or None if it has no such run (any more)."""
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    return dict(run.data.params) if run.info.lifecycle_stage == "active" else None


def _probe(settings: ResolvedMlflow) -> None:
    """Ask, with a short patience (MLflow's own is long), whether anybody listens.

    Raises:
        TrackingError: nobody does.
    """
    parts = urlsplit(settings.tracking_uri)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    if parts.scheme in getproxies() and not proxy_bypass(host):
        return  # only the proxy can tell
    try:
        socket.create_connection((host, port), PROBE_TIMEOUT_S).close()
    except OSError as error:
        raise store_faults.explained(error, settings) from None


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return "unknown"


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
