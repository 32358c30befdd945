"""How many CPUs there are for us."""

import os


def num_available_cpus() -> int:
    """CPUs that this process may run on, which in a container or under taskset are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
