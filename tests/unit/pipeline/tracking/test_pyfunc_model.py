import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mlflow.exceptions import MlflowException
from safetensors.torch import save_file

from pipeline.tracking.pyfunc_model import ImageClassifier
from sequencer_models import catalog

CARD = {
    "architecture": {"name": "vanilla", "hidden": 4, "layers": 1},
    "classes": ["airplane", "bird", "cat"],
    "mean": [125.0, 122.0, 113.0],
    "std": [51.0, 50.0, 52.0],
}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return catalog.build("vanilla", 3, hidden=4, layers=1)


@pytest.fixture(scope="module")
def loaded(network, tmp_path_factory):
    """Loads the model as MLflow does, with this card."""

    def load(card: dict[str, object]) -> ImageClassifier:
        folder = tmp_path_factory.mktemp("model")
        save_file(network.state_dict(), folder / "weights.safetensors")
        (folder / "model.json").write_text(json.dumps(card))
        model = ImageClassifier()
        artifacts = {"weights": str(folder / "weights.safetensors"), "card": str(folder / "model.json")}
        model.load_context(SimpleNamespace(artifacts=artifacts))
        return model

    return load


@pytest.fixture(scope="module")
def classifier(loaded):
    return loaded(CARD)


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def test_probabilities_are_those_of_a_direct_forward(network, classifier):
    pixels = images(300)  # more than one batch
    table = classifier.predict(None, pixels)
    normalised = (torch.from_numpy(pixels).permute(0, 3, 1, 2) - torch.tensor(CARD["mean"]).view(3, 1, 1)) / (
        torch.tensor(CARD["std"]).view(3, 1, 1)
    )
    with torch.inference_mode():
        expected = network.eval()(normalised.float()).softmax(dim=1).numpy()
    columns = [f"probability_{name}" for name in CARD["classes"]]
    assert list(table.columns) == ["class", "probability", *columns]
    np.testing.assert_allclose(table[columns].to_numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(table["probability"], expected.max(axis=1), atol=1e-5)
    assert list(table["class"]) == [CARD["classes"][k] for k in expected.argmax(axis=1)]


def test_mirrored_views_are_predicted_where_the_card_says_so(loaded, classifier):
    pixels = images(5)
    columns = [f"probability_{name}" for name in CARD["classes"]]
    plain, of_mirrors = (classifier.predict(None, each)[columns].to_numpy() for each in (pixels, pixels[:, :, ::-1]))
    mirrored = loaded({**CARD, "mirrored": True}).predict(None, pixels)[columns].to_numpy()
    np.testing.assert_allclose(mirrored, (plain + of_mirrors) / 2, atol=1e-6)
    assert not np.allclose(mirrored, plain, atol=1e-4)
    assert loaded({**CARD, "mirrored": False}).predict(None, pixels)[columns].to_numpy().tolist() == plain.tolist()


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32", "float64"])
def test_whole_numbers_of_any_type_are_the_same_pixels(classifier, dtype):
    pixels = images(2)
    assert classifier.predict(None, pixels.astype(dtype)).equals(classifier.predict(None, pixels))


def test_no_images_give_no_rows(classifier):
    table = classifier.predict(None, images(0))
    assert len(table) == 0
    assert list(table.columns)[:2] == ["class", "probability"]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (images(1)[0], "got shape (32, 32, 3)"),
        (images(2).transpose(0, 3, 1, 2), "got shape (2, 3, 32, 32)"),
        (images(2) / 255, "fractions"),
        (images(2).astype(int) - 200, "outside 0..255"),
        (images(2).astype(int) + 200, "outside 0..255"),
        (np.full((1, 32, 32, 3), np.nan), "outside 0..255"),
        (np.full((1, 32, 32, 3), "x"), "type <U1"),
    ],
)
def test_anything_else_is_refused_in_one_line(classifier, wrong, says):
    with pytest.raises(MlflowException) as caught:
        classifier.predict(None, wrong)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    assert says in caught.value.message
    assert "\n" not in caught.value.message
