"""The process that talks to the head's key-value store for a board: one JSON line a request, one a reply.

Ray's client is kept out of the process that asks: it writes to stderr, waits longer than it is told, and may end the
process that it is in. This one ends with its standard input.

    python board_child.py HOST:PORT       the first line of its input is the token
"""

import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

LIMIT_S = 2.0
"""How long Ray may take for a request."""
NAMESPACE = b"tuning"
_SETTINGS = {
    "RAY_AUTH_MODE": "token",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_gcs_rpc_server_connect_timeout_s": "1",
    "RAY_py_gcs_connect_timeout_s": "1",
    "RAY_nums_py_gcs_reconnect_retry": "0",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "1000000",  # after which it would end this process
}


class Store:
    """The key-value store of one head; JSON values by kind and name."""

    def __init__(self, client: Any) -> None:
        self._client = client

    @property
    def session(self) -> str:
        """Changes with every start of the head."""
        return str(self._client.cluster_id.hex())

    def put(self, kind: str, name: str, value: Any) -> None:
        self._client.internal_kv_put(_key(kind, name), json.dumps(value).encode(), True, NAMESPACE, LIMIT_S)

    def get(self, kind: str, name: str) -> Any:
        value = self._client.internal_kv_get(_key(kind, name), NAMESPACE, LIMIT_S)
        return None if value is None else json.loads(value)

    def all(self, kind: str) -> list[Any]:
        """The values of a kind, by name."""
        keys = sorted(self._client.internal_kv_keys(_key(kind, ""), NAMESPACE, LIMIT_S))
        found = self._client.internal_kv_multi_get(keys, NAMESPACE, LIMIT_S) if keys else {}
        return [json.loads(found[key]) for key in keys if key in found]

    def remove(self, kind: str, name: str) -> None:
        self._client.internal_kv_del(_key(kind, name), False, NAMESPACE, LIMIT_S)

    def live_nodes(self) -> list[str]:
        """Ray's ids of the nodes that the head counts as alive."""
        nodes = self._client.get_all_node_info(timeout=LIMIT_S)
        return [node_id.hex() for node_id, node in nodes.items() if node.state == 0]  # GcsNodeInfo.ALIVE


def answer(store: Store, request: Mapping[str, Any]) -> dict[str, Any]:
    """Do what one line asks for."""
    call: Callable[..., Any] = getattr(store, request["call"])
    try:
        return {"value": call(*request["arguments"])}
    except Exception as error:
        return failure(error)


def failure(error: Exception) -> dict[str, Any]:
    """A reply that says what went wrong."""
    refused = type(error).__name__ == "AuthenticationError"
    return {"error": next(iter(str(error).splitlines()), type(error).__name__), "refused": refused}


def main() -> None:
    """Connect, say in which session, and answer until the input ends."""
    os.environ.update(_SETTINGS | {"RAY_AUTH_TOKEN": sys.stdin.readline().strip()})
    from ray._raylet import GcsClient  # type: ignore[attr-defined]

    try:
        store = Store(GcsClient(address=sys.argv[1]))
        say({"value": store.session})
    except Exception as error:
        say(failure(error))
        return
    for line in sys.stdin:
        say(answer(store, json.loads(line)))


def say(reply: Mapping[str, Any]) -> None:
    """Send one line."""
    sys.stdout.write(json.dumps(reply) + "\n")
    sys.stdout.flush()


def _key(kind: str, name: str) -> bytes:
    return f"{kind}:{name}".encode()


if __name__ == "__main__":
    main()
