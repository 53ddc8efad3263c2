"""The memory that is available to this process, considering the limits of its container."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

GROUPS = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
# The files of a control group with limit and usage, and the statistic for cached files. Version 2
# has one hierarchy, and version 1 has a separate one for memory.
FILES = {
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def available(groups: Path = GROUPS, own: Path = OWN) -> int:
    """The available memory in bytes."""
    return min([int(psutil.virtual_memory().available), *_left(groups, own)])


def _left(groups: Path, own: Path) -> Iterator[int]:
    """The memory that each limit on this process leaves."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in FILES:
            continue
        folder = groups / controllers
        # A container sees either its parent groups or its own group as the root.
        group = Path(path.lstrip("/"))
        for above in [group, *group.parents]:
            yield from _left_by(folder / above, *FILES[controllers])


def _left_by(group: Path, most_file: str, used_file: str, detail: str) -> Iterator[int]:
    try:
        most = (group / most_file).read_text().strip()
        used = int((group / used_file).read_text())
        rows = (line.split() for line in (group / "memory.stat").read_text().splitlines())
        cached = next(int(size) for name, size in rows if name == detail)
    except (OSError, StopIteration, ValueError):
        return
    if most != "max":
        # The kernel reclaims cached files if necessary.
        yield int(most) - used + cached
