"""A chart inside a page: it names no address, takes the page's colours, and shares no id with another one."""

import re

from pipeline.evaluation.plots import learning_curves
from pipeline.reports.inline_svg import COLOURS, inline_svg

ROWS = [{"epoch": 1.0, "train/loss": 1.0, "validation/loss": 0.9}, {"epoch": 2.0, "train/loss": 0.5}]


def test_a_chart_on_a_page_names_no_address_and_has_the_pages_colours():
    drawn = inline_svg(learning_curves(ROWS, 1), "a", "loss by <epoch>")
    assert "://" not in drawn
    assert 'aria-label="loss by &lt;epoch&gt;"' in drawn
    assert "var(--ink)" in drawn
    assert not any(colour.lower() in drawn.lower() for colour in COLOURS)
    assert "DejaVu" not in drawn, "its letters are the page's"


def test_two_charts_of_a_page_share_no_id_and_refer_to_their_own():
    ids = []
    for name in ("a", "b"):
        drawn = inline_svg(learning_curves(ROWS, 1), name, "")
        own = set(re.findall(r' id="([^"]*)"', drawn))
        assert set(re.findall(r'(?:url\(#|href="#)([^")]+)', drawn)) == own
        ids.append(own)
    assert ids[0]
    assert not ids[0] & ids[1]
