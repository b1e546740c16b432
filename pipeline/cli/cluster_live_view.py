"""What `seqpipe cluster join` shows: the two laptops compared, then what this one does: live, or lines in a pipe."""

from typing import TYPE_CHECKING

from pipeline.cli.cluster_events import NodeView, at_this_time
from pipeline.cli.cluster_view import held_mb, search_in_words, trial_cells
from pipeline.cli.console import Watcher, emit, table
from pipeline.counts import counted
from pipeline.percent import percent
from tuning.cluster.node_events import Beat, Left, Lost, NodeEvent
from tuning.cluster.node_record import NodeRecord, TrialOnNode

if TYPE_CHECKING:
    from rich.console import Group
    from rich.live import Live

    from pipeline.cluster.joining import Comparison

_VERDICTS = {"same": "", "said": "may differ", "refused": "does not fit"}


class JoinView(NodeView):
    """Shows a node of another laptop's cluster on stderr; `address` is that of the cluster, as it was typed."""

    def __init__(self, watcher: Watcher, address: str) -> None:
        super().__init__()
        self._watcher = watcher
        self._address = address
        self._live: Live | None = None
        self._trials: dict[tuple[str, int], TrialOnNode] = {}

    def compared(self, found: "Comparison") -> None:
        """Show the two laptops beside each other, and what this one will give."""
        columns = ["", f"here ({found.here.name})", f"there ({found.head.name})"]
        rows = [[line.what, line.here, line.there] for line in found.lines]
        if any(line.verdict != "same" for line in found.lines):
            columns += ["", "what to do"]
            rows = [[*row, _VERDICTS[line.verdict], line.advice] for row, line in zip(rows, found.lines, strict=True)]
        table(columns, rows)
        here = found.here
        emit(f"gives {here.cores:g} cores and {here.gives_mb} MB to trials; {here.reserve_mb} MB stay free")
        emit(self.sleep)

    def heard(self, event: NodeEvent) -> None:
        super().heard(event)
        if isinstance(event, Beat):
            self._show(event)
            return
        if isinstance(event, (Lost, Left)):
            self._tell_trials(())
            self.close()
        if words := self.line(event):
            self._watcher.note(at_this_time(words))

    def close(self) -> None:
        """Remove what is drawn live."""
        if self._live is not None:
            self._live.stop()
        self._live = None

    def _show(self, beat: Beat) -> None:
        own = next((record for record in beat.nodes if record.name == self.name), None)
        if own is None:
            return
        if not self._watcher.is_live:
            self._tell_trials(own.trials)
            return
        if self._live is None:
            from rich.live import Live

            self._live = Live(console=self._watcher.console(), auto_refresh=False, transient=True)
            self._live.start()
        self._live.update(self._drawn(own, beat), refresh=True)

    def _tell_trials(self, trials: tuple[TrialOnNode, ...]) -> None:
        """Tell in lines which trials have begun, come an epoch further, or gone."""
        before, self._trials = self._trials, {(trial.search, trial.row): trial for trial in trials}
        for key, trial in self._trials.items():
            if key not in before:
                self._watcher.note(at_this_time(f"trial {trial.row} of {trial.search} runs here"))
            elif trial.epoch != before[key].epoch:
                memory = f"{trial.held_mb:.0f} of {trial.cap_mb:.0f} MB"
                self._watcher.note(
                    at_this_time(
                        f"trial {trial.row} of {trial.search}: epoch {trial.epoch}/{trial.epochs}, "
                        f"{percent(trial.value)}, {memory}"
                    )
                )
        for key in before.keys() - self._trials.keys():
            self._watcher.note(at_this_time(f"trial {key[1]} of {key[0]} runs here no more"))

    def _drawn(self, own: NodeRecord, beat: Beat) -> "Group":
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        drawn = Table(header_style="bold", expand=True)
        for column in ("search", "trial", "epoch", "validation", "memory"):
            drawn.add_column(column, no_wrap=True)
        for trial in own.trials:
            drawn.add_row(*map(Text, trial_cells(trial)))
        lines = [Text(self.headline(own, len(beat.nodes)), style="bold", no_wrap=True, overflow="ellipsis")]
        lines += [Text(search_in_words(search), no_wrap=True, overflow="ellipsis") for search in beat.searches]
        return Group(*lines, *([drawn] if own.trials else []))

    def headline(self, own: NodeRecord, nodes: int) -> str:
        """This laptop in the cluster: what it runs, and its memory."""
        trials = len(own.trials)
        parts = [
            f"Ctrl-C leaves; {own.name} in the cluster of {self._address} ({nodes} laptops)",
            f"takes no more trials: {own.why}" if own.why else "",
            f"{counted(trials, 'trial')}, {held_mb(own):.0f} of {own.gives_mb} MB held, {own.free_mb} MB free",
        ]
        return ": ".join(part for part in parts if part)
