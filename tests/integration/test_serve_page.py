"""The page of the server, driven in Chromium as a person would: files, the clipboard, the camera, the keyboard."""

import base64
import shutil
import time

import pytest
from running_server import serving
from served import png

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("needs Chromium", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright")

FLAGS = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
WAIT_MS = 60_000
GIVE = """([text, how]) => {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const moved = new DataTransfer();
  moved.items.add(new File([bytes], "given.png", {type: "image/png"}));
  const name = how === "paste" ? "clipboardData" : "dataTransfer";
  const event = how === "paste"
    ? new ClipboardEvent("paste", {clipboardData: moved, bubbles: true})
    : new DragEvent("drop", {dataTransfer: moved, bubbles: true, cancelable: true});
  document.getElementById("drop").dispatchEvent(event);
}"""


@pytest.fixture(scope="module")
def server(finished):
    with serving(finished) as server:
        yield server


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(server, browser):
    """The page, open; nothing may be asked of any other address, and no script may fail."""
    context = browser.new_context(permissions=["camera"])
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    asked, wrong = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
    page.goto(server.url)
    yield page
    assert [url for url in asked if not url.startswith((server.url, "blob:", "data:"))] == []
    assert [line for line in wrong if "status of 4" not in line] == []
    context.close()


@pytest.fixture
def image(tmp_path):
    (tmp_path / "grey.png").write_bytes(png(120, (60, 40)))
    return tmp_path / "grey.png"


def wait_until(page, condition):
    """Playwright's own waiting needs `eval`, which the page forbids."""
    end = time.monotonic() + WAIT_MS / 1000
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(50)


def wait_for_explanation(page):
    page.locator("#counted").wait_for(state="visible")
    assert page.locator("#status").inner_text() == ""


def test_a_chosen_file_shows_the_servers_probabilities_and_which_pixels_counted(page, server, image):
    page.set_input_files("#file", image)
    wait_for_explanation(page)
    found = server.predict(image.read_bytes()).json()["images"][0]
    rows = page.locator("#classes tr").all()
    shown = [(row.locator("th").inner_text(), row.locator("td").first.inner_text()) for row in rows]
    assert shown == [(name, f"{100 * share:.1f} %") for name, share in found["probabilities"].items()]
    assert page.locator("#verdict").inner_text().startswith(f"{found['class']}: ")
    assert page.locator("#heat-table td").count() == 64
    words = page.locator("#heat-words").inner_text()
    assert found["class"] in words
    assert page.locator("#heat").get_attribute("aria-label") == words
    assert page.locator("#limits summary").inner_text() == "What this shows, and what not"
    assert "Occlusion" in page.locator("#limits").text_content()


def test_another_class_can_be_asked_for_and_the_map_can_be_hidden(page, image):
    page.set_input_files("#file", image)
    wait_for_explanation(page)
    other = page.locator("#of-class option").nth(1).inner_text()
    page.select_option("#of-class", other)
    assert f"probability of {other}" in page.locator("#heat-words").inner_text()
    page.uncheck("#show-heat")
    assert not page.locator("#heat").is_visible()


@pytest.mark.parametrize("how", ["paste", "drop"])
def test_an_image_can_be_pasted_and_dropped(page, how):
    page.evaluate(GIVE, [base64.b64encode(png(200)).decode(), how])
    wait_for_explanation(page)
    assert "given.png" in page.locator("#given-name").inner_text()


def test_the_camera_takes_an_image(page):
    page.click("#start-camera")
    page.locator("#video").wait_for(state="visible")
    wait_until(page, "document.getElementById('video').videoWidth > 0")
    page.click("#shoot")
    wait_for_explanation(page)
    assert not page.locator("#video").is_visible()
    assert "camera.png" in page.locator("#given-name").inner_text()


def test_what_is_no_image_is_told_in_a_sentence_and_the_next_image_is_taken(page, tmp_path, image):
    (tmp_path / "notes.txt").write_text("no image")
    page.set_input_files("#file", tmp_path / "notes.txt")
    wait_until(page, "document.getElementById('error').textContent !== ''")
    said = page.locator("#error")
    assert said.inner_text() == "The image (notes.txt): not a PNG, JPEG, WebP, BMP or GIF image."
    assert said.get_attribute("role") == "alert"
    page.set_input_files("#file", image)
    wait_for_explanation(page)
    assert said.inner_text() == ""


def test_it_is_used_with_the_keyboard_alone(page, image):
    with page.expect_file_chooser() as chosen:  # around all of it: Chromium needs a moment until it tells of one
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "choose"
        page.keyboard.press("Enter")
    chosen.value.set_files(image)
    wait_for_explanation(page)
    assert page.evaluate("document.activeElement.id") == "verdict", "a screen reader goes on with the answer"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "of-class"


def test_every_control_has_a_name_and_every_image_a_text(page, image):
    page.set_input_files("#file", image)
    wait_for_explanation(page)
    nameless = page.evaluate("""() => [...document.querySelectorAll("button, input, select, video, canvas")]
      .filter((one) => !one.textContent.trim() && !one.getAttribute("aria-label") && !(one.labels || []).length)
      .map((one) => one.id)""")
    assert nameless == []
    assert page.evaluate("[...document.images].every((one) => one.alt)")
    assert page.evaluate("document.documentElement.lang") == "en"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280])
def test_it_is_readable_in_the_light_and_in_the_dark_and_fits_a_phone(page, image, scheme, width):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 700})
    page.set_input_files("#file", image)
    wait_for_explanation(page)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    for element in ("body", ".hint", "button", "#classes th"):
        assert contrast(page, element) >= 4.5, element


def test_where_a_token_is_asked_for_the_page_asks_for_it(finished, browser, tmp_path, image):
    (tmp_path / "token").write_text("0123456789abcdef")
    with serving(finished, "--token-file", str(tmp_path / "token")) as server:
        page = browser.new_page()
        page.set_default_timeout(WAIT_MS)
        page.goto(server.url)
        page.locator("#token-form").wait_for(state="visible")
        page.fill("#token", "0123456789abcdef")
        page.keyboard.press("Enter")
        wait_until(page, "document.getElementById('model').textContent.includes('version 1')")
        page.set_input_files("#file", image)
        wait_for_explanation(page)
        page.close()


def test_the_interface_is_described_without_any_other_address(page, server):
    page.goto(f"{server.url}/docs")
    page.get_by_role("heading", name="POST /predict").wait_for()
    assert "multipart/form-data" in page.locator("#routes").inner_text()
    assert f"{server.url}/predict" in page.locator("#example").inner_text()


def contrast(page, element):
    """The contrast of an element's text with what lies behind it, as WCAG has it."""
    return page.evaluate(
        """(selector) => {
      const one = document.querySelector(selector);
      const parse = (text) => text.match(/[0-9.]+/g).map(Number);
      let behind = one;
      while (parse(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
      const light = (colour) => parse(colour).slice(0, 3).map((c) => c / 255)
        .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
        .reduce((sum, c, index) => sum + c * [0.2126, 0.7152, 0.0722][index], 0);
      const [a, b] = [light(getComputedStyle(one).color), light(getComputedStyle(behind).backgroundColor)];
      return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    }""",
        element,
    )
