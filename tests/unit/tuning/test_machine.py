import math
import os
import shutil
from pathlib import Path

import psutil
import pytest

from tuning import machine
from tuning.machine import Machine, out_of_memory_kills, this_machine

GB = 10**9
V1_NO_LIMIT = "9223372036854771712"
V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
V1_MEMORY = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"
V1_CPU = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:5 - cgroup cgroup rw,cpu,cpuacct"


@pytest.fixture(autouse=True)
def _of_24_gb_and_8_cores(monkeypatch):
    class Memory:
        total = 24 * GB
        available = 20 * GB

    monkeypatch.setattr(psutil, "virtual_memory", Memory)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


@pytest.fixture
def tree(tmp_path):
    """Makes files below a root: the groups of the process, where trees are mounted, the files of groups."""

    def make(groups: str, mounts: list[str], **folders: dict[str, object]) -> Path:
        proc = tmp_path / "proc" / "self"
        proc.mkdir(parents=True)
        (proc / "cgroup").write_text(groups)
        (proc / "mountinfo").write_text("\n".join(["22 1 8:1 / / rw - ext4 /dev/sda rw", *mounts]) + "\n")
        for folder, files in folders.items():
            path = tmp_path / "sys/fs/cgroup" / folder.strip("/")
            path.mkdir(parents=True, exist_ok=True)
            for name, content in files.items():
                (path / name).write_text(f"{content}\n")
        return tmp_path

    return make


def v2(
    limit: object = "max", used: int = 0, inactive_file: int = 0, cpu: str = "max 100000", active_file: int = 0
) -> dict[str, object]:
    stat = f"anon 1\ninactive_file {inactive_file}\nactive_file {active_file}"
    return {"memory.max": limit, "memory.current": used, "memory.stat": stat, "cpu.max": cpu}


def v1(
    limit: object, used: int = 0, inactive_file: int = 0, above: object = V1_NO_LIMIT, active_file: int = 0
) -> dict[str, object]:
    stat = (
        f"inactive_file 1\nhierarchical_memory_limit {above}\ntotal_inactive_file {inactive_file}\n"
        f"total_active_file {active_file}"
    )
    return {"memory.limit_in_bytes": limit, "memory.usage_in_bytes": used, "memory.stat": stat}


def quota(microseconds: int, period: int = 100000) -> dict[str, object]:
    return {"cpu.cfs_quota_us": microseconds, "cpu.cfs_period_us": period}


def test_without_groups_it_is_the_whole_machine(tmp_path):
    assert this_machine(tmp_path) == Machine(24 * GB, 20 * GB, 8)
    assert this_machine(tmp_path).limits is None
    assert out_of_memory_kills(tmp_path) == 0


def test_where_there_is_no_affinity_all_processors_count(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 10)
    assert this_machine(tmp_path).cores == 10


