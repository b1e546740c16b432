"""`seqpipe serve` with stand-ins for the model and the server: what it says, and what it refuses."""

import json
from types import SimpleNamespace

import pytest
import typer
from served import Brightness

from pipeline.cli import serve as command
from pipeline.errors import ConfigError
from pipeline.listening import listen
from pipeline.serving import run


@pytest.fixture
def world(monkeypatch):
    """What the command loads and serves; the server is ready at once, and ends with 143."""
    world = SimpleNamespace(loaded=[], served=[])

    def load(model):
        world.loaded.append(model)
        return Brightness(), "the registry"

    def app(classifier, registry, token):
        world.served.append((registry, token))
        return "the app"

    def serve(app, listener, ready):
        assert app == "the app"
        ready()
        return 143

    monkeypatch.setattr(command, "_load", load)
    monkeypatch.setattr(command, "_app", app)
    monkeypatch.setattr(run, "serve", serve)
    monkeypatch.delenv("SEQPIPE_SERVE_TOKEN", raising=False)
    return world


def serve(**options):
    given = {"model": None, "port": 0, "host": "127.0.0.1", "token_file": None}
    command.serve(**{**given, "reload_on_promotion": False, "as_json": False, **options})


def test_it_says_where_it_answers_and_with_what_and_ends_with_the_servers_code(world, capsys):
    with pytest.raises(typer.Exit) as ended:
        serve(model="m@champion")
    assert ended.value.exit_code == 143
    said = capsys.readouterr().out
    assert said.startswith("serving small of m, version 1 (champion), test accuracy 90.00 %: http://127.0.0.1:")
    assert (world.loaded, world.served) == (["m@champion"], [(None, None)])


def test_as_json_it_is_one_line_for_programs(world, capsys):
    with pytest.raises(typer.Exit):
        serve(as_json=True, reload_on_promotion=True)
    [line] = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert found["url"].startswith("http://127.0.0.1:")
    assert (found["model"]["name"], found["model"]["commit"]) == ("m", "c0ffee")
    assert found["pid"]
    assert world.served == [("the registry", None)]


def test_a_port_in_use_is_told_before_a_model_is_loaded(world):
    with listen("127.0.0.1", 0) as other, pytest.raises(ConfigError, match=r"use --port \d+"):
        serve(port=other.getsockname()[1])
    assert world.loaded == []


def test_beyond_this_machine_it_takes_a_token(world, monkeypatch):
    with pytest.raises(ConfigError, match="it takes a token"):
        serve(host="0.0.0.0")
    assert world.loaded == []
    monkeypatch.setenv("SEQPIPE_SERVE_TOKEN", "0123456789abcdef")
    with pytest.raises(typer.Exit):
        serve(host="0.0.0.0")
    assert world.served == [(None, "0123456789abcdef")]
