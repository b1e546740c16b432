"""The results of a benchmark on disk: `benchmarks/results/<name>.json`, one part per setting."""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "results"

Record = dict[str, Any]
"""{"benchmark": name, "settings": {setting: {"label": ..., "machine": {...}, "figures": {...}}}}"""


def read(name: str) -> Record | None:
    """A benchmark's kept results."""
    try:
        record: Record = json.loads((FOLDER / f"{name}.json").read_text())
    except FileNotFoundError:
        return None
    return record


def keep(record: Record) -> Path:
    """Write the settings that were measured now; those that were not stay as they were."""
    kept = read(record["benchmark"]) or {"settings": {}}
    path = FOLDER / f"{record['benchmark']}.json"
    FOLDER.mkdir(exist_ok=True)
    path.write_text(json.dumps(record | {"settings": kept["settings"] | record["settings"]}, indent=1) + "\n")
    return path


def names() -> list[str]:
    """The benchmarks of which results are kept."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def figures(record: Record, setting: str) -> Any:
    """What was measured under a setting; None if it was not."""
    part = record["settings"].get(setting)
    return part and part["figures"]
