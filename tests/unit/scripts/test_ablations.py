"""The ablations of docs/results.md: what they compare, and how it is shown."""

import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from pipeline.config.keys import as_words
from pipeline.config.resolution import resolve
from pipeline.training.models import build_model
from pipeline.training.optimizer import Optimizer
from sequencer_models.flops import training_flops

SCRIPTS = Path(__file__).parents[3] / "scripts"
sys.path.insert(0, str(SCRIPTS))
import ablations  # noqa: E402 - where the script finds it, too
import results  # noqa: E402

ALL = [pytest.param(one, id=one.name) for one in ablations.ABLATIONS]


def result(variant, seed, accuracy, created="2026-01-01"):
    config = {**variant.config.model_dump(mode="json"), "seed": seed}
    return results.Result(
        run=f"run-{seed}", created=created, config=config, accuracy=accuracy, accuracy_low=accuracy - 0.01,
        accuracy_high=accuracy + 0.02, test_images=4000, validation_accuracy=accuracy, pflop=0.07, trained_s=60.0,
        images_per_s=70.0, peak_memory_mb=1000.0, precision="fp32", threads=1, device="cpu", processor="EPYC",
        commit=None,
    )  # fmt: skip


@pytest.fixture
def page(tmp_path, monkeypatch):
    """The page with nothing but the places of the ablations."""
    page = tmp_path / "results.md"
    page.write_text("".join(f"<!-- ablation: {one.name} -->\n{results.END}" for one in ablations.ABLATIONS))
    monkeypatch.setattr(ablations, "PAGE", page)
    monkeypatch.setattr(ablations, "PICTURES", tmp_path)
    return page


@pytest.mark.parametrize("ablation", ALL)
def test_variants_differ_and_have_about_the_same_arithmetic(ablation):
    configs = [variant.config for variant in ablation.variants]
    assert all(config not in configs[:place] for place, config in enumerate(configs))
    by_model = {}
    for config in configs:
        model = build_model(config, 4)
        of_image = training_flops(model, torch.zeros(1, 3, 32, 32))
        of_image += Optimizer(model, config.train).flops / config.train.batch_size
        by_model.setdefault(config.model.name, []).append(config.train.epochs * of_image)
    for flops in by_model.values():
        assert max(flops) < 1.15 * min(flops)


@pytest.mark.parametrize("ablation", ALL)
def test_the_command_trains_what_is_looked_for_afterwards(ablation):
    for variant in ablation.variants:
        sets = as_words(variant.settings)
        assert resolve(variant.model, variant.path, sets) == variant.config
        words = variant.words(1)
        assert [word for flag, word in pairwise(words) if flag == "--set"] == sets
        assert ("--config" in words) == (variant.file is not None)
        assert words[words.index("--seed") + 1] == "1"


def test_what_several_ablations_compare_with_is_trained_once(monkeypatch, tmp_path):
    started = []

    class Ended:
        returncode = 0

    monkeypatch.setattr(ablations.subprocess, "run", lambda words, **_: started.append(words[1:]) or Ended)
    ablations.train_all(tmp_path, ["--max-time", "1h"])
    assert len({tuple(words) for words in started}) == len(started)
    assert all(words[-2:] == ["--max-time", "1h"] for words in started)
    seeds = [words[words.index("--seed") + 1] for words in started]
    assert seeds == sorted(seeds), "every variant has a first seed before any has a second"
    assert sum("--config" in words for words in started) == len(list((SCRIPTS.parent / "configs").glob("notebook-*")))


def test_a_failure_ends_it_with_its_exit_code(monkeypatch, tmp_path):
    class Failed:
        returncode = 3

    monkeypatch.setattr(ablations.subprocess, "run", lambda words, **_: Failed)
    with pytest.raises(SystemExit) as ended:
        ablations.train_all(tmp_path, [])
    assert ended.value.code == 3


def test_the_page_has_a_table_and_a_picture_of_what_was_trained(page):
    start = next(one for one in ablations.ABLATIONS if one.name == "start")
    he, paper = start.variants
    ablations.show([result(he, 0, 0.80), result(he, 1, 0.82), result(paper, 0, 0.7), result(paper, 1, 0.74)])
    text = page.read_text()
    assert "| He, scaled by depth | 0, 1 | 80.00 and 82.00, mean **81.00** | 80.00 to 83.00 | 3 | 0.07 |" in text
    assert "| as in the paper | 0, 1 | 70.00 and 74.00, mean **72.00** | 71.00 to 74.00 | 3 | 0.07 |" in text
    assert "![How the weights start](pictures/ablation-start.png)" in text
    assert (page.parent / "ablation-start.png").read_bytes().startswith(b"\x89PNG")
    assert not (page.parent / "ablation-axes.png").exists()


def test_the_page_says_what_was_not_trained(page):
    axes = next(one for one in ablations.ABLATIONS if one.name == "axes")
    ablations.show([result(axes.variants[0], 0, 0.8)])
    assert "Not trained yet: rows alone; columns alone." in page.read_text()


def test_what_was_trained_is_compared_before_all_of_it_is(page):
    axes = next(one for one in ablations.ABLATIONS if one.name == "axes")
    both, _, columns = axes.variants
    ablations.show([result(both, 0, 0.8), result(columns, 0, 0.7)])
    _, _, text = page.read_text().partition("<!-- ablation: axes -->")
    text, _, _ = text.partition(results.END)
    assert "| rows and columns | 0 | 80.00 |" in text
    assert "| columns alone | 0 | 70.00 |" in text
    assert text.endswith("Not trained yet: rows alone.\n\n")
    assert (page.parent / "ablation-axes.png").exists()


def test_of_a_seed_that_was_trained_twice_the_newest_counts():
    variant = ablations.ABLATIONS[0].variants[0]
    kept = [result(variant, 0, 0.9, created="2026-02-01"), result(variant, 0, 0.8, created="2026-01-01")]
    assert [one.accuracy for one in ablations.trained(variant, kept)] == [0.9]


def test_a_seed_that_is_not_compared_does_not_count():
    variant = ablations.ABLATIONS[0].variants[0]
    assert ablations.trained(variant, [result(variant, 7, 0.9)]) == []
