"""The database schema of the installed MLflow, read from its files without importing it."""

import importlib.util
import re
import sys
from functools import cache
from pathlib import Path


@cache
def schema_revisions() -> tuple[frozenset[str], str | None]:
    """The revisions that the installed MLflow knows, and the newest; empty and None if they are not found."""
    found = importlib.util.find_spec("mlflow")
    folders = found.submodule_search_locations if found else None
    known: set[str] = set()
    replaced: set[str] = set()
    for path in (file for folder in folders or () for file in Path(folder).glob("store/db_migrations/versions/*.py")):
        text = path.read_text(encoding="utf-8", errors="replace")
        known |= set(re.findall(r"^revision\b[^=]*=\s*[\"'](\w+)", text, re.MULTILINE))
        for line in re.findall(r"^down_revision\b[^=]*=(.*)$", text, re.MULTILINE):
            replaced |= set(re.findall(r"[\"'](\w+)[\"']", line))
    newest = known - replaced
    return (frozenset(known), newest.pop()) if len(newest) == 1 else (frozenset(), None)


def mlflow_command() -> str:
    """The `mlflow` command of this Python."""
    beside = Path(sys.executable).with_name("mlflow")
    return str(beside) if beside.exists() else "mlflow"
