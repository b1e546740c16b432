"""A toy objective and a small command line over it, for the tests of the search: python toy_search.py FOLDER JSON"""

import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from sequencer_models.cache_folder import cache_folder
from tuning.ledger import EpochReport, Row
from tuning.observer import Observer
from tuning.search import SearchResult, run_search
from tuning.settings import Settings
from tuning.space import Config, Space
from tuning.trial import Diverged, Trial

SPACE = Space.parse({"x": {"uniform": [0.0, 1.0]}, "hog": {"choice": [False, True]}})
DEFAULT = {"x": 0.9, "hog": False}
EPOCHS = 6


@dataclasses.dataclass(frozen=True)
class Toy:
    """Value x * epoch, saved after each epoch; a hog takes more than any cap of these tests.

    With `reads` the value is multiplied by what the input `scale` holds.
    """

    epoch_s: float = 0.02
    trace: str = ""
    fails: str = ""
    reads: bool = False
    ends_after: str = ""
    """A file that has to exist before the last epoch begins."""

    def __call__(self, trial: Trial) -> None:
        self.note(trial, "begin")
        saved = trial.folder / "epoch"
        done = int(saved.read_text()) if saved.exists() else 0
        if self.fails == "raise the small" and trial.config["x"] < 0.9:
            time.sleep(2 * self.epoch_s)
            raise RuntimeError("too small")
        if self.fails == "raise":
            raise RuntimeError("no such data")
        if self.fails == "die" and done == 0:
            os.kill(os.getpid(), 9)
        held = []
        for epoch in range(done + 1, EPOCHS + 1):
            time.sleep(self.epoch_s)
            while self.ends_after and epoch == EPOCHS and not Path(self.ends_after).exists():
                time.sleep(self.epoch_s)
                trial.leave_if_asked()
            if trial.config.get("hog"):
                held.append(bytearray(100_000_000))
            if self.fails == "diverge":
                raise Diverged("the loss is nan")
            scale = float((trial.shared_files / "scale").read_text()) if self.reads and trial.shared_files else 1.0
            trial.report(epoch, trial.config["x"] * epoch * scale, {"loss": 1 - trial.config["x"]})
            saved.write_text(str(epoch))
            trial.checkpoint()
            self.note(trial, f"epoch {epoch}")
            trial.leave_if_asked()

    def note(self, trial: Trial, text: str) -> None:
        if self.trace:
            with Path(self.trace).open("a") as file:
                file.write(json.dumps({"x": trial.config["x"], "pid": os.getpid(), "did": text}) + "\n")


class Printing(Observer):
    def noted(self, text: str) -> None:
        print("note:", text, flush=True)

    def started(self, row: Row) -> None:
        print("started", row.number, flush=True)

    def reported(self, row: Row, report: EpochReport) -> None:
        print("reported", row.number, report.epoch, flush=True)

    def finished(self, row: Row) -> None:
        print("finished", row.number, row.finish and row.finish.outcome, flush=True)


def search(folder: Path, toy: Toy, space: Space = SPACE, default: Config = DEFAULT, **words: Any) -> SearchResult:
    """A search of the toy; `words` are settings or keywords of `run_search`."""
    names = {"observer", "should_stop", "extend", "warm_up", "shared_files"} & words.keys()
    keywords = {name: words.pop(name) for name in names}
    chosen = {"trials": 6, "cap_mb": 120, "scheduler": "none", "concurrency": 2, **words}
    settings = Settings(max_epochs=EPOCHS, **chosen)
    identity = {"model": "toy"}
    return run_search(toy, space, default, folder, identity, settings, cache_folder=cache_folder, **keywords)


def main() -> None:
    folder, words = Path(sys.argv[1]), json.loads(sys.argv[2])
    toy, space = Toy(**words.pop("toy", {})), Space.parse(words.pop("space", SPACE.to_json()))
    words["shared_files"] = [Path(path) for path in words.pop("shared_files", [])]
    result = search(folder, toy, space, observer=Printing(), **words)
    print("ended", result.ended, flush=True)


if __name__ == "__main__":
    from toy_search import main as importable  # a child process cannot import __main__

    importable()
