"""`seqpipe run train --on NODE`: a training on another node, which shares no disk, and what happens to either."""

import json
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

import pytest
from product import LONG, Place, tiny
from ray_nodes import nodes

from pipeline.cluster.workspace_cluster import ClusterFolder, HeadHere
from sequencer_models.cache_folder import cache_folder
from tuning.cluster.join_code import JoinCode

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs a mount namespace")
SHORT = tiny()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Nodes A, whose disk has the workspaces, and B, which does not see them; and the code to them."""
    code = JoinCode.new("00000")
    workspaces = tmp_path_factory.mktemp("workspaces")
    folder = tempfile.mkdtemp(prefix="r-", dir="/tmp")
    with nodes(Path(folder), code.token) as found:
        found.add("B", workspaces)
        yield found, code, workspaces
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def place(cluster, request):
    """A workspace from which the cluster runs."""
    found, code, workspaces = cluster
    made = Place(workspaces / request.node.name[:40])
    folder = ClusterFolder(made.root / ".seqpipe" / "cluster")
    host, port = found.address.split(":")
    with folder.held():
        folder.write(HeadHere(host, int(port), "A", os.getpid()), code)
        yield made
    made.end()


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """The weights of the short and the long training, made without a cluster."""
    made = {}
    for name, words in (("short", SHORT), ("long", LONG)):
        local = Place(tmp_path_factory.mktemp("here") / name)
        done = local.run("run", "train", *words, timeout_s=300)
        assert done.code == 0, done.err
        made[name] = weights(local)
    return made


def weights(place: Place) -> dict[str, bytes]:
    folder = place.whole("train")
    return {name: (folder / name).read_bytes() for name in ("best.safetensors", "last.safetensors")}


def partial(place: Place) -> Path:
    [folder] = (place.stages / "train").glob("*.partial")
    return folder


def at_step(place: Place, step: int) -> None:
    """Wait until a checkpoint of that step or a later one is home."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if any(int(path.stem[5:]) >= step for path in (place.stages / "train").glob("*.partial/step-*.json")):
            return
        time.sleep(0.05)
    raise AssertionError("no checkpoint came home")


def told(place: Place) -> dict:
    [record] = [json.loads(path.read_text()) for path in (place.root / ".seqpipe" / "runs").glob("*/run.json")]
    return record


def test_a_training_there_leaves_here_what_one_here_would(cluster, place, here):
    done = place.run("run", "train", *SHORT, "--on", "B", timeout_s=300)
    assert done.code == 0, done.err
    assert weights(place) == here["short"]
    assert "B: on cpu" in done.err
    assert "epoch   3: train loss" in done.err
    journal = [json.loads(line) for line in (place.whole("train") / "journal.jsonl").read_text().splitlines()]
    assert [line["step"] for line in journal if line["kind"] == "metrics"] == [1, 2, 3]
    assert {"seqpipe.node": "B"}.items() <= next(line for line in journal if line["kind"] == "tags")["values"].items()
    assert not list(cache_folder().glob("remote-*"))
    assert "nothing to do" in place.run("run", "train", *SHORT).out, "here either"


def test_ctrl_c_here_brings_the_checkpoint_home_and_the_training_goes_on_here(place, here):
    process = place.start("run", "train", *LONG, "--on", "B")
    at_step(place, 90)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=90)
    assert process.returncode == 130, err
    assert err.splitlines()[-1].startswith("seqpipe: interrupted (Ctrl-C); the same command resumes")
    assert max(int(path.stem[5:]) for path in partial(place).glob("step-*.json")) % 90, (
        "saved in the middle of an epoch"
    )
    done = place.run("run", "train", *LONG, timeout_s=300)
    assert done.code == 0, done.err
    assert weights(place) == here["long"]


def test_time_that_is_up_leaves_with_a_checkpoint_and_the_training_goes_on_there(place, here):
    done = place.run("run", "train", *LONG, "--on", "B", "--max-time", "25s")
    if done.code == 0:
        pytest.skip("this machine was done by then")
    assert done.code == 4, done.err
    done = place.run("run", "train", *LONG, "--on", "B", timeout_s=300)
    assert done.code == 0, done.err
    assert weights(place) == here["long"]


def test_a_name_that_no_node_has_is_refused_with_those_that_there_are(place):
    done = place.run("run", "train", *SHORT, "--on", "Bob")
    assert done.code == 6
    assert done.errors == ["seqpipe: the cluster has no node named Bob; its nodes: A, B"]


def test_a_cap_that_is_too_low_is_refused(place):
    done = place.run("run", "train", *SHORT, "--on", "B", "--max-memory-mb", "100")
    assert done.code == 5, done.err
    assert "too few on B" in done.errors[0]


def test_more_than_the_node_gives_is_refused(place):
    done = place.run("run", "train", *SHORT, "--on", "B", "--max-memory-mb", "5000")
    assert done.code == 6, done.err
    assert "B gives 900 MB" in done.errors[0]


def test_a_node_that_is_lost_ends_the_command_and_the_training_goes_on_here(cluster, place, here):
    process = place.start("run", "train", *LONG, "--on", "B")
    at_step(place, 90)
    began = time.monotonic()
    cluster[0].kill("B")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 6, err
    assert time.monotonic() - began < 10
    said = err[err.index("seqpipe: ") :].splitlines()
    assert said[0].startswith("seqpipe: B, or its process that did the work, was lost")
    assert len(said) == 2
    done = place.run("run", "train", *LONG, timeout_s=300)
    assert done.code == 0, done.err
    assert weights(place) == here["long"]
