"""The cluster that is run from a workspace: its files in `.seqpipe/cluster`, by which other commands find it.

    up.lock           held by `cluster up` for as long as it lives
    cluster.json      where the head is; written when it answers
    left_over.json    the same of a head that ended without `down`, until another answers
    code              the join code, for its owner's eyes only
    down              asks `cluster up` to end
    up.log            what `cluster up --detach` says

A join code is good for one `up`, but one that ended without `down` (a crash, a reboot) is followed by another with
the same code, so that the other laptops find their way back by themselves.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.errors import MachineUnfitError, WorkspaceError
from pipeline.workspace import locks
from pipeline.workspace.durable_files import replacing, write_json, writing
from pipeline.workspace.paths import Workspace
from tuning.cluster.addresses import as_typed, with_port
from tuning.cluster.join_code import JoinCode
from tuning.errors import ClusterError

NONE_UP = "no cluster is up from this workspace; `seqpipe cluster up` starts one"
_LOCK_S = 0.5


@dataclass(frozen=True)
class HeadHere:
    """The head that runs from here: where it is, which process keeps it, and what its laptop gives to trials."""

    host: str
    port: int
    """At which its ports begin."""
    name: str
    """Of its node."""
    pid: int
    cores: int = 0
    gives_mb: int = 0
    reserve_mb: int = 0
    goes_on_from: str | None = None
    """The address of the head whose join code it goes on with; None if the code is new."""

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return with_port(self.host, self.port)

    @property
    def typed(self) -> str:
        """The address as it is typed to join."""
        return as_typed(self.host, self.port)


@dataclass(frozen=True)
class ClusterAccess:
    """What it takes to use a cluster: where its head is, and the join code, which has the token."""

    head: HeadHere
    code: JoinCode

    @property
    def address(self) -> str:
        """HOST:PORT of the head."""
        return self.head.address

    @property
    def token(self) -> str:
        return self.code.token


def running(workspace: Workspace) -> ClusterAccess | None:
    """The cluster that runs from this workspace now; None if there is none, or it is still being started.

    Raises:
        WorkspaceError: its files cannot be read.
    """
    folder = ClusterFolder(workspace.cluster)
    if not folder.is_held():
        return None
    return folder.read(folder.place)


def left_over(workspace: Workspace) -> ClusterAccess | None:
    """The cluster that ran from this workspace and ended without `down`.

    Raises:
        WorkspaceError: its files cannot be read.
    """
    folder = ClusterFolder(workspace.cluster)
    if folder.is_held():
        return folder.read(folder.left_over)
    return folder.read(folder.place) or folder.read(folder.left_over)


class ClusterFolder:
    """The folder of the cluster's files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = path / "up.lock"
        self.place = path / "cluster.json"
        self.left_over = path / "left_over.json"
        self.code = path / "code"
        self.down = path / "down"
        self.log = path / "up.log"

    def is_held(self) -> bool:
        """Whether a `cluster up` lives."""
        return locks.is_held(self.lock)

    def require_free(self) -> None:
        """Raise `MachineUnfitError` if a `cluster up` lives."""
        if self.is_held():
            raise MachineUnfitError(self._held_in_words())

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within this, this process is the `cluster up` of the workspace.

        Raises:
            MachineUnfitError: there is one already.
        """
        with ExitStack() as stack:
            with writing(self.path):
                self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
                if not stack.enter_context(locks.if_free(self.lock, _LOCK_S)):
                    raise MachineUnfitError(self._held_in_words())
                self.down.unlink(missing_ok=True)
                if self.place.exists():
                    self.place.replace(self.left_over)
            yield

    def write(self, access: ClusterAccess) -> None:
        """Keep where the head is; it answers now."""
        with writing(self.code), replacing(self.code) as beside:
            beside.touch(mode=0o600)
            beside.write_text(f"{access.code}\n")
        write_json(self.place, asdict(access.head))
        self.left_over.unlink(missing_ok=True)

    def read(self, place: Path) -> ClusterAccess | None:
        """What is kept in one of the two files of places; None if nothing whole is."""
        try:
            return ClusterAccess(HeadHere(**json.loads(place.read_bytes())), JoinCode.parse(self.code.read_text()))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise WorkspaceError(
                f"{error.filename}: cannot be read: {error.strerror}; run this as the user who started the cluster"
            ) from error
        except (ValueError, TypeError, ClusterError):
            return None

    def forget(self) -> None:
        """Remove everything: the join code is good for nothing from here on."""
        with writing(self.path):
            for path in (self.place, self.left_over, self.code, self.down):
                path.unlink(missing_ok=True)

    def ask_to_end(self) -> None:
        """Ask the `cluster up` that lives to end."""
        with writing(self.down):
            self.down.touch(mode=0o600)

    def is_asked_to_end(self) -> bool:
        """Whether this `cluster up` was asked to end."""
        return self.down.exists()

    def _held_in_words(self) -> str:
        with suppress(WorkspaceError):
            if (found := self.read(self.place)) is not None:
                return (
                    f"the cluster of this workspace is up already (process {found.head.pid}), and others join it at "
                    f"{found.head.typed}; `seqpipe cluster down` ends it"
                )
        return "the cluster of this workspace is being started already; `seqpipe cluster status` shows when it is up"