def test_a_flat_group_of_version_2(tree):
    root = tree("0::/box\n", [V2], box=v2(2 * GB, used=GB, inactive_file=GB // 4, cpu="50000 100000"))
    found = this_machine(root)
    assert (found.memory_bytes, found.available_bytes, found.cores) == (2 * GB, 2 * GB - GB + GB // 4, 0.5)
    assert found.threads == 1
    assert found.limits == "limited to 2 GB and 0.5 cores by a control group"


def test_half_of_the_file_pages_that_were_used_twice_can_be_dropped(tree, tmp_path):
    for version, groups, mount, folder in ((v2, "0::/a\n", V2, "/a"), (v1, "4:memory:/a\n", V1_MEMORY, "memory/a")):
        shutil.rmtree(tmp_path / "proc", ignore_errors=True)
        root = tree(groups, [mount], **{folder: version(2 * GB, used=GB, active_file=GB // 2)})
        assert this_machine(root).available_bytes == GB + GB // 4


def test_a_limit_of_a_group_far_above_counts(tree):
    root = tree(
        "0::/a/b/c\n",
        [V2],
        **{"/a": v2(2 * GB, cpu="150000 100000"), "/a/b": v2(3 * GB, cpu="400000 100000"), "/a/b/c": v2()},
    )
    found = this_machine(root)
    assert (found.memory_bytes, found.available_bytes, found.cores, found.threads) == (2 * GB, 2 * GB, 1.5, 2)


def test_what_is_left_is_the_least_of_any_level_not_that_of_the_smallest_limit(tree):
    root = tree("0::/a/b\n", [V2], **{"/a": v2(6 * GB, used=5 * GB), "/a/b": v2(2 * GB, used=GB // 2)})
    found = this_machine(root)
    assert (found.memory_bytes, found.available_bytes) == (2 * GB, GB)


def test_the_amount_at_which_a_group_is_slowed_down_is_its_limit(tree):
    root = tree("0::/a\n", [V2], **{"/a": v2(4 * GB, used=GB) | {"memory.high": 3 * GB}})
    assert (this_machine(root).memory_bytes, this_machine(root).available_bytes) == (3 * GB, 2 * GB)


def test_inside_a_namespace_the_root_of_what_is_seen_is_the_group(tree):
    root = tree("0::/\n", [V2], **{"/": v2(2 * GB, used=GB, cpu="50000 100000")})
    assert (this_machine(root).memory_bytes, this_machine(root).cores) == (2 * GB, 0.5)


@pytest.mark.parametrize("top", ["/docker/f00", "/docker", "/elsewhere", "/.."])
def test_a_container_whose_group_is_named_by_its_path_outside_finds_it_at_the_mount(tree, top):
    mount = V2.replace("/ /sys", f"{top} /sys")
    root = tree("0::/docker/f00\n", [mount], **{"/": v2(2 * GB), "/f00": v2(GB)})
    assert this_machine(root).memory_bytes == (GB if top == "/docker" else 2 * GB)


def test_version_1_has_a_tree_for_each_controller(tree):
    root = tree(
        "5:cpu,cpuacct:/a/b\n4:memory:/x\n1:name=systemd:/\n",
        [V1_MEMORY, V1_CPU],
        **{
            "memory": v1(V1_NO_LIMIT),
            "memory/x": v1(2 * GB, used=GB, inactive_file=GB // 2),
            "cpu,cpuacct": quota(-1),
            "cpu,cpuacct/a": quota(50000),
            "cpu,cpuacct/a/b": quota(-1),
        },
    )
    found = this_machine(root)
    assert (found.memory_bytes, found.available_bytes, found.cores) == (2 * GB, 3 * GB // 2, 0.5)


def test_version_1_reports_limits_of_groups_that_are_not_visible(tree):
    mount = V1_MEMORY.replace("/ /sys", "/docker/f00 /sys")
    root = tree("4:memory:/docker/f00\n", [mount], memory=v1(V1_NO_LIMIT, above=2 * GB))
    assert this_machine(root).memory_bytes == 2 * GB


def test_memory_with_swap_is_a_limit_too(tree):
    swap = {"memory.memsw.limit_in_bytes": 3 * GB, "memory.memsw.usage_in_bytes": 2 * GB + GB // 2}
    root = tree("4:memory:/x\n", [V1_MEMORY], **{"memory/x": v1(2 * GB, used=GB) | swap})
    assert (this_machine(root).memory_bytes, this_machine(root).available_bytes) == (2 * GB, GB // 2)


def test_both_versions_side_by_side_each_with_its_own_controllers(tree):
    unified = V2.replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
    root = tree(
        "4:memory:/x\n0::/y\n",
        [V1_MEMORY, unified],
        **{"memory/x": v1(4 * GB), "unified/y": {"cpu.max": "300000 100000"}},
    )
    assert (this_machine(root).memory_bytes, this_machine(root).cores) == (4 * GB, 3)


def test_a_limit_past_the_machine_is_none(tree):
    root = tree("0::/a\n", [V2], **{"/a": v2(64 * GB, used=GB, cpu="1600000 100000")})
    assert this_machine(root) == Machine(24 * GB, 20 * GB, 8)


@pytest.mark.parametrize("content", ["max", "", "nonsense", "-1", V1_NO_LIMIT])
def test_a_file_without_a_number_limits_nothing(tree, content):
    root = tree("0::/a\n", [V2], **{"/a": {"memory.max": content, "cpu.max": content}})
    assert this_machine(root) == Machine(24 * GB, 20 * GB, 8)


@pytest.mark.parametrize("cpu", ["50000 0", "0 100000", "50000", "max"])
def test_a_quota_that_makes_no_sense_limits_nothing(tree, cpu):
    assert this_machine(tree("0::/a\n", [V2], **{"/a": v2(cpu=cpu)})).cores == 8


def test_files_that_may_not_be_read_limit_nothing(tree):
    root = tree("0::/a\n", [V2], **{"/a": {}})
    (root / "sys/fs/cgroup/a/memory.max").mkdir()  # an error for root too
    assert this_machine(root).memory_bytes == 24 * GB


def test_a_usage_past_the_limit_leaves_nothing(tree):
    assert this_machine(tree("0::/a\n", [V2], **{"/a": v2(GB, used=2 * GB)})).available_bytes == 0


def test_a_blank_in_a_path_is_read_as_the_kernel_writes_it(tree):
    mount = V2.replace("/sys/fs/cgroup", r"/sys/fs/cgroup/my\040groups")
    root = tree("0::/a b\n", [mount], **{"my groups/a b": v2(2 * GB)})
    assert this_machine(root).memory_bytes == 2 * GB


def test_out_of_memory_kills_are_counted(tree):
    root = tree("0::/a\n", [V2], **{"/a": {"memory.events.local": "max 9\noom 3\noom_kill 2"}})
    assert out_of_memory_kills(root) == 2


@pytest.mark.parametrize(
    ("memory", "cores", "words"),
    [
        (1_500_000_000, None, "limited to 1.5 GB by a control group"),
        (None, 1.0, "limited to 1 core by a control group"),
        (None, 1.25, "limited to 1.25 cores by a control group"),
    ],
)
def test_limits_in_words(memory, cores, words):
    assert Machine(1, 1, cores or 8, memory, cores).limits == words


def test_the_real_machine_is_never_larger_than_it_is():
    found = this_machine()
    assert 0 <= found.available_bytes <= found.memory_bytes <= 24 * GB
    assert 0 < found.cores <= 8
    assert machine.this_machine().threads == max(1, math.ceil(found.cores))
