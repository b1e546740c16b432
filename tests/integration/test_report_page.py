"""The page of `seqpipe report` in Chromium: on a phone, a tablet and a wide screen, in the dark, and on paper."""

import shutil

import pytest
from report_workspace import PATIENCE_S, place_to_report_on

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("needs Chromium", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright")

PAPER_PX = 680
"""The width of A4 less its margins."""
CONTRASTS = """(selector) => {
  const parse = (text) => text.match(/[0-9.]+/g).map(Number);
  const light = (colour) => parse(colour).slice(0, 3).map((c) => c / 255)
    .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, index) => sum + c * [0.2126, 0.7152, 0.0722][index], 0);
  return [...document.querySelectorAll(selector)].map((one) => {
    let behind = one;
    while (parse(getComputedStyle(behind).backgroundColor)[3] === 0 && behind !== document.body)
      behind = behind.parentElement;
    const style = getComputedStyle(one);
    const front = one instanceof SVGElement ? (style.fill === "none" ? style.stroke : style.fill) : style.color;
    const [a, b] = [light(front), light(getComputedStyle(behind).backgroundColor)];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  });
}"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    place = place_to_report_on(tmp_path_factory.mktemp("page"), mlflow=False)
    done = place.run("report", timeout_s=PATIENCE_S)
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == "report.html"
    assert "not in MLflow yet" in done.err, "the server is away, and that is said"
    yield place.root / "report.html"
    place.end()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(file, browser):
    """The page, open; it asks for nothing but itself, and nothing of it is refused."""
    page = browser.new_page()
    page.set_default_timeout(120_000)
    asked, wrong = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda line: wrong.append(line.text))
    page.goto(file.as_uri())
    yield page
    assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()]
    assert wrong == []
    page.close()


@pytest.mark.parametrize("width", [360, 800, 1400])
def test_it_fits_the_screen_and_only_tables_scroll(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    outside = page.evaluate(
        """() => [...document.querySelectorAll("main *")].filter((one) => !one.closest(".wide, svg"))
        .filter((one) => one.getBoundingClientRect().right > window.innerWidth + 1)
        .map((one) => one.outerHTML.slice(0, 80))"""
    )
    assert outside == []
    assert page.evaluate("[...document.querySelectorAll('.charts svg')].every((one) => one.clientWidth >= 280)")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_and_charts_stand_out_from_the_ground_in_the_light_and_in_the_dark(page, scheme):
    page.emulate_media(color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 26)"}[scheme]
    words = "p, td, th, h1, h2, h3, summary, figcaption, nav a, pre code"
    assert min(page.evaluate(CONTRASTS, words)) >= 4.5
    letters = "[id] svg text, .charts svg text"
    of_cells = "svg[aria-label^='Confusion'] text"  # which lie on colours of their own
    assert min(page.evaluate(CONTRASTS, f":is({letters}):not({of_cells})")) >= 4.5
    lines = "svg[aria-label^='Learning'] path[style*='fill: none']"
    curves = ", ".join(f"{lines}[style*='var(--{colour})']" for colour in ("blue", "orange", "green"))
    assert page.locator(curves).count() >= 5
    assert min(page.evaluate(CONTRASTS, curves)) >= 3


def test_on_paper_it_is_light_without_links_and_what_was_folded_is_open(page):
    page.emulate_media(media="print", color_scheme="dark")
    page.set_viewport_size({"width": PAPER_PX, "height": 900})
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert page.evaluate("document.documentElement.scrollWidth") <= PAPER_PX
    assert page.evaluate("document.querySelector('details pre').getBoundingClientRect().height") > 100
    assert len(page.pdf(format="A4", print_background=False)) > 50_000


def test_every_image_and_chart_has_a_text_and_links_lead_to_their_places(page):
    assert page.evaluate("[...document.images].every((one) => one.alt && one.naturalWidth === 32)")
    assert page.evaluate("[...document.querySelectorAll('svg')].every((one) => one.getAttribute('aria-label'))")
    assert page.evaluate("document.documentElement.lang") == "en"
    links = page.locator("nav a").all()
    assert len(links) >= 4
    for link in links:
        assert page.locator(link.get_attribute("href")).count() == 1
