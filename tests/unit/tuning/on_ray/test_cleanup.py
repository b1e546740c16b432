import json
import os
import subprocess
import sys
import time

from tuning.on_ray.cleanup import MARK, Cleanup, marked


def test_whatever_carries_the_mark_is_ended_and_nothing_else(tmp_path):
    folder = tmp_path / "ray"
    folder.mkdir()
    sleep = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"]
    mark = "0123456789abcdef-test"
    with Cleanup(mark, str(folder)):
        ours = subprocess.Popen(sleep, env=os.environ | {MARK: mark}, stdout=subprocess.PIPE, start_new_session=True)
        other = subprocess.Popen(sleep, env=os.environ | {MARK: "another"}, stdout=subprocess.PIPE)
        for process in (ours, other):
            process.stdout.readline()
        with (folder / "log").open("w") as log:  # for Ray's agents overwrite their environment with their title
            logging = subprocess.Popen(["sleep", "60"], env={}, stdout=log, start_new_session=True)
            driver = subprocess.Popen(["sleep", "60"], env={"HOME": "/"}, stdout=log)
        assert marked(mark, str(folder)) == sorted([ours.pid, logging.pid])
    try:
        assert ours.wait(timeout=5) == -9
        assert logging.wait(timeout=5) == -9
        assert other.poll() is None
        assert driver.poll() is None, "who logs there with an environment of its own is a driver of somebody's"
        assert not folder.exists()
    finally:
        for process in (other, driver):
            process.kill()
            process.wait()


def test_a_driver_that_is_killed_is_cleaned_up_after(tmp_path):
    folder = tmp_path / "ray"
    folder.mkdir()
    script = (
        "import os, subprocess, sys, time, json; from tuning.on_ray.cleanup import MARK, Cleanup\n"
        f"Cleanup('mark-of-the-killed', {str(folder)!r})\n"
        "child = subprocess.Popen(['sleep', '60'], start_new_session=True,"
        " env=os.environ | {MARK: 'mark-of-the-killed'})\n"
        "print(json.dumps(child.pid), flush=True); time.sleep(60)\n"
    )
    driver = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    json.loads(driver.stdout.readline())
    driver.kill()
    driver.wait()
    deadline = time.monotonic() + 8
    while (marked("mark-of-the-killed", str(folder)) or folder.exists()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not marked("mark-of-the-killed", str(folder))
    assert not folder.exists()


def test_a_driver_that_goes_on_is_not_taken_for_what_it_left(tmp_path):
    folder = tmp_path / "ray"
    folder.mkdir()
    script = (
        "from pathlib import Path; from tuning.on_ray.cleanup import Cleanup\n"
        f"folder = Path({str(folder)!r}); log = (folder / 'driver.log').open('w')\n"
        "with Cleanup('mark-of-the-living', str(folder)): pass\n"
        "print('goes on')\n"
    )
    driver = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert driver.stdout == "goes on\n"
    assert not folder.exists()
