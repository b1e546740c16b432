"""The gate and the comparison with the real commands: three trainings of a tiny model, one registry."""

import json
import shutil
import sqlite3

import pytest
from mlflow import MlflowClient
from product import Place, settings, tiny

SLOW = {
    "model__forget_bias": 0,
    "train__optimizer": "adamw",
    "train__learning_rate": 0.002,
    "train__augment__translate_pixels": 4,
    "train__augment__alternating_flip": "false",
}
"""How the model learns little in an epoch, and more in six."""
SEEDS = [[*tiny(train__epochs=1, **SLOW), "--seed", str(seed)] for seed in (0, 1)]
BETTER = tiny(train__epochs=6, **SLOW)
NAME = "synthetic-airplane-automobile-bird-cat"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The commands' exit codes are those of the three models: champion, refused, better."""
    place = Place(tmp_path_factory.mktemp("gate") / "a place", mlflow=True)
    place.done = [place.run("run", "all", *words) for words in (*SEEDS, BETTER)]
    yield place
    place.end()


def rows(place, query):
    connection = sqlite3.connect(place.root / "mlflow.db")
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def decisions(place):
    """The numbers of the decisions on the test images, as the registered model counts them."""
    found = rows(place, "SELECT value FROM registered_model_tags WHERE key LIKE 'gate_decisions_%'")
    return sorted(number for (number,) in found)


def aliases(place):
    return dict(rows(place, "SELECT alias, version FROM registered_model_aliases"))


def files_of(place, version):
    """The folder of a version's files."""
    query = "SELECT coalesce(nullif(storage_location, ''), source) FROM model_versions WHERE version = "
    [(source,)] = rows(place, f"{query}{version}")
    return source.removeprefix("file://")


def test_the_gate_promotes_what_is_first_and_better_and_refuses_the_rest_with_3(place):
    assert [done.code for done in place.done] == [0, 3, 0], [done.err for done in place.done]
    refused = place.done[1]
    assert refused.errors[0].startswith(f"seqpipe: the gate did not promote {NAME} version 2 (vanilla): registered")
    assert "better" in refused.out
    assert "not worse by 0.5 points" in refused.out
    assert aliases(place) == {"champion": 3, "challenger": 3}


def test_a_version_says_in_its_tags_and_its_description_what_the_gate_decided(place):
    tags = dict(rows(place, "SELECT key, value FROM model_version_tags WHERE version = 2"))
    assert (tags["gate_decision"], tags["gate_champion"]) == ("1", "1")
    assert tags["gate_rule_better"].startswith("no: ")
    assert float(tags["latency_ms"]) > 0
    [(description,)] = rows(place, "SELECT description FROM model_versions WHERE version = 2")
    assert "| not worse by 0.5 points | no |" in description
    assert decisions(place) == ["1", "2"]


def test_repeated_there_is_nothing_to_do_and_nothing_is_decided_again(place):
    done = place.run("run", "all", *SEEDS[1])
    assert (done.code, "nothing to do" in done.out) == (0, True), done.err
    assert decisions(place) == ["1", "2"]


def test_a_dry_run_of_the_gate_changes_nothing(place):
    before = rows(place, "SELECT * FROM model_version_tags"), aliases(place)
    done = place.run("models", "gate", f"{NAME}/2", "--dry-run", "--json")
    assert done.code == 3
    content = json.loads(done.out)
    assert (content["dry_run"], content["decision"]["number"], content["decision"]["promotes"]) == (True, 3, False)
    assert (rows(place, "SELECT * FROM model_version_tags"), aliases(place)) == before
    assert place.run("models", "gate", "champion").code == 0, "about itself there is nothing to decide"


def test_runs_are_compared_by_key_by_alias_and_as_groups(place, tmp_path):
    done = place.run("runs", "compare", f"{NAME}/2", "champion", "--json", "--html", str(tmp_path / "page.html"))
    assert done.code == 0, done.err
    content = json.loads(done.out)
    paired = content["against"][0]["paired"]
    assert paired["counts"]["images"] == content["images"] > 0
    assert paired["accuracy"]["low"] <= paired["accuracy"]["estimate"] <= paired["accuracy"]["high"]
    assert {"train.epochs", "seed"} <= {one["key"] for one in content["against"][0]["settings"]}
    assert "data:image/png;base64," in (tmp_path / "page.html").read_text()
    group = content["sides"][0]["keys"][0]
    done = place.run("runs", "compare", f"{group}:seeds", "champion")
    assert done.code == 0, done.err
    assert "a group of one run does not show what its seed does" in done.out


def test_what_was_judged_on_other_images_is_refused_with_the_reason(place, tmp_path):
    copy = Place(tmp_path / "copy", mlflow=True)
    shutil.copytree(place.root, copy.root, dirs_exist_ok=True)
    done = copy.run("run", "all", *tiny(train__epochs=1, **SLOW), *settings(data__fraction=0.2))
    assert done.code == 3
    assert "not compared: the champion, version 3, was judged on other test images" in done.out
    done = copy.run("runs", "compare", "challenger", "champion")
    assert (done.code, len(done.errors)) == (2, 1)
    assert "they predicted other test images" in done.errors[0]
    copy.end()


def test_a_champion_whose_predictions_are_lost_stays(place, tmp_path):
    copy = Place(tmp_path / "copy", mlflow=True)
    shutil.copytree(place.root, copy.root, dirs_exist_ok=True)
    assert copy.run("runs", "list").code == 0  # it is at home here now
    for path in copy.root.rglob("predictions.npz"):
        path.unlink()
    done = copy.run("models", "gate", f"{NAME}/2", "--dry-run")
    assert done.code == 3
    assert "its predictions of the test images are gone or damaged" in done.out
    copy.end()


