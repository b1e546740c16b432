"""Stand-ins for Ray's pieces: actors whose calls are made at once, in this process, and answers that never come."""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import ray

NODE = "0123abcd" * 7


@dataclass
class Answer:
    """What `handle.method.remote(...)` returns."""

    call: Callable[[], Any]
    comes: bool = True


class Handle:
    """An actor's handle. `calls` are the names of the methods called; those in `silent` are never answered."""

    def __init__(self, target: object) -> None:
        self.target = target
        self.calls: list[str] = []
        self.silent: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        def remote(*arguments: Any) -> Answer:
            self.calls.append(name)
            if name in self.silent:
                return Answer(lambda: None, comes=False)
            value, error = None, None
            try:
                value = getattr(self.target, name)(*arguments)
            except Exception as raised:
                error = raised

            def result() -> Any:
                if error is not None:
                    raise ray.exceptions.RayTaskError(name, "", error, proctitle="", pid=1, ip="")
                return value

            return Answer(result)

        return SimpleNamespace(remote=remote)


class FakeRay:
    """In place of the module `ray`; waiting for an answer advances `clock`."""

    exceptions = ray.exceptions

    def __init__(self) -> None:
        self.now = 100.0
        self.node = NODE
        self.handles: list[Handle] = []
        self.options: dict[str, Any] = {}

    def clock(self) -> float:
        return self.now

    def get(self, answer: Answer) -> Any:
        assert answer.comes, "this would wait for ever"
        return answer.call()

    def wait(self, answers: list[Answer], timeout: float) -> tuple[list[Answer], list[Answer]]:
        came = [answer for answer in answers if answer.comes]
        if not came:
            self.now += timeout
        return came, [answer for answer in answers if not answer.comes]

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(get_node_id=lambda: self.node)

    def remote(self, actor_class: type) -> Any:
        def options(**given: Any) -> Any:
            self.options = given
            return SimpleNamespace(remote=lambda *arguments: self._started(actor_class(*arguments)))

        return SimpleNamespace(options=options)

    def _started(self, actor: object) -> Handle:
        self.handles.append(Handle(actor))
        return self.handles[-1]
