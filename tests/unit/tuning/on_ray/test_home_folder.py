import pytest

from tuning.on_ray.home_folder import HomeFolder


@pytest.fixture
def home(tmp_path):
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def actor(home, tmp_path):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "images").write_bytes(b"pixels")
    return HomeFolder(str(home), str(tmp_path / "shared"))


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_work_begins_with_the_files_that_are_there_but_not_with_half_written_ones(actor, home):
    (home / "weights").write_bytes(b"12345")
    (home / ".weights.7.tmp").write_bytes(b"12")
    assert not actor.taken().has_begun
    assert actor.begin() == [("weights", 5)]
    assert actor.taken().has_begun
    assert actor.read("weights", 2) == b"345"
    assert actor.read_shared("images", 4) == b"ls"


def test_what_is_coming_replaces_nothing_until_all_of_it_is_there(actor, home):
    (home / "weights").write_bytes(b"old")
    (home / "number.json").write_bytes(b"1")
    actor.write("weights", 0, b"ne")
    actor.write("weights", 2, b"w")
    actor.write("number.json", 0, b"2")
    assert {name: content for name, content in files(home).items() if name[0] != "."} == {
        "weights": b"old",
        "number.json": b"1",
    }
    assert not actor.taken().has_files
    actor.take_in(["weights", "number.json"], [])
    assert files(home) == {"weights": b"new", "number.json": b"2"}
    assert actor.taken().has_files
    assert not actor.taken().has_files, "it is said once"


def test_files_take_their_place_in_the_order_given_and_old_ones_go_last(actor, home, monkeypatch):
    (home / "old").touch()
    for name in ("b", "a"):
        actor.write(name, 0, b"x")
    done = []
    monkeypatch.setattr("pathlib.Path.rename", lambda path, to: done.append(to.name))
    monkeypatch.setattr("pathlib.Path.unlink", lambda path, missing_ok: done.append(f"no {path.name}"))
    actor.take_in(["b", "a"], ["old"])
    assert done == ["b", "a", "no old"]


def test_files_are_on_disk_before_they_take_their_place_and_their_names_before_old_ones_go(actor, home, monkeypatch):
    actor.write("weights", 0, b"x")
    done = []
    monkeypatch.setattr("tuning.on_ray.home_folder.sync", lambda path: done.append(f"sync {path.name}"))
    monkeypatch.setattr("pathlib.Path.rename", lambda path, to: done.append(to.name))
    monkeypatch.setattr("pathlib.Path.unlink", lambda path, missing_ok: done.append(f"no {path.name}"))
    actor.take_in(["weights"], ["old"])
    assert done == ["sync .weights.home.tmp", "weights", "sync home", "no old"]


def test_calls_that_ray_repeats_change_nothing(actor, home):
    for _ in range(2):
        actor.write("weights", 0, b"new")
        actor.write("weights", 3, b"er")
        actor.write("weights", 3, b"er")
    for _ in range(2):
        actor.take_in(["weights"], ["gone"])
    assert files(home) == {"weights": b"newer"}


def test_a_shorter_file_keeps_no_end_of_one_that_was_given_up(actor, home):
    actor.write("weights", 0, b"longer")
    actor.write("weights", 0, b"new")
    actor.take_in(["weights"], [])
    assert files(home) == {"weights": b"new"}


def test_what_could_not_be_received_frees_its_space(actor, home):
    (home / "weights").write_bytes(b"old")
    actor.write("weights", 0, b"new")
    actor.abandon()
    assert files(home) == {"weights": b"old"}


def test_messages_are_passed_on_once_and_in_order(actor):
    actor.post([b"1", b"2"])
    actor.post([b"3"])
    assert actor.taken().messages == [b"1", b"2", b"3"]
    assert actor.taken().messages == []


def test_a_reason_to_stop_is_kept(actor):
    assert actor.stop_reason() == ""
    actor.ask_to_stop("enough")
    assert actor.stop_reason() == "enough"
