"""Whichever way images are sent, they are the same pixels; what cannot be read is refused in one sentence."""

import base64
import io
import json
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from served import png

from pipeline.serving.bodies import read_images
from pipeline.serving.bounds import Bounds
from pipeline.serving.refusal import Refusal

BOUNDS = Bounds()
PIXELS = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
FLAT = PIXELS.reshape(2, -1).tolist()
JSON = "application/json"
FORM = "multipart/form-data; boundary=b"


def file_of(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


FILES = [file_of(one) for one in PIXELS]
TEXTS = [base64.b64encode(file).decode() for file in FILES]


def form(*files):
    parts = [
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\nContent-Type: image/png\r\n\r\n%s\r\n'
        % (name.encode(), content)
        for name, content in files
    ]
    return b"".join(parts) + b"--b--\r\n"


def read(content, kind=JSON, **bounds):
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return read_images(body, kind, replace(BOUNDS, **bounds))


CSV = "\n".join(",".join(map(str, row)) for row in [range(3072), *FLAT]).encode()


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (form(("a.png", FILES[0]), ("b.png", FILES[1])), FORM),
        (form(("a.png", FILES[0]), ("b.png", FILES[1])), 'Multipart/Form-Data; boundary="b"'),
        ({"images": TEXTS}, JSON),
        ({"images": [f"data:image/png;base64,{text}" for text in TEXTS]}, "application/json; charset=utf-8"),
        ({"inputs": PIXELS.tolist()}, JSON),
        ({"inputs": PIXELS.astype(float).tolist(), "params": {"a": 1}}, JSON),
        ({"instances": PIXELS.tolist()}, JSON),
        ({"instances": [{"image": one.tolist()} for one in PIXELS]}, JSON),
        ({"instances": TEXTS}, JSON),
        ({"dataframe_split": {"columns": list(range(3072)), "data": FLAT}}, JSON),
        ({"dataframe_split": {"columns": ["image"], "data": [[one.tolist()] for one in PIXELS]}}, JSON),
        ({"dataframe_split": {"columns": ["image"], "data": [[text] for text in TEXTS]}}, JSON),
        ({"dataframe_records": [{"image": text} for text in TEXTS]}, JSON),
        ({"dataframe_records": [{str(k): value for k, value in enumerate(row)} for row in FLAT]}, JSON),
        (CSV, "text/csv"),
        ("\ufeffimage\n" .encode() + "\n".join(TEXTS).encode() + b"\n", "text/csv; charset=utf-8"),
    ],
)  # fmt: skip
def test_whichever_way_they_are_sent_the_pixels_are_the_same(body, kind):
    np.testing.assert_array_equal(read(body, kind).pixels, PIXELS)


def test_one_image_can_be_the_body_or_a_text():
    for found in (read(FILES[0], "image/png"), read(FILES[0], "application/octet-stream"), read({"image": TEXTS[0]})):
        np.testing.assert_array_equal(found.pixels, PIXELS[:1])


def test_files_keep_their_names_and_fields_beside_them_are_left_aside():
    field = b'--b\r\nContent-Disposition: form-data; name="note"\r\n\r\nhello\r\n'
    assert read(field + form(("Käse.png", FILES[0])), FORM).names == ["Käse.png"]


def too_many_pixels():
    head = struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )


