"""The tables of docs/results.md, from manifests alone."""

import importlib.util
import json
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import pytest

from pipeline.config.keys import as_words, flatten
from pipeline.config.recipes import RECIPES, Recipe, Variant
from pipeline.config.resolution import resolve
from pipeline.config.schema import CIFAR10_CLASSES
from pipeline.stages import evaluate, prepare, train
from pipeline.workspace.durable_files import write_json
from pipeline.workspace.fingerprints import fingerprint
from pipeline.workspace.manifests import MANIFEST, Manifest
from pipeline.workspace.paths import Workspace

REPOSITORY = Path(__file__).parents[3]
PROCESSOR = "EPYC (AVX512)"


@pytest.fixture(scope="module")
def results():
    spec = importlib.util.spec_from_file_location("results", REPOSITORY / "scripts" / "results.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def made(workspace: Workspace, stage, config, inputs, result, created="2026-01-01T00:00:00Z") -> str:
    reads = stage.STAGE.reads(config, None)
    name = fingerprint(stage.NAME, stage.VERSION, reads, inputs)
    manifest = Manifest(stage.NAME, stage.VERSION, name, reads, inputs, result, created=created)
    folder = workspace.stage(stage.NAME) / name
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / MANIFEST, asdict(manifest))
    return name


def trained(workspace: Workspace, *sets: str, accuracy=0.9, processor=PROCESSOR, number=1, model="small", **flags):
    """What a `run evaluate` leaves of manifests."""
    config = resolve(model, sets=sets, flags=flags)
    data = made(workspace, prepare, config, {}, {})
    numerics = {"precision": "bf16", "threads": 2, "device": "cpu", "cpu": processor}
    training = made(
        workspace, train, config, {"prepare": data},
        {
            "model": model, "run_key": f"run-{config.seed}-{number}", "run_name": "n", "parameters": 7,
            "best_epoch": 3, "epochs": config.train.epochs, "validation_accuracy": accuracy + 0.01,
            "validation_loss": 0.2, "trained_s": 600.0, "images_per_s": 400.0, "peak_memory_mb": 1000.0 + config.seed,
            "numerics": numerics, "git_commit": "0123456789abcdef", "pflop": 0.26,
        },
        created=f"2026-01-0{number}T00:00:00Z",
    )  # fmt: skip
    figures = {"loss": 0.3, "accuracy_low": accuracy - 0.02, "accuracy_high": accuracy + 0.02}
    made(
        workspace, evaluate, config, {"train": training},
        {"images": 4000, "accuracy": accuracy, "macro_f1": 0.9, "ece": 0.1, **figures},
    )  # fmt: skip


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


def found(results, workspace):
    return list(results.results_in(workspace))


def rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_several_seeds_are_one_line_with_their_mean_and_its_interval(results, workspace):
    for seed, accuracy in enumerate((0.90, 0.91, 0.92)):
        trained(workspace, accuracy=accuracy, seed=seed)
    text = results.table(found(results, workspace))
    assert rows(text) == [
        [
            "default", "small", "airplane, automobile, bird, cat", "0, 1, 2",
            "**91.00** (88.52 to 93.48 over 3 seeds)", "92.00", "0.26", "10.0", "400", "1002 MB",
            "bf16 on cpu, 2 threads", PROCESSOR, "[1]",
        ]
    ]  # fmt: skip
    [note] = [line for line in text.splitlines() if line.startswith("- ")]
    assert note == (
        "- [1] `seqpipe run all --model small --recipe default --seeds 0,1,2`; runs `run-0-1`, `run-1-1`, `run-2-1`; "
        "commit 0123456789ab"
    )


def test_one_seed_has_the_interval_over_the_test_images(results, workspace):
    trained(workspace)
    [row] = rows(results.table(found(results, workspace)))
    assert row[4] == "**90.00** (88.00 to 92.00 over 4000 images)"


def test_a_training_is_of_the_recipe_whose_settings_it_has_however_they_were_given(results, workspace):
    by_hand = resolve("small", flags={"recipe": "best"})
    sets = as_words(
        {key: value for key, value in flatten(by_hand).items() if key.startswith(("model.", "train.", "evaluate."))}
    )
    trained(workspace, *sets)
    [one] = found(results, workspace)
    assert (one.recipe, one.changes, one.table) == ("best", [], "four")


def test_how_the_machine_computes_and_the_seed_are_no_change_of_a_recipe(results, workspace):
    trained(workspace, "compute.precision=bf16", seed=4, recipe="best")
    [one] = found(results, workspace)
    assert (one.recipe, one.changes) == ("best", [])


def test_a_kept_result_is_of_a_recipe_only_as_long_as_that_has_its_settings(results, workspace, monkeypatch):
    trained(workspace, recipe="best")
    [one] = found(results, workspace)
    kept = json.loads(json.dumps(asdict(one)))
    variants = {"four": Variant({"train.epochs": 77}), "all": Variant()}
    monkeypatch.setitem(RECIPES, "best", Recipe("for tests", {"small": variants}))
    again = results.Result(**kept)
    assert again.changes
    assert again.table == "others"


