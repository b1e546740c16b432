"""The link that `seqpipe ui` prints, opened in Chromium: model training, with the columns that matter."""

import json
import shutil
import signal

import pytest
from mlflow_server import free_port

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("needs Chromium", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright")

WAIT_MS = 240_000
ROOMY = {"width": 2600, "height": 900}
"""The table draws only the columns that there is room for."""


@pytest.fixture(scope="module")
def link(finished):
    """What `seqpipe ui` prints over a workspace with one run."""
    process = finished.start("ui", "--port", str(free_port()))
    line = process.stdout.readline()
    assert line.startswith("MLflow UI: http://127.0.0.1:"), process.communicate(timeout=20)
    yield line.removeprefix("MLflow UI: ").split()[0]
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 0


@pytest.fixture(scope="module")
def page(link):
    """The page, open, once it shows the run."""
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport=ROOMY)
        page.set_default_timeout(WAIT_MS)
        page.goto(link)
        page.locator(".ag-row [col-id='metrics.`test/accuracy`']").first.wait_for()
        yield page
        browser.close()


def shown(page):
    """Column by column as they stand from left to right: the name, and what the one run has there."""
    headings = page.locator(".ag-header-cell[col-id]").all()
    found = []
    for heading in headings:
        column = heading.get_attribute("col-id")
        cell = page.locator(f".ag-row [col-id='{column}']")
        if cell.count() == 1 and heading.inner_text():
            found.append((heading.bounding_box()["x"], heading.inner_text().strip(), cell.inner_text().strip()))
    return {name: value for _, name, value in sorted(found)}


def test_the_columns_that_matter_are_shown_with_their_values_memory_included(page, finished):
    [run] = json.loads(finished.run("runs", "list", "--json").out)["runs"]
    columns = shown(page)
    assert columns["model.name"] == run["model"] == "vanilla"
    assert int(columns["model.parameters"]) == run["parameters"]
    for heading, figure in (
        ("test/accuracy", "accuracy"),
        ("test/loss", "loss"),
        ("peak_memory_mb", "memory_mb"),
        ("best/validation_accuracy", "validation"),
    ):
        assert float(columns[heading]) == pytest.approx(run[figure]), heading
    assert run["memory_mb"] > 50
    assert columns["Duration"].endswith(("s", "min"))
    assert columns["best/epoch"] == columns["train.epochs"] == "1"


def test_what_matters_most_stands_first(page):
    names = [name for name in shown(page) if name not in ("Run Name", "Created")]
    assert names[:6] == [
        "Duration", "test/accuracy", "test/loss", "peak_memory_mb", "model.name", "model.parameters",
    ]  # fmt: skip


def test_the_experiment_opens_as_model_training(page):
    assert "workflowType=machine_learning" in page.url
    assert page.get_by_text("Model training", exact=True).first.is_visible()
    assert page.get_by_role("link", name="Models", exact=True).first.is_visible()
