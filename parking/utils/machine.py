"""Find how many CPUs and how much memory this process may use."""

import os
from pathlib import Path


def num_available_cpus() -> int:
    """Return the number of CPUs that this process may use, which a container or taskset may limit."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_memory() -> int | None:
    """Return how many bytes can be used without swapping, within the control group's limit; None if unknown."""
    left = [number for number in (_of_machine(), _of_control_group()) if number is not None]
    return min(left, default=None)


def _of_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _of_control_group() -> int | None:
    """Return the free bytes of the control group (version 2, as in containers), with the page cache counted as free."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
        statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return None if limit == "max" else max(int(limit) - used + int(statistics.get("file", 0)), 0)
    except (OSError, ValueError):
        return None