def test_settings_of_their_own_are_told_by_what_differs_from_the_nearest_recipe(results, workspace):
    trained(workspace, "train.batch_size=64", "data.classes=[cat,dog]", recipe="best")
    [one] = found(results, workspace)
    text = results.table([one])
    assert rows(text)[0][:3] == ["best, but train.batch_size=64", "small", "cat, dog"]
    assert "--recipe best --set 'data.classes=[cat,dog]' --set train.batch_size=64 --seeds 0`" in text


def test_the_command_trains_what_the_line_is_about(results, workspace):
    sets = ("train.epochs=5", "model.drop_path=0.2", "data.classes=[cat,dog]", "evaluate.calibration_bins=5")
    trained(workspace, *sets, model="medium", seed=3)
    words = results.command_of(found(results, workspace))
    given = {flag: [word for before, word in pairwise(words) if before == flag] for flag in words if flag[0] == "-"}
    [model], [recipe], [seed] = (given[flag] for flag in ("--model", "--recipe", "--seeds"))
    again = resolve(model, sets=given["--set"], flags={"recipe": recipe, "seed": int(seed)})
    asked = resolve("medium", sets=sets, flags={"seed": 3})
    for stage in (prepare, train, evaluate):
        assert stage.STAGE.reads(again, None) == stage.STAGE.reads(asked, None)


def test_four_classes_all_classes_and_others_have_a_table_each(results, workspace):
    trained(workspace)
    trained(workspace, "data.classes=all")
    trained(workspace, "data.classes=[cat,dog]")
    tables = {len(one.settings.data.class_names): one.table for one in found(results, workspace)}
    assert tables == {4: "four", len(CIFAR10_CLASSES): "all", 2: "others"}


def test_figures_of_two_kinds_of_machine_are_two_lines(results, tmp_path):
    merged = []
    for number, processor in enumerate((PROCESSOR, "Ryzen (AVX2)"), 1):
        place = Workspace(tmp_path / str(number))
        trained(place, processor=processor, number=number)
        merged += found(results, place)
    assert [row[-2] for row in rows(results.table(merged))] == [PROCESSOR, "Ryzen (AVX2)"]


def test_seeds_from_two_kinds_of_machine_are_averaged_below_the_table(results, tmp_path):
    merged = []
    for number, (processor, accuracy) in enumerate(((PROCESSOR, 0.8), ("Ryzen (AVX2)", 0.9)), 1):
        place = Workspace(tmp_path / str(number))
        trained(place, processor=processor, number=number, seed=number, accuracy=accuracy)
        merged += found(results, place)
    [line] = [line for line in results.table(merged).splitlines() if "all of these machines" in line]
    assert "seeds 1, 2: **85.00** (" in line


def test_of_a_seed_that_was_trained_again_the_newest_counts(results, tmp_path):
    merged = []
    for number, accuracy in ((1, 0.8), (2, 0.9)):
        place = Workspace(tmp_path / str(number))
        trained(place, accuracy=accuracy, number=number)
        merged += found(results, place)
    [row] = rows(results.table(merged))
    assert row[4].startswith("**90.00**")


def test_made_up_images_parts_of_the_data_and_damaged_folders_are_left_out(results, workspace, capsys):
    trained(workspace, "data.source=synthetic")
    trained(workspace, "data.fraction=0.1")
    assert found(results, workspace) == []
    trained(workspace)
    [folder] = [one for one in workspace.stage("evaluate").iterdir() if "{" not in one.name][-1:]
    (folder.parent / "damaged").mkdir()
    (folder.parent / "damaged" / MANIFEST).write_text("{")
    assert len(found(results, workspace)) == 1
    assert "left out: " in capsys.readouterr().err


def test_what_was_kept_stays_when_its_workspace_is_gone(results, tmp_path, monkeypatch, capsys):
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "results.md").write_text((REPOSITORY / "docs" / "results.md").read_text())
    monkeypatch.setattr(results, "PAGE", docs / "results.md")
    monkeypatch.setattr(results, "KEPT", docs / "results.json")
    trained(Workspace(tmp_path / "a"))
    trained(Workspace(tmp_path / "b"), "data.classes=all", number=2)
    results.main([str(tmp_path / "a")])
    results.main([str(tmp_path / "b")])
    assert [one["run"] for one in json.loads((docs / "results.json").read_text())] == ["run-0-1", "run-0-2"]
    page = (docs / "results.md").read_text()
    four, ten = page.partition("<!-- results: four -->")[2], page.partition("<!-- results: all -->")[2]
    assert "run-0-1" in four.partition("<!-- end")[0]
    assert "run-0-2" in ten.partition("<!-- end")[0]
    results.main([str(tmp_path / "b")])
    assert (docs / "results.md").read_text() == page, "the same again changes nothing"
    assert "1 evaluated trainings" in capsys.readouterr().out


def test_a_page_without_the_markers_is_refused(results):
    with pytest.raises(SystemExit, match="which are not there"):
        results.with_tables("# Results\n", [])
