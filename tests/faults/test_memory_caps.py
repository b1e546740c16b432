"""Capped functions inside Ray actors, whose process is Ray's: it is started, and ended, as Ray sees fit."""

import os
import time
from pathlib import Path

import hogs
import psutil
import pytest
from capped_calls import all_gone, members

FOLDERS = os.pathsep.join(str(Path(file).parent) for file in (__file__, hogs.__file__))


@pytest.fixture(scope="module")
def ray(tmp_path_factory):
    os.environ["RAY_AUTH_MODE"] = "disabled"  # else Ray leaves a token file in the home folder
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=80_000_000,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": FOLDERS}},
        _temp_dir=str(tmp_path_factory.mktemp("ray")),
    )
    yield ray
    ray.shutdown()


class Worker:
    def run(self, name: str, *args: object, cap_mb: float) -> tuple[object, ...]:
        from tuning.capped.run_capped import run_capped

        result = run_capped(getattr(hogs, name), *args, cap_mb=cap_mb)
        return result.outcome, result.value, result.floor_mb, result.duration_s

    def run_family(self, pids: str) -> None:
        from tuning.capped.run_capped import run_capped

        run_capped(hogs.with_family, pids, cap_mb=300, on_message=lambda _: Path(f"{pids}.whole").touch())

    def who(self) -> int:
        return os.getpid()


def test_a_child_of_an_actor_holds_nothing_of_ray(ray):
    actor = ray.remote(Worker).remote()
    outcome, value, floor, duration = ray.get(actor.run.remote("add", 1, 2, cap_mb=100))
    assert (outcome, value) == ("completed", 3)
    assert floor < 20
    assert duration < 0.5
    assert ray.get(actor.run.remote("grow", cap_mb=200))[0] == "memory_cap"
    ray.kill(actor)


@pytest.mark.parametrize("end", ["killed by Ray", "SIGKILL"])
def test_nothing_outlives_an_actor(ray, tmp_path, end):
    actor = ray.remote(Worker).options(max_concurrency=2).remote()
    worker = ray.get(actor.who.remote())
    actor.run_family.remote(str(tmp_path / "pids"))
    while not (tmp_path / "pids.whole").exists():
        time.sleep(0.05)
    family = members(tmp_path / "pids")
    assert len(family) == 3
    if end == "killed by Ray":
        ray.kill(actor)
    else:
        psutil.Process(worker).kill()
    assert all_gone(family, within_s=10)
