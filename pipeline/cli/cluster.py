"""`seqpipe cluster`: several laptops, one search; start a cluster, join it, look at it, leave it, end it."""

import os
import signal
import sys
from collections.abc import Mapping
from getpass import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli import options
from pipeline.cli.console import complain, emit, emit_json
from pipeline.errors import InterruptedRunError, MachineUnfitError
from pipeline.stop import StopToken

if TYPE_CHECKING:
    from tuning.cluster.join_code import JoinCode

LOWEST_BASE, HIGHEST_BASE = 1024, 32658
"""Where the ports of a node may begin."""
_TRIES = 3
_PROMPT = "join code (not shown): "
cluster = typer.Typer(
    help="Search on several laptops: `up` on the first, `join` on the others, then `seqpipe tune` on the first.",
    no_args_is_help=True,
)

Port = Annotated[
    int | None,
    typer.Option(
        "--port",
        min=LOWEST_BASE,
        max=HIGHEST_BASE,
        help="Where the 110 ports begin that this laptop uses. Default: 6480.",
        show_default=False,
    ),
]
Reserve = Annotated[
    int | None,
    typer.Option(
        "--reserve-mb",
        min=1,
        help="Memory that stays free for everything else. Default: a tenth of the laptop's, at least 512 MB.",
        show_default=False,
    ),
]
MaySleep = Annotated[bool, typer.Option("--may-sleep", help="Let this laptop fall asleep while it has a trial.")]
Bind = Annotated[
    str | None,
    typer.Option(
        "--bind",
        metavar="ADDRESS",
        help="This laptop's address in the local network, or its interface. Default: the only one.",
        show_default=False,
    ),
]
Detach = Annotated[
    bool, typer.Option("--detach", help="Return once it is up, and leave it running until `seqpipe cluster down`.")
]
InBackground = Annotated[bool, typer.Option("--in-background", hidden=True)]
HeadAddress = Annotated[
    str, typer.Argument(metavar="ADDRESS", help="What `seqpipe cluster up` shows: HOST or HOST:PORT.")
]
CodeFile = Annotated[
    Path | None, typer.Option("--code-file", help="A file with the join code that only you may read (chmod 600).")
]
Name = Annotated[
    str | None,
    typer.Option("--name", help="What this laptop is called there. Default: its host name.", show_default=False),
]
Node = Annotated[str, typer.Argument(metavar="NODE", help="Its name, as `seqpipe cluster status` shows it.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the root."""
    app.add_typer(cluster, name="cluster")


@cluster.command("up")
def up(
    bind: Bind = None,
    port: Port = None,
    detach: Detach = False,
    may_sleep: MaySleep = False,
    reserve_mb: Reserve = None,
    in_background: InBackground = False,
) -> None:
    """Start a cluster from this workspace, this laptop in it, and show what to type on the others. Ctrl-C ends it."""
    from pipeline.cli.cluster_view import UpView
    from pipeline.cluster import background, starting
    from pipeline.search.tuning_errors import translated
    from pipeline.workspace.paths import Workspace
    from tuning.awake import Awake

    workspace = Workspace.find()
    view = UpView(workspace, is_detached=detach, shows_code=not in_background)
    with StopToken().installed() as token, translated(token), Awake(may_sleep=may_sleep) as awake:
        view.sleep = awake.in_words
        if detach:
            given = {"--bind": bind, "--port": port, "--reserve-mb": reserve_mb, "--may-sleep": may_sleep}
            view.up(background.start(workspace, ["cluster", "up", *_words(given), "--in-background"]))
            return
        asked = starting.Asked(bind, port, reserve_mb)
        why = starting.up(workspace, asked, view.up, view.keeping(awake), token)
    emit(f"the cluster has ended: {why}")
    _leave(token, is_done=view.has_joined)


@cluster.command("join")
def join(
    address: HeadAddress,
    code_file: CodeFile = None,
    name: Name = None,
    port: Port = None,
    may_sleep: MaySleep = False,
    reserve_mb: Reserve = None,
) -> None:
    """Join the cluster of another laptop, and run trials of its search here until Ctrl-C, which leaves in order.

    Asks for the join code, unless it is in --code-file or in SEQPIPE_JOIN_CODE. Needs neither a workspace nor data.
    """
    from contextlib import closing

    from pipeline.cli.cluster_live_view import JoinView
    from pipeline.cli.console import watching
    from pipeline.cluster import joining, this_laptop
    from pipeline.search.tuning_errors import translated
    from tuning.awake import Awake

    asked = joining.Asked(name, port, reserve_mb)
    with StopToken().installed() as token, translated(token), this_laptop.Facts() as facts:
        head = joining.head_address(address)
        code = _code(code_file)
        with Awake(may_sleep=may_sleep) as awake, watching() as watcher, closing(JoinView(watcher, address)) as view:
            view.sleep = awake.in_words
            why = joining.join(head, code, asked, facts, view.compared, view.keeping(awake), token)
    emit(f"left the cluster: {why}")
    _leave(token, is_done=view.has_joined)


@cluster.command("status")
def status(as_json: options.Json = False) -> None:
    """Show the cluster of this workspace: its laptops, what each of them runs, and how far its search is."""
    from pipeline.cli import cluster_view
    from pipeline.cluster import node_here, workspace_cluster
    from pipeline.search.tuning_errors import translated
    from pipeline.workspace.paths import Workspace

    workspace = Workspace.find()
    access = workspace_cluster.running(workspace)
    if access is None:
        why = cluster_view.none_in_words(workspace_cluster.left_over(workspace), node_here.find())
        if as_json:
            emit_json({"up": False, "why": why})
        raise MachineUnfitError(why)
    from tuning.on_ray import board

    with translated(StopToken()), board.Board(access.address, access.token) as opened:
        nodes, searches = opened.nodes(), opened.searches()
    cluster_view.show_status(access.head, nodes, searches, as_json)


@cluster.command("leave")
def leave(node: Node) -> None:
    """Send a laptop out of the cluster, in order: its trials save first, and go on elsewhere."""
    from pipeline.cluster import ending
    from pipeline.search.tuning_errors import translated
    from pipeline.workspace.paths import Workspace

    with translated(StopToken()):
        ending.leave(Workspace.find(), node)
    emit(f"{node} has left the cluster")


@cluster.command("down")
def down() -> None:
    """End the cluster of this workspace on every laptop, in order; its join code is good for nothing from then on."""
    from pipeline.cluster import ending
    from pipeline.workspace.paths import Workspace

    emit(ending.down(Workspace.find()))


def _code(file: Path | None) -> "JoinCode":
    """The join code: of the file, the environment, or whoever sits here. No child of this process inherits it."""
    from pipeline.cluster import joining
    from tuning.cluster.join_code import JoinCode
    from tuning.errors import ClusterError

    given = joining.given_code(file, os.environ)
    os.environ.pop(joining.CODE_VARIABLE, None)
    if given is not None:
        return JoinCode.parse(given)
    if not sys.stdin.isatty():
        return JoinCode.parse(sys.stdin.readline())
    for _ in range(_TRIES - 1):
        try:
            return JoinCode.parse(getpass(_PROMPT))
        except ClusterError as error:
            complain(str(error))
    return JoinCode.parse(getpass(_PROMPT))


def _words(given: Mapping[str, object]) -> list[str]:
    """The options that were given, as they are typed."""
    valued = [
        (name, str(value)) for name, value in given.items() if value is not None and not isinstance(value, bool)
    ]
    return [*(word for pair in valued for word in pair), *(name for name, value in given.items() if value is True)]


def _leave(token: StopToken, *, is_done: bool) -> None:
    """Exit as a signal asks. Ctrl-C is the way to end a node, and no failure unless it came before there was one."""
    reason = token.reason()
    if isinstance(reason, InterruptedRunError) and not (is_done and reason.signal_number == signal.SIGINT):
        raise reason
