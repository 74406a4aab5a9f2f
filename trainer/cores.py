"""The machine's cores, and how processes share them. Nothing here imports torch."""

import os


def cores_of_process() -> int:
    """Return how many CPU cores are this process's: those it may run on, shared with the others of its node.

    Fewer than the machine has, in many a container or job. A launcher says how many processes a node has.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")), 1)


def default_workers(most: int) -> int:
    """Return how many processes decode images unless it is said: one a core, `most` at most."""
    return min(most, cores_of_process())


def default_threads(num_workers: int) -> int:
    """Return how many threads compute unless it is said: one for each core that the workers leave, one at least."""
    return max(cores_of_process() - num_workers, 1)
