import json
from pathlib import Path

from pipeline.cli import gc
from pipeline.maintenance.gc import Collected
from pipeline.maintenance.retention import Decision

GOES = Decision("train", Path("/w/old"), 1_500_000, True, "superseded")
STAYS = Decision("train", Path("/w/new"), 9_000_000, False, "the newest")


def shown(capsys, collected, dry_run):
    gc._show(collected, dry_run)
    return capsys.readouterr().out


def test_a_dry_run_shows_everything_and_says_what_would_go(capsys):
    out = shown(capsys, Collected([GOES, STAYS], [GOES]), True)
    assert [line.split()[1] for line in out.splitlines()[1:3]] == ["old", "new"]
    assert "goes" in out
    assert "stays" in out
    assert out.endswith("1 would go: 1.5 MB\n")


def test_a_removal_shows_what_was_removed(capsys):
    out = shown(capsys, Collected([GOES, STAYS], [GOES]), False)
    assert "new" not in out
    assert out.endswith("1 removed: 1.5 MB\n")


def test_nothing_to_remove_is_said(capsys):
    assert shown(capsys, Collected([STAYS], []), False) == "nothing to remove: everything here is needed\n"
    assert shown(capsys, Collected([], []), False) == "nothing here to remove\n"


def test_json_has_everything_in_a_dry_run_and_else_what_was_removed(capsys):
    for dry_run, items in ((True, 2), (False, 1)):
        gc._emit_json(Collected([GOES, STAYS], [GOES]), dry_run)
        found = json.loads(capsys.readouterr().out)
        assert (found["removed"], found["bytes"], len(found["items"])) == (not dry_run, 1_500_000, items)
        assert found["items"][0] == {
            "what": "train", "path": "/w/old", "bytes": 1_500_000, "goes": True, "why": "superseded",
        }  # fmt: skip
