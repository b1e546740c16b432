"""`--max-memory-mb` as a user meets it."""

import json
import re

import pytest
from product import Place, tiny

# wide enough for its activations to count: about 110 MB for a batch
WORDS = tiny("small", model__dims="[128,256]", model__depths="[2,2]", train__epochs=1, data__fraction=0.2)


@pytest.fixture
def place(tmp_path):
    place = Place(tmp_path / "workspace")
    yield place
    place.end()


def trained(place: Place) -> dict[str, object]:
    (folder,) = (place.root / ".seqpipe" / "stages" / "train").glob("*")
    return json.loads((folder / "numerics.json").read_bytes())


def test_a_cap_too_low_for_one_image_says_what_is_needed_and_that_is_enough(place):
    refused = place.run("run", "train", *WORDS, "--max-memory-mb", "100")
    assert refused.code == 5
    (first, second) = refused.errors
    needed = int(re.search(r"100 MB are too few: this training needs (\d+) MB", first)[1])
    assert "--max-memory-mb" in second
    assert "Traceback" not in refused.err
    done = place.run("run", "train", *WORDS, "--max-memory-mb", str(needed + 30), "--json")
    assert done.code == 0, done.err
    (model,) = json.loads(done.out)["models"]
    assert trained(place)["micro_batch_size"] < 128
    assert 100 < model["training"]["peak_memory_mb"] <= needed + 30


def test_a_training_that_passes_its_cap_leaves_with_what_it_did_saved(place):
    left = place.run("run", "train", *WORDS, "--set", "compute.micro_batch_size=32", "--max-memory-mb", "150")
    assert left.code == 5
    assert "and its cap is 150; what it did is saved" in left.errors[0]
    assert "compute.micro_batch_size=16" in left.errors[1]
    assert place.run("run", "train", *WORDS, "--set", "compute.micro_batch_size=32").code == 0


def test_recomputing_blocks_is_refused_for_a_model_without_any(place):
    refused = place.run("run", "train", *tiny("vanilla", compute__recompute="true"))
    assert refused.code == 2
    assert "compute.recompute is for small and medium" in refused.errors[0]