def test_a_rollback_goes_back_without_mlflow_and_says_what_files_are_gone(place, tmp_path):
    copy = Place(tmp_path / "copy", mlflow=True)
    shutil.copytree(place.root, copy.root, dirs_exist_ok=True)
    assert copy.run("runs", "list").code == 0  # it is at home here now
    copy.set(PYTHONPROFILEIMPORTTIME="1")
    done = copy.run("models", "rollback", "--why", "zu früh: 早すぎ")
    copy.set(PYTHONPROFILEIMPORTTIME=None)
    assert done.code == 0, done.err
    assert "pipeline.tracking.champion_store" in done.err
    assert not any(line.rpartition("|")[2].strip() in ("mlflow", "torch") for line in done.err.splitlines())
    assert aliases(copy)["champion"] == 1
    assert "zu früh: 早すぎ" in copy.run("models", "history").out
    assert copy.run("models", "promote", "3").code == 0
    shutil.rmtree(files_of(copy, 1))
    done = copy.run("models", "rollback")
    assert (done.code, aliases(copy)["champion"]) == (1, 3)
    assert "version 1 was champion before, but its files are gone" in done.errors[0]
    copy.end()


def test_the_present_champion_stays_champion_and_a_long_reason_is_refused(place):
    done = place.run("models", "promote", "champion")
    assert (done.code, done.out) == (0, f"{NAME}: version 3 is champion already\n")
    done = place.run("models", "promote", "2", "--why", "x" * 1001)
    assert done.code == 2
    assert "at most 1000 are kept" in done.err
    assert aliases(place)["champion"] == 3


def test_seeds_that_the_gate_refuses_are_told_and_no_failure(place, tmp_path):
    copy = Place(tmp_path / "copy", mlflow=True)
    shutil.copytree(place.root, copy.root, dirs_exist_ok=True)
    words = [*tiny(train__epochs=1, **SLOW), *settings(registry__gate__least_accuracy=0.999)]
    done = copy.run("run", "all", *words, "--seeds", "0-1")
    assert done.code == 0, done.err
    assert aliases(copy)["champion"] == 3
    copy.end()


@pytest.mark.parametrize("name", ["a/b", "a/b/3", "a:b", "../x@champion"])
@pytest.mark.parametrize("command", ["promote", "gate", "show", "rollback", "history"])
def test_a_name_that_no_model_can_have_is_refused_in_one_line(place, command, name):
    done = place.run("models", command, name)
    assert (done.code, len(done.errors)) == (2, 1), done.err


def test_a_version_without_files_can_be_looked_at_and_neither_promoted_nor_judged(place, tmp_path):
    copy = Place(tmp_path / "copy", mlflow=True)
    shutil.copytree(place.root, copy.root, dirs_exist_ok=True)
    assert copy.run("models", "history").code == 0  # it is at home here now
    shutil.rmtree(files_of(copy, 2))
    for words in (["promote", "2"], ["gate", "2"], ["gate", "2", "--dry-run"]):
        done = copy.run("models", *words)
        assert (done.code, len(done.errors)) == (1, 1), done.err
        assert f"the files of {NAME}, version 2 are gone from " in done.errors[0]
    done = copy.run("models", "show", "2")
    assert (done.code, "gone from " in done.out) == (0, True), done.err
    assert done.out.splitlines()[0].split() == ["registered", "model", NAME]
    assert aliases(copy)["champion"] == 3
    assert decisions(copy) == decisions(place)
    copy.end()


def test_a_champion_that_was_deleted_by_hand_is_noticed_and_rolled_back_from(place, tmp_path):
    copy = Place(tmp_path / "copy", mlflow=True)
    shutil.copytree(place.root, copy.root, dirs_exist_ok=True)
    MlflowClient(f"sqlite:///{copy.root / 'mlflow.db'}").delete_model_version(NAME, "3")
    for words in (["show", "champion"], ["promote", "3"], ["gate", "challenger", "--dry-run"]):
        done = copy.run("models", *words)
        assert (done.code, len(done.errors)) == (2, 1), done.err
        assert f"{NAME} has no " in done.errors[0]
    done = copy.run("models", "rollback", "--json")
    assert (done.code, json.loads(done.out)["version"]) == (0, "1"), done.err
    changes = json.loads(copy.run("models", "history", "--json").out)["changes"]
    assert [(change["version"], change["kind"]) for change in changes[-3:]] == [
        ("3", "registered"), (None, "by hand"), ("1", "rolled back"),
    ]  # fmt: skip
    done = copy.run("run", "register", *BETTER, "--json")
    assert done.code == 0, done.err
    assert aliases(copy) == {"champion": 4, "challenger": 4}
    copy.end()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["runs", "compare", "one"], "name two runs or more"),
        (["runs", "compare", "one", "two"], "no training here is called 'one'"),
        (["models", "gate", f"{NAME}/9"], f"{NAME} has no version 9; versions: 1, 2, 3"),
        (["models", "gate", "--set", "registry.gate.confidence=2"], "registry.gate.confidence"),
    ],
)
def test_bad_words_are_refused_in_one_line(place, words, says):
    done = place.run(*words)
    assert (done.code, len(done.errors)) == (2, 1), done.err
    assert says in done.errors[0]
