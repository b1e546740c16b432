"""A workspace that was moved or copied, or whose models were deleted in MLflow: real commands, the README's words."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from product import ONE_EPOCH, Place, settings, sha256

NAME = "synthetic-airplane-automobile-bird-cat"
README = (Path(__file__).parents[2] / "README.md").read_text()


@pytest.fixture
def copy(tmp_path, finished):
    """A copy of a finished workspace; commands in it use its own store."""
    shutil.copytree(finished.root, tmp_path / "cöpy 100%", symlinks=True)
    place = Place(tmp_path / "cöpy 100%", mlflow=True)
    yield place
    place.end()


def contents(root):
    return {str(path.relative_to(root)): sha256(path) for path in sorted(root.rglob("*")) if path.is_file()}


def readme_snippet(root):
    """What the README says to do with a registered model, done in a workspace; where the model was loaded from."""
    [snippet] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    snippet = re.sub(r"models:/[^@]*@", f"models:/{NAME}@", snippet)
    images = np.zeros((2, 32, 32, 3), np.uint8).tolist()
    code = (
        f"import numpy as np; images = np.array({images}, np.uint8)\n{snippet}\n"
        "import sequencer_models; print(sequencer_models.__file__)"
    )
    environ = {"PATH": "/usr/bin:/bin", "MLFLOW_DISABLE_TELEMETRY": "true"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def test_everything_works_where_a_workspace_was_moved_to(copy, tmp_path):
    assert copy.run("runs", "list").code == 0  # it is at home here now
    old, new = copy.root, tmp_path / "moved, ä"
    old.rename(new)
    copy.root = new
    done = copy.run("run", "all", *ONE_EPOCH)
    assert done.code == 0, done.err
    assert f"moved or copied from {old}" in done.err
    assert f"{NAME}, version 1 (challenger, champion)" in done.out
    assert not old.exists(), "nothing makes the old place again"
    assert readme_snippet(new).is_relative_to(new / "mlartifacts")
    again = copy.run("run", "all", *ONE_EPOCH)
    assert "nothing to do" in again.out
    assert again.err == ""


@pytest.fixture(scope="module")
def trained_in_copy(tmp_path_factory, finished):
    """A copy in which a model was trained that is judged on fewer images; what was said; the original as it was."""
    before = contents(finished.root)
    place = Place(tmp_path_factory.mktemp("copies") / "cöpy", mlflow=True)
    shutil.copytree(finished.root, place.root, symlinks=True, dirs_exist_ok=True)
    done = place.run("run", "all", *ONE_EPOCH, *settings(data__fraction=0.2))
    place.end()
    assert done.code == 3, done.err
    return place, done, before


def test_a_training_in_a_copy_leaves_the_original_byte_for_byte(trained_in_copy, finished):
    copy, _, before = trained_in_copy
    assert len(list((copy.root / "mlartifacts" / "models").iterdir())) == 2
    assert readme_snippet(copy.root).is_relative_to(copy.root / "mlartifacts")
    assert contents(finished.root) == before


def test_a_champion_that_was_judged_on_other_images_stays_and_the_reason_is_shown(trained_in_copy):
    _, done, _ = trained_in_copy
    assert f"{NAME}, version 2 (challenger)" in done.out
    assert "not compared: the champion, version 1, was judged on other test images" in done.out


def test_a_dry_run_leaves_the_addresses_alone(copy):
    before = contents(copy.root)
    assert copy.run("run", "all", *ONE_EPOCH, "--dry-run").code == 0
    assert contents(copy.root) == before


def test_a_version_that_was_deleted_in_mlflow_is_registered_again(copy):
    from mlflow import MlflowClient

    assert copy.run("run", "all", *ONE_EPOCH).code == 0
    client = MlflowClient(f"sqlite:///{copy.root}/mlflow.db")
    client.delete_model_version(NAME, "1")
    plan = copy.run("run", "all", *ONE_EPOCH, "--dry-run")
    assert "stale: version 1 is no longer in MLflow" in plan.out
    done = copy.run("run", "all", *ONE_EPOCH)
    assert done.code == 0, done.err
    assert f"{NAME}, version 2 (challenger, champion)" in done.out


def test_every_file_follows_the_umask(tmp_path):
    place = Place(tmp_path / "place", mlflow=True)
    assert place.run("run", "all", *ONE_EPOCH, umask=0o027).code == 0
    modes = {
        str(path.relative_to(place.root)): oct(path.stat().st_mode & 0o777)
        for path in place.root.rglob("*")
        if path.name != "mlflow.yaml"
    }
    right = {oct(0o640), oct(0o750)}
    assert {name: mode for name, mode in modes.items() if mode not in right} == {}


def test_a_run_that_was_deleted_in_mlflow_is_delivered_again_and_an_experiment_is_said(copy):
    from mlflow import MlflowClient

    assert copy.run("runs", "list").code == 0
    client = MlflowClient(f"sqlite:///{copy.root}/mlflow.db")
    [version] = client.search_model_versions(f"name = '{NAME}'")
    client.delete_run(version.run_id)
    done = copy.run("run", "all", *ONE_EPOCH)
    assert done.code == 0, done.err
    experiment = client.get_experiment_by_name("seqpipe")
    [run] = client.search_runs([experiment.experiment_id])
    assert run.info.run_id != version.run_id
    assert f"run {run.info.run_id}" in done.out
    assert f"{NAME}, version 1" in done.out

    client.delete_experiment(experiment.experiment_id)
    done = copy.run("run", "all", *ONE_EPOCH)
    assert done.code == 1
    assert len(done.errors) == 1
    assert "the experiment 'seqpipe' was deleted in MLflow; restore it there" in done.errors[0]
