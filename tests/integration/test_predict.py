"""`seqpipe predict` and `pipeline.load_model` on a model that the real commands have registered."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from product import SEQPIPE, Place, Terminal
from tracked_workspace import closed_port

from pipeline.evaluation.predictions import load_predictions
from pipeline.inference.classifier import BATCH

NAME = "synthetic-airplane-automobile-bird-cat"


@pytest.fixture(scope="module")
def split(finished, tmp_path_factory):
    """The test split as a folder of PNGs, and the evaluation's predictions of it."""
    [prepared] = (finished.stages / "prepare").glob("*/test_images.npy")
    [predictions] = (finished.root / ".seqpipe" / "predictions").glob("*/predictions.npz")
    folder = tmp_path_factory.mktemp("split")
    for number, pixels in enumerate(np.load(prepared)):
        Image.fromarray(pixels).save(folder / f"{number:05}.png")
    return folder, load_predictions(predictions)


@pytest.fixture
def copy(finished, tmp_path):
    """The finished workspace, to be spoilt."""
    shutil.copytree(finished.root, tmp_path / "copy", symlinks=True)
    place = Place(tmp_path / "copy", mlflow=True)
    yield place
    place.end()


def test_the_test_images_as_files_have_the_probabilities_of_the_evaluation(finished, split, tmp_path):
    folder, evaluated = split
    done = finished.run("predict", str(folder), "--csv", str(tmp_path / "x.csv"), "--top", "1")
    assert done.code == 0, done.err
    with (tmp_path / "x.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(evaluated.ids) == len(done.out.splitlines()) - 1
    found = [[float(row[f"probability_{name}"]) for name in evaluated.class_names] for row in rows]
    np.testing.assert_allclose(found, evaluated.probabilities, atol=1e-6)
    assert f"vanilla of {NAME}, version 1 (challenger, champion), test accuracy" in done.err


@pytest.mark.parametrize("model", [f"{NAME}@champion", f"{NAME}/1", "@challenger", f"models:/{NAME}/1"])
def test_a_version_is_chosen_by_alias_or_number(finished, split, model):
    done = finished.run("predict", str(split[0] / "00000.png"), "--json", "--model", model)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert (found["model"]["name"], found["model"]["version"]) == (NAME, "1")
    assert found["model"]["aliases"] == ["challenger", "champion"]
    assert found["classified"] == len(found["images"]) == 1


@pytest.mark.parametrize(
    ("model", "code", "says"),
    [
        ("nothing@champion", 2, "no model 'nothing' is registered"),
        (f"{NAME}/7", 2, "has no version 7; versions: 1"),
        ("@best", 2, "has no best; aliases: challenger, champion; versions: 1"),
        ("a/b/c", 2, "is no version of a registered model"),
    ],
)
def test_a_version_that_is_not_there_is_told_in_one_line(finished, split, model, code, says):
    done = finished.run("predict", str(split[0] / "00000.png"), "--model", model)
    assert done.code == code
    assert len(done.errors) == 1
    assert says in done.errors[0]
    assert done.out == ""


def test_before_anything_is_registered_it_says_what_to_do(tmp_path):
    place = Place(tmp_path, mlflow=True)
    Image.new("RGB", (32, 32)).save(tmp_path / "x.png")
    done = place.run("predict", "x.png")
    assert done.code == 1
    assert "no model is registered here yet" in done.errors[0]
    assert not (tmp_path / "mlflow.db").exists()


def test_altered_weights_are_refused(copy, split):
    [weights] = (copy.root / "mlartifacts").rglob("*.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    done = copy.run("predict", str(split[0] / "00000.png"))
    assert done.code == 1
    assert "its weights were altered since they were registered" in done.errors[0]
    assert len(done.errors) == 2
    shutil.rmtree(weights.parent.parent)
    done = copy.run("predict", str(split[0] / "00000.png"))
    assert done.code == 1
    assert "are gone from" in done.errors[0]


def test_a_folder_of_all_sorts_is_classified_as_far_as_it_can_be(finished, tmp_path):
    folder = tmp_path / os.fsdecode(b"\xffmixed")
    folder.mkdir()
    image = Image.effect_noise((300, 200), 60).convert("RGB")
    for suffix in ("png", "jpg", "webp", "bmp", "gif"):
        image.save(folder / f"good.{suffix}")
    whole = (folder / "good.jpg").read_bytes()
    (folder / "half.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("text")
    (folder / "link.png").symlink_to("nowhere")
    os.mkfifo(folder / "fifo.png")
    done = finished.run("predict", os.fsencode(folder), "--json", "--copy-to", str(tmp_path / "sorted"))
    assert done.code == 1
    assert "5 of 10 could not be read" in done.errors[0]
    found = {Path(image["path"]).name: image.get("error") for image in json.loads(done.out)["images"]}
    assert {name for name, error in found.items() if error is None} == {
        f"good.{suffix}" for suffix in ("png", "jpg", "webp", "bmp", "gif")
    }
    assert found["link.png"] == "a link that leads nowhere"
    assert found["half.jpg"].startswith("damaged: ")
    assert len([path for path in (tmp_path / "sorted").rglob("*") if path.is_file()]) == 5


def test_a_local_registry_is_used_without_mlflow(finished, split):
    script = (
        "import sys\n"
        "from pipeline.cli.app import run_words\n"
        "code = run_words(False)\n"
        "print(code, {'mlflow', 'ray', 'pandas', 'matplotlib'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "predict", str(split[0])],
        cwd=finished.root, env=finished.environ, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr.splitlines()[-1] == "0 set()"


def test_ctrl_c_ends_it_after_a_batch_with_whole_files(finished, split, tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(20_000):
        (folder / f"{number:05}.png").symlink_to(split[0] / "00000.png")
    process = finished.start("predict", str(folder), "--csv", str(tmp_path / "x.csv"))
    process.stdout.readline()  # the head of the table
    process.stdout.readline()  # the first image
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "of 20000 images; what was done is written" in err
    assert BATCH <= len((tmp_path / "x.csv").read_text().splitlines()) - 1 < 20_000


def test_load_model_gives_a_typed_classifier(finished, split):
    folder, evaluated = split
    script = (
        "import sys, pipeline; from pathlib import Path\n"
        "assert not {'torch', 'numpy', 'mlflow'} & set(sys.modules)\n"
        f"model = pipeline.load_model('{NAME}@champion')\n"
        "print([model.predict([name])[0].probabilities for name in sorted(Path(sys.argv[1]).iterdir())[:3]])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)],
        cwd=finished.root, env=finished.environ, capture_output=True, text=True, check=True,
    )  # fmt: skip
    np.testing.assert_allclose(eval(done.stdout), evaluated.probabilities[:3], atol=1e-6)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("predict --model synth", [f"{NAME}@challenger", f"{NAME}@champion"]),
        ("serve --model synth", [f"{NAME}@challenger", f"{NAME}@champion"]),
        ("models export ch", ["champion", "challenger"]),
        ("serve --model champ", ["champion"]),
        ("models promote synth", [f"{NAME}@challenger", f"{NAME}@champion"]),
        ("models gate cha", ["champion", "challenger"]),
        ("models history syn", [NAME]),
        ("models export --format o", ["onnx"]),
        ("models draw --model s", ["small"]),
    ],
)
def test_a_shell_completes_versions_models_and_formats(finished, typed, offered):
    environ = {
        **finished.environ, "_SEQPIPE_COMPLETE": "complete_bash",
        "COMP_WORDS": f"seqpipe {typed}", "COMP_CWORD": str(len(typed.split())),
    }  # fmt: skip
    done = subprocess.run([SEQPIPE], cwd=finished.root, env=environ, capture_output=True, text=True, check=False)
    assert done.stdout.split() == offered


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        (f"serve --model {NAME}@cham", f"{NAME}@champion"),
        (f"models promote {NAME}@chal", f"{NAME}@challenger"),
        (f"serve --model {NAME[:-3]}", f"{NAME}@cha"),
        ("models gate chal", "challenger"),
    ],
)
def test_bash_which_cuts_words_at_an_at_completes_them(finished, tmp_path, monkeypatch, typed, completed):
    more = {
        "PATH": f"{Path(SEQPIPE).parent}{os.pathsep}{os.environ['PATH']}", "ASKED": str(tmp_path / "asked"),
        "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1",
    }  # fmt: skip
    for name, value in more.items():
        monkeypatch.setitem(finished.environ, name, value)
    shell = Terminal(finished, shutil.which("bash"), "--norc", "--noprofile", "-i")
    shell.type(b'eval "$(seqpipe --show-completion bash)"\n')
    shell.type(b'seqpipe() { printf "%s\\n" "$@" >"$ASKED"; }\n')  # completion still asks the program
    shell.type(f"seqpipe {typed}\t\nexit\n".encode())
    shell.wait()
    shell.close()
    assert (tmp_path / "asked").read_text().split()[-1] == completed


def test_help_has_an_example(place):
    done = place.run("predict", "--help")
    assert done.code == 0
    assert "seqpipe predict photos/" in done.out


def test_a_model_is_fetched_from_a_server(finished, split, tmp_path):
    """Where the registry is a server's, its files come through it, and leave nothing behind."""
    port = closed_port()
    ui = finished.start("ui", "--port", str(port))
    try:
        assert f"http://127.0.0.1:{port}" in ui.stdout.readline()
        place = Place(tmp_path / "elsewhere", mlflow=True, MLFLOW_TRACKING_URI=f"http://127.0.0.1:{port}")
        place.set(TMPDIR=str(tmp_path))
        done = place.run("predict", str(split[0] / "00000.png"), "--json")
        assert done.code == 0, done.err
        best = json.loads(done.out)["images"][0]["best"]
        assert sum(one["probability"] for one in best) == pytest.approx(1, abs=0.5)
        assert not list(tmp_path.glob("seqpipe-model-*"))
        done = place.run("predict", str(split[0] / "00000.png"), "--model", "@best")
        assert done.code == 2, done.err
    finally:
        ui.send_signal(signal.SIGINT)
        ui.communicate(timeout=30)


def test_the_champion_is_exported_and_told_with_what_was_measured(finished, tmp_path):
    done = finished.run("models", "export", "--int8", "--json", "--out", str(tmp_path / "out"))
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert 0 < found["checks"]["model.onnx"]["largest_difference"] < 1e-5
    assert found["int8"]["images"] == found["checks"]["model.onnx"]["images"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "README.md", "load_onnx.py", "model-int8.onnx", "model.json", "model.onnx",
    }  # fmt: skip
    again = finished.run("models", "export", "--out", str(tmp_path / "out"))
    assert again.code == 2
    assert "is there already" in again.err


def test_altered_weights_and_lost_test_images_are_not_exported(copy, tmp_path):
    [images] = (copy.stages / "prepare").glob("*/test_images.npy")
    images.parent.rename(tmp_path / "elsewhere")
    done = copy.run("models", "export", "--out", str(tmp_path / "out"))
    assert done.code == 1
    assert "an export cannot be checked" in done.err
    [weights] = (copy.root / "mlartifacts").rglob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    done = copy.run("models", "export", "--out", str(tmp_path / "out"))
    assert done.code == 1
    assert "its weights were altered" in done.err
    assert not (tmp_path / "out").exists()
