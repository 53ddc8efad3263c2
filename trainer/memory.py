"""How much memory this process may still take: the container's limit counts, where it has one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

GROUPS = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
# The files of a control group with limit, use and details, and the detail that files take: of
# version 2, and of version 1, whose memory has a hierarchy of its own.
FILES = {
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def available(groups: Path = GROUPS, own: Path = OWN) -> int:
    """Bytes."""
    return min([int(psutil.virtual_memory().available), *_left(groups, own)])


def _left(groups: Path, own: Path) -> Iterator[int]:
    """What each limit leaves that this process is under."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in FILES:
            continue
        folder = groups / controllers
        # A container may see the groups above it, or its own as the first.
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
        # What files have in memory is given back when it is needed.
        yield int(most) - used + cached
