"""Bodies of all sorts for the server: whole ones, damaged ones, and ones that were never any."""

import base64
import json
import random
import string
from collections.abc import Callable, Iterator

from served import png

PATHS = ("/predict", "/invocations", "/explain")
KINDS = (
    "application/json", "application/json; charset=utf-16", "text/csv", "multipart/form-data; boundary=b",
    "multipart/form-data", 'multipart/form-data; boundary="', "multipart/form-data; boundary=" + "b" * 300,
    "image/png", "image/jpeg", "application/octet-stream", "text/plain", "", ";;;", "a/b; c*=utf-8''%ff",
)  # fmt: skip
KEYS = (
    "image",
    "images",
    "inputs",
    "instances",
    "dataframe_split",
    "dataframe_records",
    "params",
    "data",
    "columns",
    "",
)
Draw = random.Random


def requests(count: int, seed: int) -> Iterator[tuple[str, str, bytes]]:
    """So many requests: path, content type, body. The same for the same seed."""
    draw = Draw(seed)
    for _ in range(count):
        kind, body = draw.choice(_MAKERS)(draw)
        if draw.random() < 0.4:
            body = _damaged(body, draw)
        if draw.random() < 0.1:
            kind = draw.choice(KINDS)
        yield draw.choice(PATHS), kind, body


def _image(draw: Draw) -> bytes:
    kind = draw.choice(("PNG", "JPEG", "WEBP", "BMP", "GIF"))
    size = draw.choice(((32, 32), (1, 1), (1, 200), (64, 48)))
    content = png(draw.randrange(256), size, kind)
    return _damaged(content, draw) if draw.random() < 0.3 else content


def _form(draw: Draw) -> tuple[str, bytes]:
    parts = []
    for _ in range(draw.choice((0, 1, 1, 1, 2, 5, 300))):
        name = draw.choice(
            (
                'filename="a.png"',
                "filename=",
                'filename="\xff\n"',
                "",
                "filename*=utf-8''x",
                'filename="' + "n" * 5000 + '"',
            )
        )
        head = f'--b\r\nContent-Disposition: form-data; name="file"; {name}\r\nContent-Type: image/png\r\n\r\n'
        parts.append(head.encode("latin-1") + _image(draw) + b"\r\n")
    return "multipart/form-data; boundary=b", b"".join(parts) + b"--b--\r\n"


def _value(draw: Draw, depth: int = 0) -> object:
    simple: list[Callable[[], object]] = [
        lambda: None, lambda: True, lambda: draw.randrange(-300, 300), lambda: 10 ** draw.randrange(400),
        lambda: draw.choice((0.5, float("nan"), float("inf"), -1e308)), lambda: "x" * draw.randrange(40),
        lambda: base64.b64encode(_image(draw)).decode(), lambda: "data:image/png;base64,",
        lambda: "\ud800", lambda: [[[[draw.randrange(256)] * 3] * 32] * 32],
        lambda: [[[draw.random()] * 3] * 32] * 32,
    ]  # fmt: skip
    if depth > 3 or draw.random() < 0.5:
        return draw.choice(simple)()
    if draw.random() < 0.5:
        return [_value(draw, depth + 1) for _ in range(draw.randrange(4))]
    return {draw.choice(KEYS): _value(draw, depth + 1) for _ in range(draw.randrange(3))}


def _json(draw: Draw) -> tuple[str, bytes]:
    document = _value(draw) if draw.random() < 0.3 else {draw.choice(KEYS): _value(draw)}
    return "application/json", json.dumps(document).encode()


def _pixels(draw: Draw) -> tuple[str, bytes]:
    count, height, width, channels = draw.choice(
        ((1, 32, 32, 3), (3, 32, 32, 3), (1, 32, 32, 1), (1, 1, 1, 3), (300, 1, 1, 1))
    )
    level: object = draw.choice((0, 255, 256, -1, 0.5, 12.0, None, "1", True))
    return "application/json", json.dumps(
        {draw.choice(KEYS[2:4]): [[[[level] * channels] * width] * height] * count}
    ).encode()


def _deep(draw: Draw) -> tuple[str, bytes]:
    return "application/json", draw.choice((b"[", b'{"inputs":', b'{"a":[')) * draw.choice((10, 5000, 200_000))


def _csv(draw: Draw) -> tuple[str, bytes]:
    cells = ("1", "255", "-1", "nan", "1e999", "x", '"', "", "\x00", base64.b64encode(_image(draw)).decode())
    width = draw.choice((1, 1, 2, 3072))
    lines = [",".join(draw.choice(cells) for _ in range(width)) for _ in range(draw.randrange(4))]
    return "text/csv", "\n".join(["image", *lines]).encode()


def _bytes(draw: Draw) -> tuple[str, bytes]:
    return draw.choice(KINDS), draw.randbytes(draw.choice((0, 1, 10, 1000, 20_000)))


def _text(draw: Draw) -> tuple[str, bytes]:
    return draw.choice(KINDS), "".join(draw.choices(string.printable, k=draw.randrange(200))).encode()


def _file(draw: Draw) -> tuple[str, bytes]:
    return draw.choice(("image/png", "application/octet-stream", "image/x")), _image(draw)


def _damaged(body: bytes, draw: Draw) -> bytes:
    content = bytearray(body)
    how = draw.randrange(4)
    if not content or how == 0:
        return bytes(content[: draw.randrange(len(content) + 1)])
    if how == 1:
        for _ in range(draw.randrange(1, 8)):
            content[draw.randrange(len(content))] = draw.randrange(256)
    elif how == 2:
        place = draw.randrange(len(content))
        content[place:place] = draw.randbytes(draw.randrange(20))
    else:
        start = draw.randrange(len(content))
        del content[start : start + draw.randrange(1, 100)]
    return bytes(content)


_MAKERS = (_form, _form, _json, _json, _pixels, _deep, _csv, _bytes, _text, _file, _file)
