from pipeline.reports.page import STYLE, code, contents, document, facts, folded, heading, table, text, tiles


def test_a_page_names_no_address_forbids_fetching_and_escapes_what_it_shows():
    page = document("<a>", table("<u>", ["<b>"], [["<script>"]]) + text("<i>"))
    assert "://" not in page
    assert "default-src 'none'" in page
    assert "<script>" not in page
    assert not any(tag in page for tag in ("<i>", "<u>"))
    assert "<title>&lt;a&gt;</title>" in page


def test_every_piece_escapes_what_it_shows_and_says_what_an_image_is():
    mean = "<i>&\"'"
    made = (
        facts([(mean, mean), ("not known", "")]) + heading(2, mean, mean) + contents([(mean, mean)])
        + code(mean) + folded(mean, "") + tiles([(b"png", mean, mean)])
    )  # fmt: skip
    assert "<i>" not in made
    assert "&quot;" in made
    assert "not known" not in made
    assert '<img alt="&lt;i&gt;' in made


def test_a_figure_with_its_unit_stays_on_one_line_and_words_do_not():
    made = table("figures", ["a", "b"], [["36.18 to 60.69 %", "a sentence that is longer than a figure"]])
    assert '<td>36.18 to 60.69 %</td><td class="words">a sentence' in made
    assert "td{white-space:nowrap}\ntd.words{white-space:normal;" in STYLE
