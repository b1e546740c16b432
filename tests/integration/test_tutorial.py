"""docs/tutorial.md, as a reader would go through it: each command in its order, and what the page says it prints.

The page trains for half an hour on CIFAR-10. Here `--config short.yaml` is added to each `seqpipe run`: made-up
images, a small of a few thousand parameters, two epochs. The servers listen on free ports. Of the set-up only the
names are looked at.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

import numpy as np
import pytest
from page_commands import CLASSES, Step, pattern_of, steps_of
from PIL import Image
from product import Place
from tracked_workspace import closed_port

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tutorial.md").read_text()
STEPS = steps_of(PAGE)
SHORT = """\
data: {source: synthetic, fraction: 0.3}
model: {dims: [16, 32], depths: [1, 1]}
train: {epochs: 2}
compute: {threads: 1}
"""
LEARNS_NOTHING = " --set train.learning_rate=1e-9 --set train.muon_learning_rate=1e-9"
IN_SHORT = {
    "seqpipe run all": "seqpipe run all --config short.yaml",
    "cifar10": "synthetic",
    "84.11 %    +5.99 points": "-  -",  # nothing was published of made-up images
}
SET_UP = ("git", "make", "source")
SERVERS = {"seqpipe ui": "5000", "seqpipe serve": "8000"}
BIN = Path(sys.executable).parent
LIMIT_S = 600


class Reader:
    """Somebody who types what the page says, in a fresh workspace, with standard input closed."""

    def __init__(self, place: Place) -> None:
        self.place = place
        place.set(PATH=f"{BIN}{os.pathsep}{os.environ['PATH']}", no_proxy="*")
        (place.root / "short.yaml").write_text(SHORT)
        self.ports = {port: str(closed_port()) for port in SERVERS.values()}
        self.server: tuple[Step, subprocess.Popen[str]] | None = None

    def follow(self, step: Step) -> None:
        """Do one step."""
        if step.command.startswith("curl "):
            address = r"\b127\.0\.0\.1:(\d+)"
            self._run(step, re.sub(address, lambda at: f"127.0.0.1:{self.ports[at[1]]}", step.command))
            return
        self.end_server()
        if step.command in SERVERS:
            self._serve(step)
        elif step.command.startswith("seqpipe run "):
            more = LEARNS_NOTHING if "--recipe" in step.command else ""  # so that the gate refuses it
            self._run(step, f"{step.command} --config short.yaml{more}")
        else:
            self._run(step, step.command)

    def end_server(self) -> None:
        """Press Ctrl-C where a server runs, and look at what it said."""
        if self.server is not None:
            step, process = self.server
            self.server = None
            process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=LIMIT_S)[0]
            compare(step, process.returncode, said)

    def take_photos(self) -> None:
        """Have some of the test images as files."""
        [prepared] = (self.place.stages / "prepare").glob("*/test_images.npy")
        (self.place.root / "photos").mkdir()
        for number in (7, 8):
            Image.fromarray(np.load(prepared)[number]).save(self.place.root / "photos" / f"{number}.png")

    def _start(self, command: str) -> "subprocess.Popen[str]":
        words = ["sh", "-c", 'exec "$@" <&-', "sh", *shlex.split(command)]
        process = subprocess.Popen(
            words, cwd=self.place.root, env=self.place.environ,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self.place.started.append(process)
        return process

    def _run(self, step: Step, command: str) -> None:
        process = self._start(command)
        said = process.communicate(timeout=LIMIT_S)[0]
        compare(step, process.returncode, said)

    def _serve(self, step: Step) -> None:
        port = self.ports[SERVERS[step.command]]
        process = self._start(f"{step.command} --port {port}")
        self.server = step, process
        opener, end = build_opener(ProxyHandler({})), time.monotonic() + LIMIT_S
        while True:
            try:
                assert opener.open(f"http://127.0.0.1:{port}/health", timeout=30).status == 200
                return
            except OSError:
                assert process.poll() is None, process.communicate()[0]
                assert time.monotonic() < end, "it does not answer"
                time.sleep(0.1)


def compare(step: Step, code: int, said: str) -> None:
    """Fail where a command ended otherwise than the page says, or left out a line of it."""
    assert code == step.code, f"{step.command}: exit code {code}, the page has {step.code}\n{said}"
    lines = [line.strip() for line in said.splitlines()]
    for printed in step.printed:
        for words, others in IN_SHORT.items():
            printed = printed.replace(words, others)
        assert any(map(pattern_of(printed).fullmatch, lines)), f"{step.command} does not print {printed!r}\n{said}"


def test_each_command_of_the_page_does_what_the_page_says(place):
    place.set(MLFLOW_TRACKING_URI=None)
    reader = Reader(place)
    for step in STEPS:
        if step.command.split()[0] in SET_UP:
            continue
        if "photos/" in step.command and not (place.root / "photos").exists():
            reader.take_photos()
        reader.follow(step)
    reader.end_server()
    assert {path.parent.name for path in (place.root / "sorted").rglob("*.png")} <= {*CLASSES}
    assert (place.root / "compare.html").stat().st_size > 0


def test_the_set_up_names_what_is_there():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    made = [step.command.split()[1] for step in STEPS if step.command.startswith("make ")]
    assert made == ["setup"]
    assert set(made) <= set(targets)
    assert (ROOT / "scripts" / "setup.sh").exists()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("small 90.10 % ... -5.10 points", "small  41.67 %   0 to 1   +1 points"),
        ("bird  97.13 %  photos/7.png", "cat 3 % photos/8.png"),
        ("model synthetic-airplane-automobile-bird-cat/1", "model synthetic-airplane-automobile-bird-cat/2"),
    ],
)  # fmt: skip
def test_figures_and_classes_of_the_page_may_be_others(line, said):
    assert pattern_of(line).fullmatch(said)
    assert not pattern_of(line).fullmatch(said.replace("l", "L").replace("p", "P"))


def test_a_page_that_says_what_is_not_printed_or_another_exit_code_is_found():
    [step] = steps_of("    $ seqpipe status\n    small  gone\n    ...\n    $ echo $?\n    3\n")
    assert step == Step("seqpipe status", ("small  gone",), 3)
    with pytest.raises(AssertionError, match="does not print 'small  gone'"):
        compare(step, 3, "small  here")
    with pytest.raises(AssertionError, match="exit code 0, the page has 3"):
        compare(step, 0, "small  gone")
