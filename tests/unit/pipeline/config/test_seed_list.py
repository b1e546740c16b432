import pytest

from pipeline.config.seed_list import MOST, parse_seeds
from pipeline.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("0-2", (0, 1, 2)),
        ("0,3,7", (0, 3, 7)),
        ("5", (5,)),
        ("3-3", (3,)),
        ("7, 0-2", (7, 0, 1, 2)),
        ("0-2,1-3", (0, 1, 2, 3)),
        (" 0 - 1 ", (0, 1)),
    ],
)
def test_ranges_and_single_seeds_are_read_in_their_order_each_once(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "2-0", "0-", "-1", "1..3", "0,,1", "0;1", "1.5", "0-1-2", "٣"])
def test_what_is_no_list_of_seeds_says_how_one_is_written(text):
    with pytest.raises(ConfigError, match="write them as 0-2, or as 0,3,7"):
        parse_seeds(text)


@pytest.mark.parametrize("text", ["0-999999999", f"0-{MOST}", f"0-{MOST - 1},5000"])
def test_more_seeds_than_anybody_trains_are_refused(text):
    with pytest.raises(ConfigError, match=f"at most {MOST}"):
        parse_seeds(text)
    assert len(parse_seeds(f"0-{MOST - 1}")) == MOST
