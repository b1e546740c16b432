from pipeline.reports.page import document, table, text


def test_a_page_names_no_address_forbids_fetching_and_escapes_what_it_shows():
    page = document("<a>", table("<u>", ["<b>"], [["<script>"]]) + text("<i>"))
    assert "://" not in page
    assert "default-src 'none'" in page
    assert "<script>" not in page
    assert not any(tag in page for tag in ("<i>", "<u>"))
    assert "<title>&lt;a&gt;</title>" in page
