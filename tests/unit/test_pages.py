"""What the pages of the docs name is there: commands, with the options that they are given."""

from pathlib import Path

import pytest
import typer
from page_commands import commands_in

from pipeline.cli.commands import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def fault_of(words: list[str]) -> str | None:
    """Why the command line would not take these words; None if it would. Nothing is run."""
    usage_error = typer.BadParameter.__mro__[1]  # click's, which Typer does not export
    command = typer.main.get_command(app)
    while (commands := getattr(command, "commands", None)) is not None and words and not words[0].startswith("-"):
        if words[0] not in commands:
            return f"no command {words[0]}"
        command, words = commands[words[0]], words[1:]
    context = command.context_class(command)
    try:
        values, _, _ = command.make_parser(context).parse_args(list(words))
        for parameter in command.params:
            value = values.get(parameter.name)
            if value not in (None, (), []) and parameter.callback is None:  # callbacks act: --version, --help
                parameter.process_value(context, value)
    except usage_error as error:
        return error.format_message()
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_on_a_page_is_one(page):
    commands = [words for words in commands_in(page.read_text()) if words[0] not in ("...", "COMMAND")]
    faults = {" ".join(words): fault for words in commands if (fault := fault_of(list(words)))}
    assert not faults


def test_a_command_or_an_option_that_is_gone_would_be_found():
    page = (
        "Do `seqpipe runn all`.\n\n    $ seqpipe run all --sed 1\n    seqpipe run everything   all\n    small 90 %\n"
    )
    words = list(commands_in(page))
    assert words == [["runn", "all"], ["run", "all", "--sed", "1"], ["run", "everything"]]
    assert [one for one in words if not fault_of(one)] == []
