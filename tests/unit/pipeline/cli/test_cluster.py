"""`seqpipe cluster`: what its commands hand on, and how they end."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from typing import ClassVar

import pytest
from fake_cluster import HEAD, fake_cluster, versions_here
from typer.testing import CliRunner

from pipeline.cli import cluster as command
from pipeline.cli.commands import app
from pipeline.cluster import background, joining, starting, this_laptop
from pipeline.cluster.workspace_cluster import ClusterAccess, ClusterFolder, HeadHere
from pipeline.errors import ConfigError, InterruptedRunError, MachineUnfitError
from pipeline.workspace.paths import Workspace
from tuning import awake
from tuning.cluster.addresses import HeadAddress
from tuning.cluster.join_code import JoinCode
from tuning.cluster.node_events import Beat, Joined
from tuning.cluster.node_record import NodeRecord, SearchSummary, TrialOnNode
from tuning.errors import ClusterError

CODE = JoinCode.new("PQRST")
ACCESS = ClusterAccess(HeadHere("192.168.1.10", 6480, "a", 123, 4, 5000, 800), CODE)


class FakeAwake:
    """Remembers whether it was asked to keep the laptop awake."""

    made: ClassVar[list["FakeAwake"]] = []

    def __init__(self, *, may_sleep: bool) -> None:
        self.may_sleep, self.kept = may_sleep, []
        self.in_words = "may fall asleep" if may_sleep else "stays awake"
        self.made.append(self)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kept.append("end")

    def keep(self, is_busy):
        self.kept.append(is_busy)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlflow.yaml").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(awake, "Awake", FakeAwake)
    FakeAwake.made.clear()
    return Workspace(tmp_path)


def run(*words, typed=""):
    return CliRunner().invoke(app, ["cluster", *words], input=typed, catch_exceptions=True)


@pytest.fixture
def started(monkeypatch):
    """What `up` hands on; `does` is what happens once it is up."""
    calls = {"does": lambda token: None, "events": []}

    def up(workspace, asked, on_up, on_event, token):
        calls.update(workspace=workspace, asked=asked)
        on_up(ACCESS)
        for event in calls["events"]:
            on_event(event)
        with token.deferring():
            calls["does"](token)
        return "because"

    monkeypatch.setattr(starting, "up", up)
    return calls


def test_up_shows_what_to_type_and_what_this_laptop_gives(started, place):
    done = run("up", "--bind", "wlan0", "--port", "7000", "--reserve-mb", "600")
    assert done.exit_code == 0
    assert started["asked"] == starting.Asked("wlan0", 7000, 600)
    assert started["workspace"] == place
    for words in (
        "cluster join 192.168.1.10\n",
        str(CODE),
        "4 cores and 5000 MB",
        "800 MB",
        "6480-6589",
        "stays awake",
    ):
        assert words in done.output
    assert done.output.endswith("the cluster has ended: because\n")


def test_up_may_sleep_if_it_is_asked_to_and_else_stays_awake_with_a_trial(started):
    trial = NodeRecord("a", "x", trials=(TrialOnNode("s", 1),))
    started["events"] = [Beat((trial,), ()), Beat((NodeRecord("a", "x"), replace(trial, name="b")), ())]
    run("up")
    assert FakeAwake.made[-1].kept == [True, False, "end"]
    run("up", "--may-sleep")
    assert FakeAwake.made[-1].may_sleep


def test_in_the_background_the_code_is_in_no_log(started):
    done = run("up", "--in-background")
    assert "the cluster is up at 192.168.1.10" in done.output
    assert str(CODE) not in done.output


def test_ctrl_c_is_the_way_to_end_a_cluster_and_other_signals_are_told(started):
    started["does"] = lambda token: os.kill(os.getpid(), signal.SIGINT)
    assert run("up").exit_code == 0
    started["does"] = lambda token: os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(InterruptedRunError) as interrupted:
        run("up")
    assert interrupted.value.exit_code == 143


def test_detached_it_hands_the_same_words_on_and_shows_the_same(monkeypatch, place):
    calls = []
    monkeypatch.setattr(background, "start", lambda *given: calls.append(given) or ACCESS)
    done = run("up", "--detach", "--port", "7000", "--may-sleep", "--bind", "wlan0", "--reserve-mb", "600")
    assert calls == [
        (place, ["cluster", "up", "--bind", "wlan0", "--port", "7000", "--reserve-mb", "600", "--may-sleep",
                 "--in-background"])
    ]  # fmt: skip
    assert str(CODE) in done.output
    assert "Ctrl-C" not in done.output
    assert "cluster down" in done.output


def test_errors_of_the_ray_side_become_ours(monkeypatch):
    def fails(*_):
        raise ClusterError("ports are taken")

    monkeypatch.setattr(starting, "up", fails)
    error = run("up").exception
    assert isinstance(error, MachineUnfitError)
    assert (str(error), error.exit_code) == ("ports are taken", 6)


@pytest.mark.parametrize("port", ["1023", "32700"])
def test_ports_that_cannot_be_are_bad_usage(port):
    assert run("up", "--port", port).exit_code == 2


class KnownFacts:
    def __enter__(self):
        return self

    def __exit__(self, *_): ...


@pytest.fixture
def joined(monkeypatch):
    """What `join` hands on; `does` is what happens once it has joined."""
    calls = {"does": lambda: None, "joins": True}
    monkeypatch.setattr(this_laptop, "Facts", KnownFacts)
    monkeypatch.setattr(joining, "head_address", lambda text: HeadAddress(text))

    def join(head, code, asked, facts, on_compared, on_event, token):
        calls.update(head=head, code=code, asked=asked, environ=dict(os.environ))
        if calls["joins"]:
            on_event(Joined(NodeRecord("b", "10.0.0.2"), 1.0))
        with token.deferring():
            calls["does"]()
        return "Ctrl-C"

    monkeypatch.setattr(joining, "join", join)
    return calls


def test_join_asks_for_the_code_and_hands_on_what_was_asked(joined):
    done = run("join", "10.0.0.1", "--name", "b", "--port", "7000", "--reserve-mb", "600", typed=f"{CODE}\n")
    assert done.exit_code == 0
    assert str(CODE) not in done.output
    assert (joined["head"], joined["code"]) == (HeadAddress("10.0.0.1"), CODE)
    assert joined["asked"] == joining.Asked("b", 7000, 600)
    assert "left the cluster: Ctrl-C\n" in done.stdout


def test_the_code_of_the_environment_is_taken_and_inherited_by_nobody(joined, monkeypatch):
    monkeypatch.setenv("SEQPIPE_JOIN_CODE", str(CODE))
    done = run("join", "10.0.0.1")
    assert done.exit_code == 0
    assert joined["code"] == CODE
    assert "SEQPIPE_JOIN_CODE" not in joined["environ"]


def test_the_code_of_a_file_goes_before_that_of_the_environment(joined, monkeypatch, tmp_path):
    monkeypatch.setenv("SEQPIPE_JOIN_CODE", "wrong")
    (tmp_path / "code").write_text(str(CODE))
    assert isinstance(run("join", "a", "--code-file", "code").exception, ConfigError), "others may read it"
    (tmp_path / "code").chmod(0o600)
    assert run("join", "a", "--code-file", "code").exit_code == 0
    assert joined["code"] == CODE


def test_a_mistyped_code_is_asked_for_again_at_a_terminal_only(joined, monkeypatch):
    error = run("join", "a", typed=f"wrong\n{CODE}\n").exception
    assert isinstance(error, MachineUnfitError)
    assert "too short" in str(error)
    typed = ["wrong", str(CODE)]
    monkeypatch.setattr(command.sys, "stdin", Terminal())
    monkeypatch.setattr(command, "getpass", lambda prompt: typed.pop(0))
    assert command._code(None) == CODE
    typed = ["wrong"] * 9
    with pytest.raises(ClusterError):
        command._code(None)
    assert len(typed) == 6


class Terminal:
    def isatty(self):
        return True


def test_ctrl_c_leaves_in_order_once_it_has_joined_and_interrupts_before(joined):
    joined["does"] = lambda: os.kill(os.getpid(), signal.SIGINT)
    assert run("join", "a", typed=str(CODE)).exit_code == 0
    joined["joins"] = False
    with pytest.raises(InterruptedRunError) as interrupted:
        run("join", "a", typed=str(CODE))
    assert interrupted.value.exit_code == 130


@contextmanager
def up_here(place):
    folder = ClusterFolder(place.cluster)
    with folder.held():
        folder.write(ACCESS)
        yield


def test_status_shows_laptops_trials_and_searches_and_never_the_code(monkeypatch, place):
    cluster = fake_cluster(monkeypatch)
    cluster.records = [replace(HEAD, trials=(TrialOnNode("medium-ab", 7, 2, 5, 0.5, 700, 900),))]
    cluster.searches = [SearchSummary("medium-ab", 3, 30, 0.812, 61.2)]
    with up_here(place):
        text, json = run("status").output, run("status", "--json").output
    for words in (
        "700 of 5000 MB",
        "2/5",
        "50.00 %",
        "700 of 900 MB",
        "3 of 30 trials, best 81.20 %, 61 trials an hour",
    ):
        assert words in text
    for shown in (text, json):
        assert str(CODE) not in shown
        assert CODE.token not in shown
        assert CODE.secret not in shown
    assert '"up": true' in json
    assert '"row": 7' in json


def test_status_without_a_cluster_says_what_there_is(place):
    done = run("status")
    assert isinstance(done.exception, MachineUnfitError)
    assert "no cluster is up" in str(done.exception)
    done = run("status", "--json")
    assert '"up": false' in done.stdout
    assert isinstance(done.exception, MachineUnfitError)
    with up_here(place):
        pass
    assert "ended without" in str(run("status").exception)


def test_leave_and_down_say_what_they_did(monkeypatch, place):
    from pipeline.cluster import ending

    monkeypatch.setattr(ending, "leave", lambda workspace, node: None)
    assert run("leave", "b").output == "b has left the cluster\n"
    monkeypatch.undo()
    monkeypatch.chdir(place.root)
    assert "no cluster is up" in str(run("down").exception)


def test_help_loads_nothing_heavy():
    look = (
        "import sys; from pipeline.cli.commands import app; "
        "print([name for name in ('torch', 'ray', 'mlflow', 'psutil', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_this_laptop_runs_is_hashed_once_and_quickly():
    assert versions_here().digest == versions_here().digest
    assert set(versions_here().digest) <= set("0123456789ABCDEFGHJKMNPQRSTVWXYZ")
