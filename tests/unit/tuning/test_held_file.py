import subprocess
import sys

import pytest

from tuning import held_file
from tuning.held_file import HeldFile

HOLD = """
import sys
from pathlib import Path
from tuning.held_file import HeldFile
HeldFile(Path(sys.argv[1])).write(b"alive")
print(flush=True)
sys.stdin.read()
"""


def test_what_a_living_process_writes_is_read_the_last_of_it_and_nothing_more(tmp_path):
    held = HeldFile(tmp_path / "a")
    held.write(b"a long text")
    held.write(b"short")
    assert held_file.read(held.path) == b"short"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    held.remove()
    assert not held.path.exists()
    held.remove()
    held.write(b"again")
    assert held_file.read(held.path) == b"again"


def test_the_file_of_a_process_that_was_killed_is_removed(tmp_path):
    path = tmp_path / "a"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        assert held_file.read(path) == b"alive"
        process.kill()
        process.wait()
        assert held_file.read(path) is None
        assert not path.exists()
    assert held_file.read(path) is None


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(FileNotFoundError):
        HeldFile(tmp_path / "none" / "a").write(b"")
