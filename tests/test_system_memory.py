"""What memory is free within the limits of control groups, and what is given back."""

import functools
import platform

import psutil
import pytest

from sft.system import memory
from sft.system.memory import Room, available_bytes, give_back, relieve

GIB = 2**30


def group(directory, **files):
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (directory / name.replace("__", ".")).write_text(f"{content}\n")


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A machine of which 20 GiB are free."""
    free = psutil.virtual_memory()._replace(available=20 * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    (tmp_path / "proc/self").mkdir(parents=True)
    return tmp_path


def test_without_limits_the_machines_free_memory_counts(root):
    assert available_bytes(root) == 20 * GIB
    (root / "proc/self/cgroup").write_text("0::/user.slice\n")
    group(root / "sys/fs/cgroup/user.slice", memory__max="max", memory__current=GIB, memory__stat="inactive_file 0")
    assert available_bytes(root) == 20 * GIB


def test_the_tightest_limit_around_the_process_counts_and_files_in_memory_do_not(root):
    (root / "proc/self/cgroup").write_text("0::/pod/container\n")
    tree = root / "sys/fs/cgroup"
    group(tree / "pod", memory__max=8 * GIB, memory__current=5 * GIB, memory__stat=f"anon 1\ninactive_file {2 * GIB}")
    group(tree / "pod/container", memory__max=16 * GIB, memory__current=3 * GIB, memory__stat="inactive_file 0")
    assert available_bytes(root) == 5 * GIB


def test_the_limit_above_which_a_process_is_slowed_down_counts_too(root):
    (root / "proc/self/cgroup").write_text("0::/job\n")
    limits = {"memory__max": "max", "memory__high": 4 * GIB}
    group(root / "sys/fs/cgroup/job", memory__current=GIB, memory__stat="inactive_file 0", **limits)
    assert available_bytes(root) == 3 * GIB


def test_inside_a_container_the_tree_begins_at_its_group(root):
    (root / "proc/self/cgroup").write_text("0::/\n")
    tree = root / "sys/fs/cgroup"
    group(tree, memory__max=4 * GIB, memory__current=3 * GIB, memory__stat="inactive_file 0")
    assert available_bytes(root) == GIB
    group(tree, memory__current=5 * GIB)  # for a moment
    assert available_bytes(root) == 0


def test_version_one_has_a_tree_for_memory_alone(root):
    (root / "proc/self/cgroup").write_text("5:cpu,cpuacct:/a\n4:memory:/a/b\n0::/\n")
    usage = {"memory__limit_in_bytes": 6 * GIB, "memory__usage_in_bytes": 2 * GIB}
    group(root / "sys/fs/cgroup/memory/a/b", memory__stat=f"cache 1\ntotal_inactive_file {GIB}", **usage)
    assert available_bytes(root) == 5 * GIB
    nothing = {"memory__limit_in_bytes": 2**63 - 4096, "memory__usage_in_bytes": 0}
    group(root / "sys/fs/cgroup/memory/a/b", **nothing)
    assert available_bytes(root) == 20 * GIB


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator gives holes back when asked")
def test_holes_between_blocks_are_the_systems_again():
    import numpy as np

    process = psutil.Process()
    blocks = [np.ones(64 * 1024 // 8) for _ in range(4096)]  # 256 MiB, in blocks that are not mapped each by itself
    del blocks[::2]
    before = process.memory_info().rss
    give_back()
    assert before - process.memory_info().rss > 100 * 2**20


def test_it_is_given_back_now_and_then_and_always_where_memory_is_scarce(monkeypatch):
    given: list[int] = []
    small, large = Room(GIB, 4 * GIB), Room(5 * GIB, 64 * GIB)
    for step in range(25):
        monkeypatch.setattr(memory, "give_back", functools.partial(given.append, step))
        found = [small, large] if step == 3 else [small._replace(left=GIB // 4)] if step == 4 else [small]
        monkeypatch.setattr(memory, "rooms", functools.partial(list, found))
        relieve(step)
    assert given == [0, 3, 4, 10, 20]
