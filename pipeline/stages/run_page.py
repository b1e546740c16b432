"""What a training's run shows in MLflow before its first epoch is done."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config.keys import flatten, to_yaml
from pipeline.config.resolution import resolve
from pipeline.config.schema import RunConfig
from pipeline.data.prepared import PreparedData
from pipeline.errors import SeqpipeError
from pipeline.provenance import versions
from pipeline.tracking.journal import Journal
from pipeline.workspace.durable_files import write_atomically, write_json, writing

if TYPE_CHECKING:
    from pipeline.training.numerics import Numerics

CONFIG_FILE = "config.yaml"
PROVENANCE_FILE = "provenance.json"


def describe(
    config: RunConfig,
    prepared: PreparedData,
    numerics: "Numerics",
    parameters: int,
    folder: Path,
    journal: Journal,
    commit: str | None,
    more_tags: Mapping[str, str],
) -> None:
    """Write it to the journal, and the files that it names to `folder`; `commit` is that of the code."""
    found = versions()
    write_json(folder / PROVENANCE_FILE, {"git_commit": commit, "versions": found})
    write_atomically(folder / CONFIG_FILE, to_yaml(config).encode())
    keep_contact_sheet(prepared, folder)
    settings = {
        key: value for key, value in flatten(config).items() if not key.startswith(("evaluate.", "registry."))
    }
    journal.params({**settings, "model.parameters": parameters})
    tags: Mapping[str, str | None] = {
        "seqpipe.model": config.model.name,
        "seqpipe.dataset": prepared.dataset,
        "seqpipe.classes": ", ".join(prepared.class_names),
        "seqpipe.data_hash": prepared.data_hash,
        "mlflow.source.git.commit": commit,
        "mlflow.note.content": _note(config, prepared),
        **{f"numerics.{name}": None if value is None else str(value) for name, value in numerics.to_json().items()},
        **{f"version.{name}": version for name, version in found.items()},
        **more_tags,
    }
    journal.tags({name: value for name, value in tags.items() if value is not None})
    profile = {split: prepared.images_in(split) for split in prepared.counts}
    for context in ("train", "validation", "test"):
        journal.dataset(
            {
                "name": f"{prepared.dataset} {context}",
                "digest": prepared.data_hash[:16],
                "context": context,
                "source": prepared.source,
                "profile": {"images": profile[context], "classes": dict(prepared.counts[context])},
            }
        )
    journal.artifact(folder / CONFIG_FILE)
    journal.artifact(folder / "contact_sheet.png", "data")


def keep_contact_sheet(prepared: PreparedData, folder: Path) -> None:
    """Copy the picture of the images to the folder, unless it is there."""
    kept = folder / "contact_sheet.png"
    if not kept.exists():
        with writing(folder):
            shutil.copyfile(prepared.contact_sheet, kept)


def _note(config: RunConfig, prepared: PreparedData) -> str:
    counts = ", ".join(f"{prepared.images_in(split)} {split}" for split in prepared.counts)
    return (
        f"**{config.model.name}** on {prepared.dataset}: {', '.join(prepared.class_names)} ({counts} images). "
        f"Train this again with `seqpipe run all --config {CONFIG_FILE}` (the file is among the artifacts)."
    )


def starting_config(folder: Path) -> RunConfig | None:
    """The config that a training was started with; None if it cannot be read."""
    try:
        return resolve(None, folder / CONFIG_FILE)
    except SeqpipeError:
        return None


def starting_commit(folder: Path) -> str | None:
    """The commit of the code that started a training; None if it is not known."""
    try:
        commit: str | None = json.loads((folder / PROVENANCE_FILE).read_bytes())["git_commit"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):  # a training counts without it
        return None
    return commit
