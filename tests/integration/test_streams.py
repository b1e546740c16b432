"""Commands that report, with outputs of every kind."""

import json
from pathlib import Path

import pytest
from product import Place

FULL = Path("/dev/full")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("place") / "жук", PYTHONIOENCODING="latin-1")
    yield place
    place.end()


def test_what_the_output_cannot_encode_gets_through_all_the_same(place):
    done = place.run("status", "--model", "small")
    assert done.code == 0, done.err
    assert done.out.splitlines()[0].endswith(r"\u0436\u0443\u043a")
    done = place.run("status", "--model", "small", "--json")
    assert json.loads(done.out)["workspace"] == str(place.root)


@pytest.mark.skipif(not FULL.exists(), reason="needs a device that is always full")
def test_a_result_that_a_full_disk_did_not_take_is_no_success(place):
    with FULL.open("w") as full:
        done = place.run("runs", "list", stdout=full)
    assert done.code == 1
    assert done.errors == [
        "seqpipe: the result could not be written to standard output (No space left on device); "
        "the same command shows it again"
    ]


def test_a_reader_that_has_had_enough_ends_a_report_quietly(place):
    process = place.start("config", "schema")
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 0
