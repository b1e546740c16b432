"""The rows of a search that lack room: their trials wait for it on a node, or have left a node that has none."""

from collections.abc import Callable, Collection, Mapping


class RowsWithoutRoom:
    """Which rows these are, and what the user is told: `note` is called once for each, until it runs again."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._waits: dict[int, str] = {}
        self._leaving: set[int] = set()
        self._noted: set[int] = set()

    def waits(self, number: int, text: str) -> None:
        """A row's trial waits, as the text says."""
        self._waits[number] = text
        self._note_once(number, f"trial {number} {text}")

    def leaves(self, number: int, text: str) -> None:
        """A row's trial leaves its node, as the text says; it has a process until `gone`."""
        self._leaving.add(number)
        self._note_once(number, f"trial {number} {text}; it goes on when there is room")

    def is_leaving(self, number: int) -> bool:
        return number in self._leaving

    def started(self, number: int) -> None:
        """A row's trial has room."""
        self._waits.pop(number, None)
        self._noted.discard(number)

    def gone(self, number: int) -> bool:
        """A row's trial has no process any more; whether that is because it left its node."""
        self._waits.pop(number, None)
        was_leaving = number in self._leaving
        self._leaving.discard(number)
        return was_leaving

    def waiting(self, running: Collection[int]) -> Mapping[int, str]:
        """What those of the running rows that wait say they wait for."""
        return {number: text for number, text in self._waits.items() if number in running}

    def _note_once(self, number: int, text: str) -> None:
        if number not in self._noted:
            self._noted.add(number)
            self._note(text)
