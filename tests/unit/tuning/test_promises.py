import os
import subprocess
import sys

import pytest

from tuning import promises
from tuning.promises import Promise, Promises, shared_folder

HOLDER = """
import sys, time
from pathlib import Path
from tuning.promises import Promise, Promises
mine = Promises(Path(sys.argv[1]))
with mine.locked():
    mine.write(Promise(5.0, 700, 200))
print("written", flush=True)
time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "promises"


def others(mine):
    with mine.locked():
        return mine.others()


def write(mine, promise):
    with mine.locked():
        mine.write(promise)


def test_a_trial_sees_the_promises_of_others_as_they_are_now_and_not_its_own(folder):
    one, other = Promises(folder), Promises(folder)
    assert others(one) == []
    write(one, Promise(1.0, 1000, 123.456))
    write(one, Promise(1.0, 1000, 99, leaving_since=7.5))
    assert others(one) == []
    assert others(other) == [Promise(1.0, 1000, 99, leaving_since=7.5)]
    one.withdraw()
    one.withdraw()
    assert others(other) == []
    assert [path.name for path in folder.iterdir()] == ["lock"]


def test_the_promise_of_a_killed_process_is_deleted(folder):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "written\n"
    mine = Promises(folder)
    assert others(mine) == [Promise(5.0, 700, 200)]
    holder.kill()
    holder.communicate()
    assert others(mine) == []
    assert not list(folder.glob("trial-*"))


def test_what_cannot_be_read_is_ignored(folder):
    one, other = Promises(folder), Promises(folder)
    write(one, Promise(1.0, 1000))
    [path] = folder.glob("trial-*")
    for content in ("", "{", '{"unknown": 1}'):
        path.write_text(content)
        assert others(other) == []
    assert path.exists(), "its trial runs"


@pytest.mark.parametrize(("held_mb", "untaken_mb"), [(0, 1000), (400, 600), (1005, 0)])
def test_untaken_is_what_the_cap_still_allows(held_mb, untaken_mb):
    assert Promise(0.0, 1000, held_mb).untaken_mb == untaken_mb


def test_the_folder_is_the_user_s_alone(folder):
    assert others(Promises(folder)) == []
    assert folder.stat().st_mode & 0o777 == 0o700
    assert str(os.getuid()) in shared_folder(8000.0).name


def test_a_control_group_has_another_folder_than_its_machine():
    assert shared_folder(8000.0) == shared_folder(8000.3) != shared_folder(2000.0)


def test_a_folder_that_others_may_write_to_is_refused(folder, tmp_path):
    folder.mkdir(mode=0o755)
    with pytest.raises(PermissionError, match="alone"), Promises(folder).locked():
        pass
    link = tmp_path / "link"
    (tmp_path / "private").mkdir(mode=0o700)
    link.symlink_to(tmp_path / "private")
    with pytest.raises(PermissionError, match="alone"), Promises(link).locked():
        pass


def test_a_lock_whose_holder_hangs_is_an_error_and_no_wait_for_ever(folder, monkeypatch):
    monkeypatch.setattr(promises, "_LOCK_S", 0.02)
    with Promises(folder).locked(), pytest.raises(BlockingIOError), Promises(folder).locked():
        pass
    assert others(Promises(folder)) == []
