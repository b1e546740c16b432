"""A model is loaded whole and as it was registered, or refused in words."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.errors import ModelError

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


def test_a_loaded_model_gives_the_probabilities_of_a_direct_forward(model_folder):
    classifier = model_folder.read()
    mean, std = (torch.tensor(model_folder.card[name]).view(3, 1, 1) for name in ("mean", "std"))
    with torch.inference_mode():
        logits = model_folder.network((torch.from_numpy(PIXELS).permute(0, 3, 1, 2) - mean) / std)
    np.testing.assert_allclose(classifier.probabilities(PIXELS), logits.softmax(1).numpy(), atol=1e-6)
    assert classifier.classes == ("airplane", "bird", "cat")
    assert classifier.card.accuracy == 0.75
    assert str(classifier.version) == "m, version 3 (champion)"


def test_loading_draws_no_random_number(model_folder):
    before = torch.get_rng_state()
    model_folder.read()
    assert torch.equal(torch.get_rng_state(), before)


def test_altered_weights_are_refused(model_folder):
    state = load_file(model_folder.weights)
    state["head.bias"] += 1
    save_file(state, model_folder.weights)
    with pytest.raises(ModelError, match="its weights were altered since they were registered") as caught:
        model_folder.read()
    assert str(model_folder.path) in str(caught.value), "what to remove"
    assert len(str(caught.value).splitlines()) == 2


def test_a_version_of_an_older_release_has_no_hash_and_is_loaded(model_folder):
    model_folder.write(weights_sha256=None)
    state = load_file(model_folder.weights)
    save_file({**state, "head.bias": state["head.bias"] + 1}, model_folder.weights)
    assert model_folder.read().probabilities(PIXELS).shape == (5, 3)


@pytest.mark.parametrize("has_hash", [True, False])
def test_weights_that_are_cut_off_or_gone_are_refused(model_folder, has_hash):
    if not has_hash:
        model_folder.write(weights_sha256=None)
    model_folder.weights.write_bytes(model_folder.weights.read_bytes()[:-10])
    with pytest.raises(ModelError, match="altered" if has_hash else "missing or damaged"):
        model_folder.read()
    model_folder.weights.unlink()
    with pytest.raises(ModelError, match="its weights are missing or damaged"):
        model_folder.read()


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": {"name": "vanilla", "hidden": 4, "layers": 1, "gates": 5}},
        {"architecture": {"name": "vanilla", "hidden": 8, "layers": 1}},
        {"architecture": {"name": "huge"}},
        {"classes": ["airplane", "bird"]},
    ],
    ids=["an unknown field", "another width", "an unknown model", "other classes"],
)
def test_a_model_of_another_release_is_refused(model_folder, change):
    model_folder.write(**change)
    with pytest.raises(ModelError, match="was registered by another release of seqpipe") as caught:
        model_folder.read()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "null", '{"architecture": null}'])
def test_a_damaged_card_is_refused(model_folder, content):
    (model_folder.path / "artifacts" / "model.json").write_text(content)
    with pytest.raises(ModelError, match="its model card is missing or damaged"):
        model_folder.read()


@pytest.mark.parametrize("content", [None, "", "flavors: {sklearn: {}}", "a: [", "[1]"])
def test_a_model_that_seqpipe_has_not_registered_is_refused(model_folder, content):
    described = model_folder.path / "MLmodel"
    described.unlink() if content is None else described.write_text(content)
    with pytest.raises(ModelError, match="was not registered by seqpipe"):
        model_folder.read()