@pytest.mark.parametrize(
    ("body", "kind", "status", "says"),
    [
        (b"", JSON, 400, "the body is empty"),
        (b"x", "", 415, "names no content type"),
        (b"x", "text/plain", 415, "'text/plain' is not read here: send multipart/form-data"),
        (b"x", "multipart/form-data", 400, "names no boundary"),
        (b"x", FORM, 400, "this is no multipart body"),
        (form(("a.png", FILES[0]))[:-30], FORM, 400, "ends before its last boundary"),
        (b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n--b--\r\n', FORM, 400, "no file in the form"),
        (form(("a.png", FILES[0]), ("b.txt", b"text")), FORM, 422, r"image 2 of 2 \(b.txt\): not a PNG, JPEG"),
        (form(("a.png", b"")), FORM, 422, r"the image \(a.png\): empty"),
        (FILES[0][:100], "image/png", 422, "the image: damaged"),
        (too_many_pixels(), "image/png", 413, "the image: too many pixels"),
        (png(size=(5000, 4000)), "image/png", 413, r"too many pixels: 5000 x 4000 \(at most 64 MB are decoded\)"),
        (b"{", JSON, 400, "the body is no JSON"),
        (b"\xff\xfe\xfa", JSON, 400, "the body is no JSON"),
        (b"[" * 500_000, JSON, 400, "nested too deeply"),
        (b'{"a":' * 100_000, JSON, 400, "nested too deeply"),
        (b"[" + b"1" * 5000 + b"]", JSON, 400, "the body is no JSON"),
        ([], JSON, 400, "must be an object with one of image, images, .*: found none"),
        ({"inputs": [], "instances": []}, JSON, 400, "found inputs and instances"),
        ({"images": []}, JSON, 400, "one or more base64 texts"),
        ({"images": "abc"}, JSON, 400, "one or more base64 texts"),
        ({"images": [None]}, JSON, 400, "image 1 must be a base64 text, not null"),
        ({"image": 3}, JSON, 400, "must be a base64 text, not a number"),
        ({"image": "?"}, JSON, 400, "image 1 is no base64"),
        ({"image": "é"}, JSON, 400, "image 1 is no base64"),
        ({"image": ""}, JSON, 422, "empty"),
        ({"inputs": []}, JSON, 400, "a list of images is needed"),
        ({"inputs": {"x": 1}}, JSON, 400, "a list of images is needed"),
        ({"inputs": PIXELS[0].tolist()}, JSON, 400, "pixels of shape 32 x 32 x 3: N x 32 x 32 x 3"),
        ({"inputs": [[1], [1, 2]]}, JSON, 400, "differ in shape"),
        ({"inputs": [True, None]}, JSON, 400, "pixels must be numbers"),
        ({"inputs": [10**40]}, JSON, 400, "pixels must be numbers"),
        ({"inputs": (PIXELS / 255).tolist()}, JSON, 400, "were they scaled"),
        ({"inputs": (PIXELS.astype(int) + 1).tolist()}, JSON, 400, "outside 0 to 255"),
        (b'{"inputs": %s}' % json.dumps([[[[np.nan] * 3] * 32] * 32]).encode(), JSON, 400, "outside 0"),
        ({"dataframe_split": {"data": [[1, 2]]}}, JSON, 400, "a row must be one image"),
        ({"dataframe_split": {"data": []}}, JSON, 400, "the table has no rows"),
        ({"dataframe_split": [1]}, JSON, 400, "dataframe_split must be"),
        ({"dataframe_records": {"a": 1}}, JSON, 400, "dataframe_records must be"),
        ({"dataframe_records": [{}]}, JSON, 400, "a row must be one image"),
        ({"dataframe_records": [{"a": TEXTS[0]}, {"a": 1}]}, JSON, 400, "pixels must be numbers"),
        (b"a,b\n", "text/csv", 400, "no rows below"),
        (b"a\n\xff", "text/csv", 400, "no CSV"),
        (b'a\n"x', "text/csv", 400, "no CSV"),
        (b"a\n1e400\n", "text/csv", 400, "pixels of shape"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_in_one_sentence(body, kind, status, says):
    with pytest.raises(Refusal, match=says) as refused:
        read(body, kind)
    assert refused.value.status == status
    assert len(refused.value.sentence) < 400
    assert "\n" not in refused.value.sentence


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (form(*[("a.png", FILES[0])] * 3), FORM),
        ({"images": TEXTS[:1] * 3}, JSON),
        ({"inputs": PIXELS[[0, 0, 0]].tolist()}, JSON),
        ({"dataframe_records": [{"image": TEXTS[0]}] * 3}, JSON),
        ("\n".join(["image", *TEXTS[:1] * 3]).encode(), "text/csv"),
    ],
)
def test_more_images_than_a_request_may_have_are_refused(body, kind):
    with pytest.raises(Refusal, match=r"3 images in one request: at most 2|more than 2 parts") as refused:
        read(body, kind, images=2)
    assert refused.value.status == 413


def test_a_document_with_more_values_than_any_images_have_is_not_even_parsed(monkeypatch):
    monkeypatch.setattr(json, "loads", lambda body: 1 / 0)
    with pytest.raises(Refusal, match="more values than 256 images have") as refused:
        read(b'{"inputs": [' + b"[],[]," * 1000 + b"1]}", values=500)
    assert refused.value.status == 413


def test_256_images_of_pixels_are_not_too_many_values():
    image = json.dumps(PIXELS[0].tolist()).encode()
    assert len(read(b'{"inputs": [' + b",".join([image] * 256) + b"]}").pixels) == 256
