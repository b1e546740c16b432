"""The files of a multipart body, as HTML forms and `curl -F` send them; all of it in memory, nothing on the disk."""

from dataclasses import dataclass, field

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from pipeline.serving.refusal import Refusal

MOST_HEADER_BYTES = 4096


@dataclass
class Part:
    """One part of the body: a file, or a field without a file's name."""

    headers: dict[bytes, bytes] = field(default_factory=dict)
    content: bytearray = field(default_factory=bytearray)

    @property
    def file_name(self) -> str | None:
        """The name of the file; None of what is no file."""
        _, options = parse_options_header(self.headers.get(b"content-disposition", b""))
        name = options.get(b"filename")
        return None if name is None else name.decode("utf-8", "replace")


def files_of(body: bytes | bytearray, boundary: bytes, most: int) -> list[tuple[str, bytes]]:
    """The names and contents of the files in a body, in their order.

    Raises:
        Refusal: it is no such body, or has more than `most` parts.
    """
    reader = _Reader(most)
    try:
        parser = MultipartParser(boundary, reader.callbacks())  # type: ignore[arg-type]
        parser.write(bytes(body))
        parser.finalize()
    except (MultipartParseError, ValueError, AssertionError) as error:
        raise Refusal(400, f"this is no multipart body: {' '.join(str(error).split())[:200]}") from None
    if not reader.is_complete:
        raise Refusal(400, "the multipart body ends before its last boundary")
    named = [(part.file_name, bytes(part.content)) for part in reader.parts]
    return [(name, content) for name, content in named if name is not None]


class _Reader:
    """Collects what the parser finds."""

    def __init__(self, most: int) -> None:
        self.parts: list[Part] = []
        self.is_complete = False
        self._most = most
        self._name, self._value = bytearray(), bytearray()

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._grow(self._name, data[start:end]),
            "on_header_value": lambda data, start, end: self._grow(self._value, data[start:end]),
            "on_header_end": self._end_header,
            "on_part_data": lambda data, start, end: self.parts[-1].content.extend(data[start:end]),
            "on_end": self._end,
        }

    def _begin(self) -> None:
        if len(self.parts) >= self._most:
            raise Refusal(413, f"more than {self._most} parts in one request")
        self.parts.append(Part())

    def _grow(self, header: bytearray, more: bytes) -> None:
        header.extend(more)
        if len(header) > MOST_HEADER_BYTES:
            raise Refusal(400, "a part of the multipart body has a header that is too long")

    def _end_header(self) -> None:
        self.parts[-1].headers[bytes(self._name).lower()] = bytes(self._value)
        self._name.clear()
        self._value.clear()

    def _end(self) -> None:
        self.is_complete = True
