"""A benchmark as a command: each setting in a child process, then JSON and Markdown.

python benchmarks/NAME.py [--rounds N] [--settings NAME ...] [--data FOLDER]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measuring import records, settings
from measuring.markdown import Table
from measuring.records import Record
from measuring.settings import Setting
from measuring.timing import ENOUGH, say

DATA_VARIABLE = "SEQPIPE_BENCH_DATA"


@dataclass(frozen=True)
class Benchmark:
    """One file of `benchmarks/`.

    Attributes:
        name: of the file and of its results.
        measure: called in a process of its own under each setting; returns figures for JSON.
        tables: makes tables of a record.
        settings: what it is run under.
        rounds: how often what it compares is repeated; None where a run is long and done once.
        add_arguments: adds flags of its own.
        takes_flags: unknown flags are `seqpipe run`'s (`options.flags`).
    """

    name: str
    measure: Callable[[argparse.Namespace, Setting], Any]
    tables: Callable[[Record], list[Table]]
    settings: Sequence[Setting] = (settings.DEFAULT,)
    rounds: int | None = ENOUGH
    add_arguments: Callable[[argparse.ArgumentParser], Any] = lambda _: None
    takes_flags: bool = False

    def main(self) -> None:
        """Run as a command."""
        options = self._options()
        if options.child:
            self._measure(options, settings.BY_NAME[options.child])
            return
        measured = [one for one in self.settings if not options.settings or one.name in options.settings]
        record: Record = {"benchmark": self.name, "settings": {one.name: self._in_child(one) for one in measured}}
        for table in self.tables(record):
            print(table)
        if self.rounds and options.rounds < ENOUGH:
            say(f"{options.rounds} rounds are a try: not kept")
        elif options.flags:
            say("with flags of its own: not kept")
        else:
            say(f"kept in {os.path.relpath(records.keep(record))}")

    def _options(self) -> argparse.Namespace:
        parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
        if self.rounds:
            parser.add_argument(
                "--rounds", type=int, default=self.rounds, help=f"repetitions; fewer than {ENOUGH} are not kept"
            )
        if len(self.settings) > 1:
            parser.add_argument("--settings", nargs="+", choices=[one.name for one in self.settings], default=[])
        else:
            parser.set_defaults(settings=[])
        parser.add_argument(
            "--data",
            type=Path,
            default=os.environ.get(DATA_VARIABLE),
            help=f"a .seqpipe/data folder with CIFAR-10 in it (default: ${DATA_VARIABLE}); else it is fetched",
        )
        parser.add_argument("--child", help=argparse.SUPPRESS)
        parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
        self.add_arguments(parser)
        options, flags = parser.parse_known_args()
        if flags and not self.takes_flags:
            parser.error(f"unrecognized arguments: {' '.join(flags)}")
        options.flags = flags
        options.data = Path(options.data) if options.data else None
        return options

    def _in_child(self, setting: Setting) -> dict[str, Any]:
        say(f"{self.name}: {setting.label}")
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "figures.json"
            command = [sys.executable, *sys.argv, "--child", setting.name, "--out", str(out)]
            done = subprocess.run(command, env=settings.child_environ(setting), check=False)
            if done.returncode:
                sys.exit(f"{self.name} failed under {setting.label}")
            result: dict[str, Any] = json.loads(out.read_text())
            return result

    def _measure(self, options: argparse.Namespace, setting: Setting) -> None:
        from measuring import machine  # here: the parent needs no torch

        before, started = machine.load_average(), time.monotonic()
        figures = self.measure(options, setting)
        described = machine.describe(setting) | {
            "load_before": before,
            "load_after": machine.load_average(),
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "took_s": round(time.monotonic() - started),
        }
        options.out.write_text(json.dumps({"label": setting.label, "machine": described, "figures": figures}))
