"""The commands of a page of the docs, as a user would type them, with what the page says they print."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

CODE = "    "
PROMPT = f"{CODE}$ "
ECHO_CODE = "echo $?"
CLASSES = ("airplane", "automobile", "bird", "cat")


@dataclass(frozen=True)
class Step:
    """A command after a prompt; the lines under it, without those that stand for what was left out; its exit code."""

    command: str
    printed: tuple[str, ...]
    code: int


def steps_of(page: str) -> list[Step]:
    """The commands after a `$`, in their order; `$ echo $?` says the exit code of the one before it."""
    steps: list[Step] = []
    for line in page.splitlines():
        if line.startswith(PROMPT):
            steps.append(Step(line.removeprefix(PROMPT), (), 0))
        elif line.startswith(CODE) and steps and line.strip() != "...":
            last = steps.pop()
            steps.append(Step(last.command, (*last.printed, line.strip()), last.code))
    found: list[Step] = []
    for step in steps:
        if step.command == ECHO_CODE:
            last = found.pop()
            step = Step(last.command, last.printed, int(step.printed[0]))
        found.append(step)
    return found


def pattern_of(line: str) -> "re.Pattern[str]":
    """What a line of a page has to match: any figures, any of the classes, anything where it has `...`."""
    classes = "|".join(CLASSES)
    parts = [
        (r"\s*\.\.\.\s*", ".*"),
        (rf"\b(?:{classes})\b(?!-)(?<!-)", f"(?:{classes})"),
        (r"[-+]?\d[\d.,:]*", r"[-+]?\\d[\\d.,:]*"),
        (r"\s+", r"\\s+"),
    ]
    made = ""
    while line:
        for searched, replacement in parts:
            if at := re.match(searched, line):
                made += replacement.replace("\\\\", "\\")
                line = line[at.end() :]
                break
        else:
            made += re.escape(line[0])
            line = line[1:]
    return re.compile(made)


def commands_in(page: str) -> Iterator[list[str]]:
    """The words of every `seqpipe` in code: after a prompt, at the start of a line of code, in a sentence."""
    for line in page.splitlines():
        if line.startswith(CODE):
            typed = re.split(r"\s{2,}|\s[|&;]+\s", line.strip().removeprefix("$ "))[:1]
        else:
            typed = re.findall(r"`([^`]+)`", line)
        for one in typed:
            if re.match(r"(\.venv/bin/)?seqpipe\s", one):
                yield shlex.split(one)[1:]
