import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.durations import parse_seconds, readable
from pipeline.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1.5", 1.5), ("90s", 90), ("15m", 900), ("1h30m", 5400), ("1H 30M 5S", 5405), ("0.5h", 1800)],
)
def test_durations_are_read_as_people_write_them(text, seconds):
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "5x", "-5", "1e3", "5m5", "1,5h", "nan", "inf", "5 minutes", "\n"])
def test_an_invalid_duration_is_refused_with_how_to_write_it(text):
    with pytest.raises(ConfigError, match="write it as 90s, 15m or 1h30m"):
        parse_seconds(text)


@pytest.mark.parametrize("text", ["0", "0s", "0h0m", "0.0"])
def test_no_time_at_all_is_refused(text):
    with pytest.raises(ConfigError, match="more than 0"):
        parse_seconds(text)


@given(st.text(max_size=20) | st.text("0123456789. smh", max_size=20))
def test_any_text_is_a_time_above_zero_or_refused_in_one_line(text):
    seconds, message = 0.0, ""
    try:
        seconds = parse_seconds(text)
    except ConfigError as error:
        message = str(error)
    assert (seconds > 0) != (len(message.splitlines()) == 1)


@given(st.integers(1, 10**6))
def test_hours_minutes_and_seconds_add_up(seconds):
    text = f"{seconds // 3600}h{seconds % 3600 // 60}m{seconds % 60}s"
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (0.42, "0.4 s"),
        (9.9, "9.9 s"),
        (10, "10 s"),
        (42.4, "42 s"),
        (59.6, "1 min 0 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 0 min"),
        (7500, "2 h 5 min"),
    ],
)
def test_spans_are_shown_in_two_units_at_most(seconds, text):
    assert readable(seconds) == text


@given(st.floats(10, 10**7))
def test_what_is_shown_is_right_to_its_last_unit(seconds):
    shown = parse_seconds(readable(seconds).replace("min", "m"))
    assert abs(shown - seconds) <= (0.5 if seconds < 3599.5 else 60)
