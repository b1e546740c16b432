"""Pictures of models: everything is in them, they fit a page, and the same model gives the same bytes."""

import xml.etree.ElementTree as ET
from pathlib import Path

import matplotlib
import pytest
from PIL import Image

from pipeline.config.resolution import resolve
from pipeline.evaluation.model_picture import Portrait, _legend_of_shapes, draw_model, portrait_of, save_picture
from sequencer_models.layer_summary import LayerSummary

A4_INCHES = (8.27, 11.69)
CONFIG = resolve("small", sets=["model.dims=[16, 32]", "model.depths=[2, 1]"])


@pytest.fixture(scope="module")
def portrait() -> Portrait:
    return portrait_of(CONFIG, 2)


def texts(portrait: Portrait) -> list[str]:
    return [text.get_text() for axes in draw_model(portrait).axes for text in axes.texts]


def test_a_picture_names_every_layer_its_shape_its_parameters_and_its_shares(portrait):
    shown = texts(portrait)
    for layer in portrait.layers:
        assert layer.in_words in shown
        assert " x ".join(map(str, layer.output)) in shown
    whole = sum(layer.multiply_adds for layer in portrait.layers)
    block = next(layer for layer in portrait.layers if layer.name == "levels.0.blocks.0")
    assert f"{block.parameters:,}" in shown
    assert f"{100 * block.multiply_adds / whole:.1f} %" in shown
    assert f"{portrait.parameters:,}" in shown
    assert f"{2 * whole / 1e9:.3f} GFLOP an image" in shown
    assert shown[0] == "small, 4 classes"
    assert "Gives: for an image, rows x columns x channels; a convolution gives channels x rows x columns." in shown


@pytest.mark.parametrize(("layer", "is_told"), [((8, 8, 16), True), ((8, 32), False)])
def test_the_numbers_of_a_shape_are_named_where_there_are_three(layer, is_told):
    summary = LayerSummary("stem", "Conv2d", layer, 1, 1, 1)
    assert bool(_legend_of_shapes([summary])) == is_told


def test_the_shares_of_each_kind_add_up_to_the_whole(portrait):
    shares = [float(text.removesuffix(" %")) for text in texts(portrait) if text.endswith(" %")]
    assert sum(shares[0::2]) == pytest.approx(100, abs=0.6)
    assert sum(shares[1::2]) == pytest.approx(100, abs=0.6)


@pytest.mark.parametrize("model", ["small", "medium", "vanilla"])
def test_a_whole_model_fits_a_page(model):
    width, height = draw_model(portrait_of(resolve(model), 2)).get_size_inches()
    assert width < A4_INCHES[0]
    assert height < A4_INCHES[1]


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_no_text_leaves_the_picture_and_no_two_overlap(depth):
    figure = draw_model(portrait_of(CONFIG, depth))
    figure.draw_without_rendering()
    boxes = [text.get_window_extent().padded(-1) for axes in figure.axes for text in axes.texts if text.get_text()]
    assert all(figure.bbox.contains(box.x0, box.y0) and figure.bbox.contains(box.x1, box.y1) for box in boxes)
    overlapping = [
        (one, other)
        for n, one in enumerate(boxes)
        for other in boxes[:n]
        if one.padded(-1).overlaps(other.padded(-1))
    ]
    assert not overlapping


def test_svg_and_png_are_written_and_the_same_each_time(portrait, tmp_path):
    written = {}
    for attempt in (1, 2):
        for format in ("svg", "png"):
            path = tmp_path / f"{attempt}.{format}"
            save_picture(draw_model(portrait), path, format)
            written.setdefault(format, []).append(path.read_bytes())
    assert all(one == other for one, other in written.values())
    assert ET.fromstring(written["svg"][0]).tag.endswith("svg")
    with Image.open(tmp_path / "1.png") as image:
        assert image.size[0] > 1000


def test_a_matplotlibrc_changes_nothing(portrait, tmp_path):
    save_picture(draw_model(portrait), tmp_path / "a.png", "png")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        save_picture(draw_model(portrait), tmp_path / "b.png", "png")
    assert Path(tmp_path / "a.png").read_bytes() == Path(tmp_path / "b.png").read_bytes()


def test_a_portrait_says_what_its_figures_are(portrait):
    assert len(portrait.notes) == 3
    assert "LSTM; weights do not count" in portrait.notes[2]
    assert portrait.to_json()["layers"][0]["name"] == "stem.proj"
