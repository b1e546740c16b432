"""A toy of a remote call: counts up, saves after each step, and says how far it is."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from tuning.cluster.node_folder import NodeFolder
from tuning.cluster.node_record import TrialOnNode
from tuning.remote_work import RemoteWork


@dataclass(frozen=True)
class Count:
    """Goes on from the saved number; returns how it ended, where it ran and what it read."""

    upto: int
    step_s: float = 0.05
    fails: str = ""

    def __call__(self, work: RemoteWork) -> tuple[str, int, str]:
        saved, log = work.folder / "number.json", work.folder / "log.txt"
        number = int(saved.read_text()) if saved.exists() else 0
        held = []
        while number < self.upto and work.stop_reason is None:
            time.sleep(self.step_s)
            number += 1
            with log.open("a") as file:
                file.write(f"{number}\n")
            if self.fails == "hog":
                held.append(bytearray(100_000_000))
            if self.fails == "raise" and number == 2:
                raise RuntimeError("no such thing")
            (work.folder / f"weights-{number}").write_bytes(os.urandom(100_000))
            (work.folder / f"weights-{number - 1}").unlink(missing_ok=True)
            draft = work.folder / ".number"
            draft.write_text(str(number))
            draft.rename(saved)
            work.send(("step", number), passing=True)
            work.bring_home()
        read = (work.shared_files / "scale").read_text() if work.shared_files else ""
        work.send(("end", str(Path(work.folder).is_dir())))
        return work.stop_reason or "done", number, read


class Shows(Count):
    """Says to its node where it stands, and home what the node sees."""

    def __call__(self, work: RemoteWork) -> tuple[str, int, str]:
        work.show(TrialOnNode("toy", 0, 1, 2))
        node = NodeFolder.of_environment()
        assert node is not None
        while not node.trials():
            time.sleep(0.01)
        work.send(("seen", [trial.search for trial in node.trials()]))
        return super().__call__(work)


class Stubborn:
    """Saves once, and never leaves."""

    def __call__(self, work: RemoteWork) -> None:
        (work.folder / "saved").touch()
        work.bring_home()
        while True:
            time.sleep(1)
