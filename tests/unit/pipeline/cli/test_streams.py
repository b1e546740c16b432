import os
import subprocess
import sys
import textwrap

import pytest

SAYS = """
import os, sys
from pipeline.cli import streams
streams.take_over()
"""


def said(code, prefix="", **options):
    """Exit code, stdout and stderr of a process with streams of that kind."""
    script = SAYS + textwrap.dedent(code)
    command = ["sh", "-c", f'exec "$0" -c "$1" {prefix}', sys.executable, script]
    done = subprocess.run(command, capture_output=True, timeout=30, check=False, **options)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def broken():
    """The end to write to of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


def with_stdout(descriptor, code):
    return subprocess.run(
        [sys.executable, "-c", SAYS + textwrap.dedent(code)],
        stdout=descriptor,
        stderr=subprocess.PIPE,
        timeout=30,
        check=False,
    )


def test_nobody_reading_ends_nothing_and_is_no_loss(broken):
    done = with_stdout(
        broken,
        """
        for _ in range(3):
            print("x" * 100_000, flush=True)
        os.write(1, b"what C code and children write")
        sys.stderr.write(repr(streams.lost_results()))
        """,
    )
    assert (done.returncode, done.stderr) == (0, b"None")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
def test_a_full_disk_ends_nothing_and_is_told():
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = with_stdout(full, "print('x'); sys.stderr.write(str(streams.lost_results()))")
    assert (done.returncode, done.stderr) == (0, b"No space left on device")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_leads_nowhere_and_its_number_is_not_given_to_another_file(closed):
    code, out, err = said(
        """
        opened = os.open(os.devnull, os.O_RDONLY)
        print("out"); print("err", file=sys.stderr); sys.stdin.read()
        sys.exit(0 if opened > 2 else 9)
        """,
        prefix=closed,
        stdin=subprocess.DEVNULL,
    )
    assert code == 0
    assert out == (b"" if ">&-" in closed.replace("2>&-", "") else b"out\n")
    assert err == (b"" if "2>&-" in closed else b"err\n")


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252", "utf-8"])
def test_letters_that_the_encoding_lacks_are_escaped(encoding):
    code, out, err = said(
        r"print('a\u03a9\u2502\udcff'); print('\u03a9', file=sys.stderr)",
        env=os.environ | {"PYTHONIOENCODING": encoding},
    )
    assert code == 0, err
    expected = "aΩ│".encode(encoding, "backslashreplace") + rb"\udcff" + b"\n"
    assert out == expected


def test_a_slow_reader_of_a_stream_that_does_not_block_gets_everything():
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    process = subprocess.Popen(
        [sys.executable, "-c", f"{SAYS}\nprint('x' * 300_000)"], stdout=writing, stderr=subprocess.PIPE
    )
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        assert len(file.read()) == 300_001
    assert process.wait(timeout=30) == 0
    process.stderr.close()
