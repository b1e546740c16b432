"""The pictures of docs/pictures: what the terminal, the MLflow UI and the report of a workspace look like.

python scripts/pictures.py WORKSPACE WORD ...        the terminal and the MLflow UI; WORDs are those of the
                                                     `seqpipe run all` that made the workspace
python scripts/pictures.py --report WORKSPACE RUN    the report on a run

Everything in it has to be up to date, so that nothing is trained. Give it a copy: photos and a report are written
there. Needs Chromium. Nothing is drawn by hand: each picture is of what a command has just shown.
"""

import io
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

import numpy as np
from PIL import Image
from playwright.sync_api import Page, ViewportSize, sync_playwright
from rich.console import Console
from rich.text import Text

OUT = Path(__file__).resolve().parent.parent / "docs" / "pictures"
SEQPIPE = Path(sys.executable).parent / "seqpipe"
COLUMNS = 110
PHOTOS = 4
UI_PORT = 5057
WINDOW = ViewportSize(width=1100, height=1130)
SHOWN = ViewportSize(width=1100, height=1040)
REPORT = ViewportSize(width=1300, height=1180)
CURVE = ".js-plotly-plot"
CURVES = "^(train|validation)/(loss|accuracy)$"
MOST_BYTES = 200_000
WAIT_MS = 240_000


def main(folder: str, *words: str) -> None:
    """Make the pictures of the terminal and of the MLflow UI."""
    workspace = Path(folder).resolve()
    OUT.mkdir(exist_ok=True)
    photos = take_photos(workspace)
    commands = [["run", "all", *words], ["models", "list"], ["predict", photos, "--top", "2"]]
    shown = [(command, in_terminal(workspace, command)) for command in commands]
    write_terminal(shown, OUT / "terminal.svg")
    run = re.search(r"#/experiments/\d+/runs/\w+", re.sub(r"\s", "", Text.from_ansi(shown[0][1]).plain))
    assert run is not None, shown[0][1]
    with chromium(WINDOW) as page, mlflow_ui(workspace):
        address = f"http://127.0.0.1:{UI_PORT}/{run[0]}/model-metrics?workflowType=machine_learning"
        picture_of_curves(page, address, OUT / "mlflow.png")


def report(folder: str, run: str) -> None:
    """Make the picture of a report's beginning."""
    workspace = Path(folder).resolve()
    subprocess.run([SEQPIPE, "report", run, "--html", "report.html"], cwd=workspace, check=True)
    with chromium(REPORT) as page:
        page.goto((workspace / "report.html").as_uri())
        save(page.screenshot(), OUT / "report.png")


@contextmanager
def chromium(window: ViewportSize) -> Iterator[Page]:
    """A page of a browser that is ended afterwards."""
    with sync_playwright() as started:
        program = shutil.which("chromium") or shutil.which("google-chrome")
        browser = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport=window, color_scheme="light")
        page.set_default_timeout(WAIT_MS)
        yield page
        browser.close()


def take_photos(workspace: Path) -> str:
    """Some of the test images as files; their folder, as a user in the workspace would name it."""
    prepared = sorted((workspace / ".seqpipe" / "stages" / "prepare").glob("*/test_images.npy"))[0]
    (workspace / "photos").mkdir(exist_ok=True)
    for number, pixels in enumerate(np.load(prepared)[:PHOTOS]):
        Image.fromarray(pixels).save(workspace / "photos" / f"{number}.png")
    return "photos/"


def in_terminal(workspace: Path, words: Sequence[str]) -> str:
    """What a command writes to standard output where that is a terminal."""
    ours, its = pty.openpty()
    termios.tcsetwinsize(its, (50, COLUMNS))
    environ = os.environ | {"TERM": "xterm-256color", "PATH": f"{SEQPIPE.parent}{os.pathsep}{os.environ['PATH']}"}
    environ.pop("COLUMNS", None)
    process = subprocess.Popen(["seqpipe", *words], cwd=workspace, env=environ, stdin=its, stdout=its)
    os.close(its)
    written = b""
    with suppress(OSError):  # the other end is closed
        while chunk := os.read(ours, 65536):
            written += chunk
    os.close(ours)
    assert process.wait() == 0, written.decode()
    return written.decode().replace("\r\n", "\n")


def write_terminal(shown: Sequence[tuple[Sequence[str], str]], path: Path) -> None:
    """Draw commands and what they wrote; the fonts are those of the reader."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, highlight=False)
    for words, text in shown:
        console.print(Text(f"$ seqpipe {shlex.join(words)}", style="bold"))
        console.print(Text.from_ansi(text.rstrip()))
        console.print()
    picture = console.export_svg(title="seqpipe")
    picture = re.sub(r"@font-face\s*{.*?}\s*", "", picture, flags=re.DOTALL).replace("Fira Code, ", "")
    path.write_text(picture)
    tell(path)


@contextmanager
def mlflow_ui(workspace: Path) -> Iterator[None]:
    """`seqpipe ui` of a workspace, until the end of the block."""
    process = subprocess.Popen([SEQPIPE, "ui", "--port", str(UI_PORT)], cwd=workspace)
    try:
        opener = build_opener(ProxyHandler({}))
        while True:
            assert process.poll() is None
            with suppress(OSError):
                opener.open(f"http://127.0.0.1:{UI_PORT}/health", timeout=5)
                break
            time.sleep(0.5)
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def picture_of_curves(page: Page, address: str, path: Path) -> None:
    """The tab of a run that has its curves, without the panel that MLflow opens beside it."""
    page.goto(address)
    page.locator(CURVE).first.wait_for()
    page.get_by_role("button", name="Close", exact=True).click()
    page.get_by_placeholder("Search metric charts").fill(CURVES)
    page.locator(CURVE).nth(3).wait_for()
    page.wait_for_timeout(10_000)  # they are drawn one by one
    save(page.screenshot(clip={"x": 0, "y": 0, **SHOWN}), path)


def save(screenshot: bytes, path: Path) -> None:
    """Write a screenshot in 256 colours."""
    Image.open(io.BytesIO(screenshot)).convert("RGB").quantize(256).save(path, optimize=True)
    tell(path)


def tell(path: Path) -> None:
    """Say what was made; end where it is too large for a page."""
    size = path.stat().st_size
    if size > MOST_BYTES:
        sys.exit(f"{path}: {size} bytes, more than {MOST_BYTES}")
    print(f"{path.relative_to(OUT.parent.parent)}: {size / 1000:.0f} kB")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    report(*sys.argv[2:]) if sys.argv[1] == "--report" else main(*sys.argv[1:])
