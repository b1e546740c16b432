import pytest

from pipeline.inference.model_card import ModelCard

CARD = {
    "architecture": {"name": "vanilla", "hidden": 4, "layers": 1},
    "classes": ["airplane", "bird"],
    "mean": [125.0, 122.0, 113.0],
    "std": [51.0, 50.0, 52.0],
}


def test_a_card_of_an_older_release_has_no_hash_and_no_figures():
    card = ModelCard.from_json(CARD)
    assert (card.model, card.architecture) == ("vanilla", {"hidden": 4, "layers": 1})
    assert card.classes == ("airplane", "bird")
    assert (card.weights_sha256, card.accuracy) == (None, None)
    assert CARD["architecture"]["name"] == "vanilla", "what was given stays as it was"


def test_what_else_is_in_a_card_is_no_trouble():
    more = {"test": {"accuracy": 0.9}, "weights_sha256": "f00", "lineage": {"git_commit": "c0"}, "of the future": 1}
    card = ModelCard.from_json({**CARD, **more})
    assert (card.accuracy, card.weights_sha256, card.git_commit) == (0.9, "f00", "c0")


@pytest.mark.parametrize(
    "change",
    [
        {"classes": []},
        {"classes": ["cat", "cat"]},
        {"mean": [1.0, 2.0]},
        {"std": [1.0, 0.0, 1.0]},
        {"std": [1.0, float("nan"), 1.0]},
        {"mean": "abc"},
        {"mean": None},
        {"architecture": {"hidden": 4}},
    ],
)
def test_a_card_that_makes_no_sense_is_refused(change):
    with pytest.raises((ValueError, TypeError, KeyError)):
        ModelCard.from_json({**CARD, **change})
