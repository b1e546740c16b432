"""Forecasts by a stand-in for the process that makes them."""

import json
from pathlib import Path

import fake_forecasts
import pytest
from capped_calls import is_gone

from pipeline.training import forecaster


class FakeProcess:
    """What the stand-in was asked; `does` sets what the next ones do."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self._requests = folder / "requests"
        self._patch = patch
        patch.setattr(forecaster, "_CHILD", "fake_forecasts")
        patch.setenv("PYTHONPATH", str(Path(fake_forecasts.__file__).parent))
        patch.setenv("FAKE_REQUESTS", str(self._requests))

    def does(self, what: str) -> None:
        """See `fake_forecasts`."""
        self._patch.setenv("FAKE_FORECASTS", what)

    @property
    def requests(self) -> list[dict]:
        """Each with the id of the process that it came to."""
        return (
            [json.loads(line) for line in self._requests.read_text().splitlines()] if self._requests.exists() else []
        )

    @property
    def pids(self) -> list[int]:
        """Of all processes that were started, in order."""
        return list(dict.fromkeys(request["pid"] for request in self.requests))

    @property
    def are_gone(self) -> bool:
        """Whether none is left, after a while."""
        return all(is_gone(pid) for pid in self.pids)
