"""The error messages of an MLflow store: what is wrong, and what to do."""

import shlex
from pathlib import Path

from pipeline.errors import TrackingError
from pipeline.tracking.settings import ResolvedMlflow

_LATER = "nothing is lost: it is delivered from the journals when the store answers again"
_KEPT = "what was measured is kept, and `seqpipe runs deliver` delivers it then"


def passing(where: str, what: str) -> TrackingError:
    """A failure that passes by itself."""
    return TrackingError(f"MLflow store {where}: {what}", of_runs=_LATER, passes=True)


def lasting(where: str, what: str, advice: str) -> TrackingError:
    """A failure that stays until the user has done something."""
    return TrackingError(f"MLflow store {where}: {what}; {advice}", of_runs=_KEPT)


def damaged(database: Path) -> TrackingError:
    """The file is not a readable database (any more)."""
    return TrackingError(
        f"the MLflow store {database} is damaged; move it away ({move_away(database, 'damaged')}), and the next "
        "command makes a new one and delivers everything again from the journals"
    )


def move_away(database: Path, ending: str) -> str:
    """The command that moves a database out of the way."""
    return shlex.join(["mv", str(database), f"{database}.{ending}"])


def unfinished(database: Path) -> TrackingError:
    """The store holds runs, but its tables were never finished."""
    return lasting(str(database), "the creation of its tables was interrupted", start_again(database))


def newer(database: Path, revision: str) -> TrackingError:
    """A schema that the installed MLflow does not know."""
    return lasting(
        str(database),
        f"a newer MLflow than the one installed here made it (schema {revision})",
        f"install that MLflow (`pip install --upgrade mlflow`), or start another store "
        f"({move_away(database, 'newer')}), which gets everything again",
    )


def older(settings: ResolvedMlflow, mlflow_command: str) -> TrackingError:
    """A schema that `mlflow db upgrade` brings up to date."""
    where = str(settings.database or settings.address)
    upgrade = shlex.join([mlflow_command, "db", "upgrade", settings.tracking_uri if settings.database else where])
    keep = f"{shlex.join(['cp', where, f'{where}.older'])} && " if settings.database else "back it up, then "
    return lasting(where, "an older MLflow made it", f"keep a copy and bring it up to date: `{keep}{upgrade}`")


def of_another_program(database: Path) -> TrackingError:
    """A database without any of MLflow's tables."""
    return lasting(
        str(database), "it is the database of another program", "name another file as tracking_uri in mlflow.yaml"
    )


def start_again(database: Path) -> str:
    """Advice: move the database away and let the next command make a new one."""
    return f"move it away ({move_away(database, 'old')}), and a new one is made and gets everything again"
