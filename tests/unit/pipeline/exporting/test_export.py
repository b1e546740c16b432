import errno
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import ConfigError, ModelError, WorkspaceError
from pipeline.exporting import loaders, onnx_file, pt2_file
from pipeline.exporting.export import export
from pipeline.exporting.formats import ExportFormat
from pipeline.inference.model_card import ModelCard

ALL = tuple(ExportFormat)
WITHOUT_SEQPIPE = """
import runpy, sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("pipeline", "tuning"):
            raise ImportError(f"{name} is not installed")
sys.meta_path.insert(0, Nothing())
sys.path.insert(0, sys.argv[1])
sys.argv[:] = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
print(getattr(sys.modules.get("sequencer_models"), "__file__", ""), file=sys.stderr)
"""


def test_every_format_gives_the_same_probabilities(classifier, images, tmp_path):
    """Of one model; `tests/integration/test_exports.py` has the others, and their options."""
    done = export(classifier(), images, tmp_path / "out", ALL)
    assert {name: found.images for name, found in done.checks.items()} == {one.file: 60 for one in ALL}
    assert max(found.largest_difference for found in done.checks.values()) < 1e-5
    assert {found.other_classes for found in done.checks.values()} == {0}


@pytest.mark.parametrize("format", ALL)
def test_its_loader_runs_where_seqpipe_is_not(classifier, images, tmp_path, format):
    made = classifier(mirrored=True)
    export(made, images, tmp_path / "out", [format])
    Image.fromarray(images.pixels[7]).save(tmp_path / "seven.png")
    words = [str(tmp_path / "out"), str(tmp_path / "out" / f"load_{format.value}.py"), str(tmp_path / "seven.png")]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_SEQPIPE, *words], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    name, _, said = done.stdout.strip().partition(": ")
    assert name == words[-1]
    found = json.loads(said.replace("'", '"'))
    assert tuple(found) == made.classes
    np.testing.assert_allclose([*found.values()], made.probabilities(images.pixels[7:8])[0], atol=1e-6)
    if format is ExportFormat.safetensors:
        assert Path(done.stderr.strip()).is_relative_to(tmp_path), "the architecture is the one beside the weights"


@pytest.mark.parametrize("format", ALL)
def test_a_loader_has_ten_lines(classifier, images, tmp_path, format):
    export(classifier(), images, tmp_path / "out", [format])
    _, _, code = (tmp_path / "out" / f"load_{format.value}.py").read_text().partition('"""\n')
    assert "def classify" in code
    assert len([line for line in code.splitlines() if line.strip()]) <= loaders.LINES


@pytest.mark.parametrize("model", ["small", "vanilla"])
def test_8_bits_are_compared_with_the_whole_model_on_the_same_images(classifier, images, tmp_path, model):
    done = export(classifier(model, mirrored=True), images, tmp_path / "out", [ExportFormat.onnx], int8=True)
    assert (tmp_path / "out" / "model-int8.onnx").is_file()
    assert done.int8.comparison.counts.images == 60
    assert done.int8.latency.rounds >= 5
    assert any("exact McNemar" in line for line in done.in_words)
    content = json.loads(json.dumps(done.to_json()))
    assert content["int8"]["images"] == 60


def test_its_card_and_page_say_what_it_is(classifier, images, tmp_path):
    made = classifier("small", mirrored=True)
    export(made, images, tmp_path / "out", [ExportFormat.onnx])
    assert ModelCard.from_json(json.loads((tmp_path / "out" / "model.json").read_bytes())).mirrored
    page = (tmp_path / "out" / "README.md").read_text()
    assert "airplane, bird, cat" in page
    assert "75.00 % of the test images, each seen as it is and mirrored" in page
    assert "probabilities differ by" in page


def test_a_file_that_gives_other_probabilities_is_refused_and_nothing_is_left(
    classifier, images, tmp_path, monkeypatch
):
    made = classifier()
    monkeypatch.setattr(made, "probabilities", lambda pixels: np.full((len(pixels), 3), 1 / 3, np.float32) + 2e-4)
    with pytest.raises(ModelError, match=r"not exported: on 60 test images .* \(allowed: 1e-04\)"):
        export(made, images, tmp_path / "out", [ExportFormat.onnx])
    assert [*tmp_path.iterdir()] == []


def test_a_folder_that_has_something_in_it_is_not_touched_and_an_empty_one_is_taken(classifier, images, tmp_path):
    (tmp_path / "empty").mkdir()
    export(classifier(), images, tmp_path / "empty", [ExportFormat.onnx])
    with pytest.raises(ConfigError, match="is there already: remove it, or name another folder with --out"):
        export(classifier(), images, tmp_path / "empty", [ExportFormat.onnx])
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is there already"):
        export(classifier(), images, tmp_path / "file", [ExportFormat.onnx])


@pytest.mark.parametrize(
    ("module", "function", "format"),
    [(onnx_file, "write_onnx", ExportFormat.onnx), (onnx_file, "write_int8", ExportFormat.onnx),
     (pt2_file, "write_pt2", ExportFormat.pt2)],
)  # fmt: skip
def test_a_full_disk_is_said_and_nothing_is_left(classifier, images, tmp_path, monkeypatch, module, function, format):
    def full(*words: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, function, full)
    with pytest.raises(WorkspaceError, match=r"out: cannot be written: No space left on device; free some space"):
        export(classifier(), images, tmp_path / "out", [format], int8=format is ExportFormat.onnx)
    assert [*tmp_path.iterdir()] == []


def test_a_folder_that_cannot_be_made_is_said(classifier, images, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WorkspaceError, match="cannot be written: Not a directory"):
        export(classifier(), images, tmp_path / "file" / "out", [ExportFormat.onnx])
