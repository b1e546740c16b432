"""A search on two laptops to which something happens every twenty seconds, and the same search undisturbed.

Its space has as many configurations as it has trials, so that every order of events ends in the same results.
"""

import json
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cable import Carries

from measuring.laptops import SEQPIPE, Cluster, Command, search, separate
from measuring.timing import say

EVERY_S = 20.0
SLOW = Carries(delay_ms=100, loss=0.02, mbit=10)
DEFAULT_RATE = 0.002
END_S = 900.0
"""How long the search may take when nothing happens any more."""


class Tortured:
    """The search and its cluster; somebody sits at each laptop, and starts again what has ended."""

    def __init__(self, cluster: Cluster, trials: int, epochs: int) -> None:
        self.cluster, self.trials, self.epochs = cluster, trials, epochs
        self.driver: Command | None = None
        self.happened: list[str] = []
        self.problems: list[str] = []
        values = sorted({DEFAULT_RATE, *(round(0.0011 + number * 0.00013, 6) for number in range(trials - 1))})
        (cluster.a.work / "space.yaml").write_text(f"train.learning_rate: {{choice: {json.dumps(values)}}}\n")

    # -- what people do

    def tend(self) -> bool:
        """Start again what has ended; whether the search is done."""
        cluster = self.cluster
        if self.driver is not None and self.driver.poll() == 0:
            return True
        if cluster.head is None or cluster.head.poll() is not None:
            self._try("up", cluster.up)
        member = cluster.members.get(cluster.b.name)
        if member is None or member.poll() is not None:
            self._try("join", lambda: cluster.begin_join(cluster.b))
        if self.driver is None or self.driver.poll() is not None:
            if self.driver is not None and self.driver.poll() not in (6, 130, -signal.SIGKILL):
                self.problems.append(f"tune ended with {self.driver.poll()}: {self.driver.err[-500:]}")
            words = search(self.trials, self.epochs, train__learning_rate=DEFAULT_RATE)
            self.driver = cluster.a.start(*words)
        return False

    def _try(self, what: str, do: Callable[[], object]) -> None:
        try:
            do()
        except AssertionError as error:
            self.problems.append(f"{what}: {str(error)[-500:]}")

    # -- what happens to them

    def events(self) -> list[Callable[[], None]]:
        return [
            self.b_killed, self.b_frozen, self.cable_cut, self.cable_flaps, self.slow_radio, self.b_moves,
            self.head_killed, self.driver_killed, self.ctrl_c, self.b_leaves, self.a_rebooted,
        ]  # fmt: skip

    def b_killed(self) -> None:
        self.cluster.b.kill_everything()

    def b_frozen(self) -> None:
        self.cluster.b.freeze()
        time.sleep(15)
        self.cluster.b.thaw()

    def cable_cut(self) -> None:
        self.cluster.laptops.radio.cut()
        time.sleep(15)
        self.cluster.laptops.radio.mend()

    def cable_flaps(self) -> None:
        for _ in range(2):
            self.cluster.laptops.radio.cut()
            time.sleep(4)
            self.cluster.laptops.radio.mend()
            time.sleep(4)

    def slow_radio(self) -> None:
        self.cluster.laptops.radio.be(SLOW)
        time.sleep(18)
        self.cluster.laptops.radio.be(Carries())

    def b_moves(self) -> None:
        b = self.cluster.b
        b.change_address("10.77.0.2" if b.address != "10.77.0.2" else "10.77.0.22")

    def head_killed(self) -> None:
        for process in self.cluster.a.processes():
            if "gcs_server" in "".join(process.cmdline()[:1]):
                process.kill()

    def driver_killed(self) -> None:
        self._end_driver(signal.SIGKILL)

    def ctrl_c(self) -> None:
        self._end_driver(signal.SIGINT)

    def _end_driver(self, number: int) -> None:
        if self.driver is not None and self.driver.poll() is None:
            self.driver.send(number)

    def b_leaves(self) -> None:
        member = self.cluster.members[self.cluster.b.name]
        if member.poll() is None:
            member.send(signal.SIGINT)

    def a_rebooted(self) -> None:
        self.cluster.a.reboot()


def tortured(folder: Path, trials: int, epochs: int, for_s: float, seed: int) -> dict[str, Any]:
    """What the search came to, and what happened to it."""
    chance = random.Random(seed)
    with separate(folder / "tortured") as cluster:
        one = Tortured(cluster, trials, epochs)
        began = time.monotonic()
        waiting: list[Callable[[], None]] = []
        due = EVERY_S
        while not one.tend():
            passed = time.monotonic() - began
            if passed > for_s + END_S:
                one.problems.append("it did not end")
                break
            if due <= passed < for_s:
                if not waiting:  # each event as often as any other
                    waiting = one.events()
                    chance.shuffle(waiting)
                event = waiting.pop()
                say(f"{passed:.0f} s: {event.__name__}; {len(cluster.of('finished'))} of {trials} done")
                one.happened.append(event.__name__)
                event()
                due += EVERY_S
            time.sleep(0.2)
        return {
            "seconds": round(time.monotonic() - began),
            "happened": dict(Counter(one.happened)),
            "problems": one.problems,
            "starts": len(cluster.of("started")),
            "ends": dict(Counter(each["row"] for each in cluster.of("finished")).items()),
            "outcomes": dict(Counter(each["outcome"] for each in cluster.of("finished"))),
            "results": by_rate(cluster),
        }


def undisturbed(folder: Path, trials: int, epochs: int) -> dict[str, Any]:
    """The same search to which nothing happens."""
    return tortured(folder / "undisturbed", trials, epochs, 0.0, 0)


def by_rate(cluster: Cluster) -> dict[str, dict[str, Any]]:
    """Each configuration's epochs and their figures, whatever row it was; a double has a name of its own."""
    found: dict[str, dict[str, Any]] = {}
    for row in cluster.results().values():
        name = str(row.pop("config").get("train.learning_rate"))
        found[f"{name}, again" if name in found else name] = {str(epoch): told for epoch, told in row.items()}
    return found


def compared(disturbed: dict[str, Any], plain: dict[str, Any]) -> dict[str, Any]:
    """Whether every trial ended once, none is lost or doubled, and all came to the same, to the last bit."""
    ours, theirs = disturbed["results"], plain["results"]
    return {
        "trials": len(theirs),
        "ended_once": sum(times == 1 for times in disturbed["ends"].values()),
        "lost": sorted(set(theirs) - set(ours)),
        "doubled": sorted(name for name in ours if "again" in name),
        "equal": sum(ours.get(name) == epochs for name, epochs in theirs.items()),
        "same_best": _best(ours) == _best(theirs),
    }


def _best(results: dict[str, dict[str, Any]]) -> tuple[float, str]:
    return max((max(told["value"] for told in epochs.values()), name) for name, epochs in results.items() if epochs)


__all__ = ["SEQPIPE", "compared", "tortured", "undisturbed"]
