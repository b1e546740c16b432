"""Sends a trial's checkpoints in a thread of its own: a slow network holds up neither its reports nor its leaving."""

import shutil
import threading
from pathlib import Path
from typing import Self

import ray

from tuning.on_ray.attempt import Attempt, NotWantedError
from tuning.on_ray.checkpoint_store import OutdatedAttemptError


class CheckpointSender:
    """While one checkpoint is being sent, the newest of those that come waits; the others are dropped.

    Leaving the context drops what is not sent yet; `finish` waits for it.
    """

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._changed = threading.Condition()
        self._waiting: Path | None = None
        self._is_sending = self._is_over = False
        self._problems: list[str] = []
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
        self._thread.join()

    def send(self, folder: Path) -> None:
        """Send the checkpoint in a folder, and delete the folder."""
        with self._changed:
            dropped, self._waiting = self._waiting, folder
            self._changed.notify_all()
        if dropped is not None:
            shutil.rmtree(dropped, ignore_errors=True)

    def finish(self) -> None:
        """Wait until the newest checkpoint is sent.

        Raises:
            RayError: the search is gone.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._error or not (self._waiting or self._is_sending))
        if self._error is not None:
            raise self._error

    def problems(self) -> list[str]:
        """Why checkpoints were not kept since this was asked last."""
        with self._changed:
            problems, self._problems = self._problems, []
        return problems

    def _run(self) -> None:
        while (folder := self._next()) is not None:
            problem, error = "", None
            try:
                self._attempt.send_checkpoint(folder, lambda: not self._is_over)
            except NotWantedError:
                pass
            except ray.exceptions.RayTaskError as refused:  # a full disk: the trial goes on without this checkpoint
                if not isinstance(refused.cause, OutdatedAttemptError):
                    problem = f"a checkpoint was not kept: {refused.cause}"
            except (ray.exceptions.RayError, OSError) as raised:
                error = raised
            shutil.rmtree(folder, ignore_errors=True)
            with self._changed:
                self._is_sending = False
                self._problems += [problem] if problem else []
                self._error = self._error or error
                self._changed.notify_all()

    def _next(self) -> Path | None:
        """The checkpoint to send next; None when there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_over)
            if self._is_over:
                return None
            folder, self._waiting = self._waiting, None
            self._is_sending = True
            return folder
