"""Sends the store what it lacks of a run: tags, parameters, metrics, files and status.

A store keeps one row per run, key, step, time and value, so sending a journal twice does no harm.
"""

import getpass
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pipeline.tracking import delivery_state
from pipeline.tracking.connection import StoreConnection
from pipeline.tracking.delivery_state import Delivered, JournalRecord, RunRecord, StoreRecord
from pipeline.tracking.journal import Event, Kind
from pipeline.tracking.journal import read as read_journal
from pipeline.workspace.locks import exclusive
from pipeline.workspace.paths import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

RUN_KEY_TAG = "seqpipe.run_key"
PARENT_TAG = "mlflow.parentRunId"
_PARAM_CHARACTERS = 6000
_TAG_CHARACTERS = 8000
_DIGEST_CHARACTERS = 36


class Sender:
    """Sends runs over a connection; `report` gets a line about files that are gone."""

    def __init__(self, connection: StoreConnection, workspace: Workspace, report: Callable[[str], None]) -> None:
        self._connection = connection
        self._workspace = workspace
        self._report = report

    def send(self, record: RunRecord) -> None:
        """Send everything of a run that the store lacks; call it while holding `delivery_lock` of the run.

        Raises:
            Exception: whatever the store or MLflow finds wrong.
        """
        client = self._connection.client()
        store = self._store_record(record.key)
        known_params = _params_of(client, store.run_id) if store else None
        if store is None or known_params is None:  # not sent yet, or deleted there
            store = self._find_or_create(client, record)
            delivery_state.write_store(self._workspace, record.key, store)
            known_params = _params_of(client, store.run_id) or {}
        if record.lacks_parent(store):
            if (parent_id := self._parent_id(record)) is not None:  # else there is no such run any more
                client.set_tag(store.run_id, PARENT_TAG, parent_id)
            store.parent = record.parent
            delivery_state.write_store(self._workspace, record.key, store)
        for journal_id, journal in record.journals.items():
            self._send_journal(client, record, store, journal_id, journal, known_params)
        if store.status != record.status:
            if record.status == "RUNNING":
                client.update_run(store.run_id, status="RUNNING")
            else:
                client.set_terminated(store.run_id, record.status, end_time=store.last_event_ms or None)
            store.status = record.status
            delivery_state.write_store(self._workspace, record.key, store)

    def _store_record(self, key: str) -> StoreRecord | None:
        return delivery_state.read_store(self._workspace, key, self._connection.settings.address)

    def _find_or_create(self, client: "MlflowClient", record: RunRecord) -> StoreRecord:
        experiment_id = self._connection.experiment_id()
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
                tags[PARENT_TAG] = parent_id
            start_ms = self._first_event_ms(record)
            run = client.create_run(experiment_id, start_time=start_ms, tags=tags, run_name=record.name)
        return StoreRecord(self._connection.settings.address, run.info.run_id, experiment_id, run.info.status)

    def _parent_id(self, record: RunRecord) -> str | None:
        """The store's id of the parent run, which is sent first."""
        parent = delivery_state.read_run(self._workspace, record.parent) if record.parent else None
        if parent is None:
            return None
        if self._store_record(parent.key) is None:
            lock = delivery_lock(self._workspace, parent.key)
            with exclusive(lock, logger.info, what=f"the delivery of {parent.key}"):
                self.send(parent)
        store = self._store_record(parent.key)
        return store.run_id if store else None

    def _first_event_ms(self, record: RunRecord) -> int | None:
        """When the run started, which may be long before it is sent."""
        for journal in record.journals.values():
            path = delivery_state.journal_path(self._workspace, journal)
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
        path = delivery_state.journal_path(self._workspace, journal)
        if path is None:
            if start < journal.upto:
                self._report(f"{record.name}: {journal.folder} was removed before all of it was delivered to MLflow")
            store.delivered[journal_id] = Delivered(journal.upto, "")
            delivery_state.write_store(self._workspace, record.key, store)
            return
        was_rewritten = before is not None and (
            path.stat().st_size < start or delivery_state.tail_digest(path, start) != before.tail
        )
        events = list(read_journal(path, 0 if was_rewritten else start, journal.upto))
        if not events:
            return
        self._send_events(client, store.run_id, path.parent, events, known_params, skip_present=was_rewritten)
        store.last_event_ms = max(store.last_event_ms, *(event.time_ms for event in events))
        store.delivered[journal_id] = Delivered(events[-1].end, delivery_state.tail_digest(path, events[-1].end))
        delivery_state.write_store(self._workspace, record.key, store)

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
        """Send events so that a run can be read early: first what it is, then how it goes.

        `skip_present` is for a journal that was cut back and written again with other times: steps that the store
        has stay as they are.
        """
        of_kind = {kind: [event for event in events if event.kind == kind] for kind in get_args(Kind)}
        _send_tags_and_params(client, run_id, of_kind["tags"], of_kind["params"], known_params)
        _send_datasets(client, run_id, of_kind["dataset"])
        _send_metrics(client, run_id, of_kind["metrics"], skip_present=skip_present)
        files = dict.fromkeys((event.content["file"], event.content["folder"]) for event in of_kind["artifact"])
        for file, shown_in in files:
            if (folder / file).is_file():
                client.log_artifact(run_id, str(folder / file), shown_in or None)
            else:
                self._report(f"{folder / file} was removed before it was delivered to MLflow")


def delivery_lock(workspace: Workspace, key: str) -> Path:
    """The lock that is held while a run is sent."""
    return workspace.lock(f"run-{key}")


def _send_tags_and_params(
    client: "MlflowClient",
    run_id: str,
    tag_events: Sequence[Event],
    param_events: Sequence[Event],
    known_params: dict[str, str],
) -> None:
    from mlflow.entities import Param, RunTag

    tags: dict[str, str] = {}
    for event in tag_events:
        tags |= {key: str(value)[:_TAG_CHARACTERS] for key, value in event.content["values"].items()}
    params: dict[str, str] = {}
    for event in param_events:  # MLflow refuses to change a parameter: the first value stays
        for key, value in event.content["values"].items():
            if key not in known_params:
                params.setdefault(key, str(value)[:_PARAM_CHARACTERS])
    client.log_batch(  # in as many requests as MLflow's limits require
        run_id,
        params=[Param(key, value) for key, value in params.items()],
        tags=[RunTag(key, value) for key, value in tags.items()],
    )
    known_params.update(params)


def _send_datasets(client: "MlflowClient", run_id: str, events: Sequence[Event]) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    for event in events:
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


def _send_metrics(client: "MlflowClient", run_id: str, events: Sequence[Event], *, skip_present: bool) -> None:
    from mlflow.entities import Metric

    metrics = [
        Metric(key, float(value), event.time_ms, int(event.content["step"]))
        for event in events
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


def _params_of(client: "MlflowClient", run_id: str) -> dict[str, str] | None:
    """The parameters of a run in the store, or None if it has no such run (any more)."""
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    return dict(run.data.params) if run.info.lifecycle_stage == "active" else None


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return "unknown"


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
