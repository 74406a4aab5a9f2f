"""The machine's cores, and how processes share them. Nothing here imports torch."""

import os


def available_cores() -> int:
    """Return how many CPU cores this process may run on: fewer than the machine has, in many a container or job."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_workers(most: int) -> int:
    """Return how many processes decode images unless it is said: one a core, `most` at most."""
    return min(most, available_cores())
