"""`runs compare` in a workspace with two trainings and their predictions."""

import json

import pytest
from paired_predictions import predictions_of

from pipeline.cli import compare
from pipeline.errors import ConfigError, WorkspaceError
from pipeline.evaluation.predictions import save_predictions
from pipeline.stages.results import TrainedModel


@pytest.fixture
def keys(house, monkeypatch):
    """Of two trainings: the second is right on four images more."""
    found = []
    for seed, right in enumerate(([1] * 10 + [0] * 10, [1] * 14 + [0] * 6)):
        key = house.run(f"seed={seed}", through="train").results[TrainedModel].run_key
        folder = house.workspace.predictions / key
        folder.mkdir(parents=True)
        save_predictions(folder / "predictions.npz", predictions_of(right))
        found.append(key)
    manifest = json.loads((house.folder("prepare") / "manifest.json").read_bytes())
    manifest["result"]["sha256"] = {"test_images": "i0", "test_labels": "l0"}
    (house.folder("prepare") / "manifest.json").write_text(json.dumps(manifest))
    monkeypatch.chdir(house.workspace.root)
    return found


def test_it_shows_figures_settings_and_what_the_difference_is_worth(keys, capsys):
    compare.compare(keys)
    out = capsys.readouterr().out
    assert "2 classes, 20 test images" in out
    assert "only A is right on 0 images, only B on 4: p 0.125 (exact McNemar test, two-sided)" in out
    assert out.count("seed     0  1") == 1, "the settings that differ"


def test_as_json_it_is_one_document_and_the_page_is_named_on_stderr(keys, capsys, tmp_path):
    compare.compare(keys, html=tmp_path / "page.html", as_json=True)
    shown = capsys.readouterr()
    assert json.loads(shown.out)["against"][0]["paired"]["counts"]["only_second"] == 4
    assert shown.err == f"written: {tmp_path / 'page.html'}\n"
    assert "The test images are not in this workspace" in (tmp_path / "page.html").read_text()


def test_a_page_that_cannot_be_written_and_one_run_alone_are_refused(keys, tmp_path):
    with pytest.raises(WorkspaceError, match="cannot be written"):
        compare.compare(keys, html=tmp_path / "none" / "page.html")
    with pytest.raises(ConfigError, match="name two runs or more"):
        compare.compare(keys[:1])
