"""A workspace, a cache folder of its own, and a laptop whose facts are known at once."""

from pathlib import Path

import pytest
from fake_cluster import FakeCluster, fake_cluster

from pipeline.cluster import this_laptop
from pipeline.workspace.paths import Workspace
from tuning.cluster import addresses
from tuning.cluster.addresses import InterfaceAddress

FACTS = {"precision": "fp32", "kernel": "native"}


class KnownFacts:
    """Facts without a child process."""

    def __enter__(self) -> "KnownFacts":
        return self

    def __exit__(self, *_: object) -> None: ...

    def result(self) -> dict[str, str]:
        return FACTS


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "work")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    monkeypatch.setattr(this_laptop, "Facts", KnownFacts)
    monkeypatch.setattr(
        addresses,
        "of_this_machine",
        lambda: (InterfaceAddress("lo", "127.0.0.1"), InterfaceAddress("wlan0", "192.168.1.10")),
    )
    monkeypatch.setattr("tuning.cluster.ports.taken", lambda numbers: ())
    return fake_cluster(monkeypatch)
