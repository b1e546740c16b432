from reported import training

from pipeline.config.keys import to_yaml
from pipeline.config.resolution import resolve
from pipeline.reports.group_facts import GroupFacts
from pipeline.reports.markdown_card import card_of, is_card

RIGHT = [1] * 70 + [0] * 30


def test_a_card_has_figures_limits_lineage_and_how_to_make_it_again():
    config = resolve("vanilla", sets=["data.source=synthetic", "seed=1"])
    one = training(RIGHT, 1, config=config, config_text=to_yaml(config))
    card = card_of(GroupFacts("A", (training(RIGHT, 0), one)), one)
    assert is_card(card.encode())
    assert "| test accuracy | 70.00 % of 100 images (95 % interval 60.42 % to 78.11 %) |" in card
    assert "| over its seeds | 70.00 %, mean of 2 seeds" in card
    assert "Mistaken most often: airplane for bird (15); bird for airplane (15)." in card
    assert "## What it is not for" in card
    assert "| code (commit) | c0ffee |" in card
    assert "    seqpipe run all --config config.yaml --seed 1\n" in card
    assert card.count("```") == 2


def test_what_is_not_known_is_left_out_and_what_is_missing_is_said():
    one = training(None, missing=("it has no predictions",))
    card = card_of(GroupFacts("A", (one,)), one)
    assert "- it has no predictions" in card
    assert "test accuracy" not in card
    assert "one image" not in card
    assert "How to make it again" not in card
    assert not is_card(b"# my own\n")
