"""A toy objective that holds as much memory as its case says, and what forecasts it: sometimes too little."""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuning.capacity import Node
from tuning.forecast import Forecast
from tuning.space import Config
from tuning.trial import Trial

CAP_MB = 200
IMPORTS_MB = 40
EPOCHS = 3
CASES = {
    "fits": (90, 8, 1.0),
    "fits in parts": (200, 8, 1.0),
    "infeasible": (400, 1, 1.0),
    "low": (110, 8, 2.0),
    "far too low": (110, 8, 12.0),
}
"""MB that are forecast beside the imports, in how many parts they can be held, and how many times that is held."""


def forecast(config: Config, cap_mb: float, node: Node | None = None) -> Forecast:
    """In as few parts as fit."""
    whole_mb, most_parts, _ = CASES[config["case"]]
    parts = 1
    while parts < most_parts and whole_mb / parts + IMPORTS_MB > cap_mb:
        parts *= 2
    return Forecast(whole_mb / parts + IMPORTS_MB, f"in {parts} parts" if parts > 1 else "")


@dataclass(frozen=True)
class Holding:
    """Holds its memory from the second epoch on; what it does is written to `trace`."""

    trace: str

    def __call__(self, trial: Trial) -> None:
        self.note(trial, "begin", halvings=trial.halvings, memory_mb=trial.memory_mb)
        planned = forecast(trial.config, trial.memory_mb or CAP_MB)
        trial.fitted(planned)
        saved = trial.folder / "epoch"
        done = int(saved.read_text()) if saved.exists() else 0
        held_mb = (planned.peak_mb - IMPORTS_MB) * CASES[trial.config["case"]][2] / 2**trial.halvings
        for epoch in range(done + 1, EPOCHS + 1):
            held = b"x" * int(held_mb * 1e6) if epoch > 1 else b""
            time.sleep(0.3)  # several of the watchdog's looks
            trial.report(epoch, epoch / 10)
            saved.write_text(str(epoch))
            trial.checkpoint()
            self.note(trial, f"epoch {epoch}", held=len(held))
            trial.leave_if_asked()

    def note(self, trial: Trial, did: str, **figures: Any) -> None:
        with Path(self.trace).open("a") as file:
            line = {"case": trial.config["case"], "did": did, "pid": os.getpid(), **figures}
            file.write(json.dumps(line) + "\n")
