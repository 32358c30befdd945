"""How much memory is left."""

from pathlib import Path


def available_memory() -> int | None:
    """Bytes that can be taken without swapping, within this process's control group; None where that is not known."""
    left = [number for number in (_of_machine(), _of_control_group()) if number is not None]
    return min(left, default=None)


def _of_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _of_control_group() -> int | None:
    """Of version 2, as containers have it; what files take in the page cache counts as free."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
        statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return None if limit == "max" else max(int(limit) - used + int(statistics.get("file", 0)), 0)
    except (OSError, ValueError):
        return None
