"""A signal at any moment of `run all`: one line, the right code, and the same command ends what was begun."""

import signal
import time

import pytest
from product import Place, leave, tiny

WORDS = tiny("vanilla", train__epochs=2)
MOMENTS_S = [0.12 + 0.45 * number for number in range(28)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("sweep"), mlflow=True)
    yield place
    place.end()


@pytest.mark.parametrize("delay_s", MOMENTS_S)
def test_a_signal_at_any_moment_ends_the_command_with_one_line(place, delay_s):
    """With --fresh every stage runs again each time, so the moments fall into all of them."""
    number = signal.SIGTERM if round(delay_s * 100) % 2 else signal.SIGINT
    process = place.start("run", "all", "--fresh", *WORDS)
    time.sleep(delay_s)
    left = leave(process, number)
    assert "Traceback" not in left.err
    assert "Exception ignored" not in left.err
    assert left.seconds < 5
    if left.code not in (0, 3):  # it was quicker; the gate refuses what is as good as the champion
        assert left.code == 128 + number, left.err
        assert len(left.errors) == 1, left.err


def test_after_all_of_these_the_command_runs_to_its_end(place):
    done = place.run("run", "all", *WORDS)
    assert done.code in (0, 3), done.err  # 3: registered anew, and as good as the champion
    assert place.run("run", "all", *WORDS).out.count("nothing to do") == 1
