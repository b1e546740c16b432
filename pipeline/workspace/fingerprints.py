"""Fingerprints: hashes that name results, so that the same content has the same name."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def fingerprint(stage: str, version: int, reads: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """The identity of a stage's result: what it reads of the config, and the fingerprints of its inputs."""
    content = {"stage": stage, "version": version, "reads": reads, "inputs": inputs}
    return hashlib.sha256(canonical_json(content)).hexdigest()[:16]


def canonical_json(content: object) -> bytes:
    """JSON as bytes that are the same for the same content."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
