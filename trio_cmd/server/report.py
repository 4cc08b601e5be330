"""What the process is made of at this moment: tasks, threads, descriptors and memory leave as values."""

import contextlib
import os
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import trio

__all__ = ["make_report"]

# With these a report is one line of the record, whatever the tasks are called.
MAX_NAMES = 24
MAX_NAME_CHARACTERS = 80


def make_report(limiters: Mapping[str, Sequence[int]], queues: Mapping[str, int]) -> dict[str, Any]:
    """Give the fields of a report.

    Args:
        limiters: name -> how many there are, how many may be.
        queues: name -> how many wait.
    """
    return {
        "tasks": _count_tasks(),
        "threads": threading.active_count(),
        "descriptors": _count_descriptors(),
        "memory": _measure_memory(),
        "limiters": limiters,
        "queues": queues,
    }


def _count_tasks() -> dict[str, Any]:
    """Count all tasks, and those of each function; of many functions those that have most."""
    root = trio.lowlevel.current_root_task()
    assert root is not None
    names = Counter(_shorten(task.name) for task in _tasks_below(root))
    return {"count": names.total(), **dict(names.most_common(MAX_NAMES))}


def _tasks_below(root: trio.lowlevel.Task) -> Iterator[trio.lowlevel.Task]:
    tasks = [root]
    while tasks:
        task = tasks.pop()
        yield task
        for nursery in task.child_nurseries:
            tasks += nursery.child_tasks


def _shorten(name: str) -> str:
    return name.removeprefix("trio_cmd.")[:MAX_NAME_CHARACTERS]


def _count_descriptors() -> int | None:
    """Count the open descriptors; ``None`` where the system does not tell."""
    try:
        return len(os.listdir("/proc/self/fd")) - 1  # that of the list itself
    except OSError:
        return None


def _measure_memory() -> dict[str, int]:
    """Give the memory in bytes: all of it (``rss``), and without what others share (``pss``)."""
    return {
        **_read_sizes("/proc/self/status", {"VmRSS": "rss_bytes", "VmHWM": "rss_most_bytes"}),
        **_read_sizes("/proc/self/smaps_rollup", {"Pss": "pss_bytes"}),
    }


def _read_sizes(path: str, names: Mapping[str, str]) -> dict[str, int]:
    """Take sizes in kB from a file of proc(5); nothing where there is none, or it may not be read."""
    sizes = {}
    with contextlib.suppress(OSError), open(path, encoding="utf-8") as file:
        for line in file:
            key, _, value = line.partition(":")
            if key in names:
                sizes[names[key]] = int(value.split()[0]) * 1024
    return sizes
