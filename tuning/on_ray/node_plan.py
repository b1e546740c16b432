"""What a node is to give, and how it is known to the others."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tuning.cluster.ports import Ports
from tuning.cluster.versions import Versions


@dataclass(frozen=True)
class NodePlan:
    """What `cluster up` or `cluster join` starts."""

    name: str
    ports: Ports
    cores: int
    gives_mb: int
    """Memory for trials and their workers, as `tuning.capacity` counts it."""
    reserve_mb: int
    versions: Versions
    facts: Mapping[str, str]
    """Words of the caller's, such as the precision; nothing here reads them."""
    keeps_files_in: Path
    """A node without room on this disk takes no work."""
    code_now: Callable[[], str]
    """The digest of the packages' source as it is on disk now; it was `versions.code` at the start."""
