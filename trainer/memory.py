"""How much memory this process may still take: the container's limit counts, where it has one."""

from __future__ import annotations

from pathlib import Path

import psutil

# The interface of control groups: version 2, which Kubernetes' limits are in.
GROUP = Path("/sys/fs/cgroup")


def available(group: Path = GROUP) -> int:
    """Bytes."""
    free = int(psutil.virtual_memory().available)
    try:
        most = (group / "memory.max").read_text().strip()
        used = int((group / "memory.current").read_text())
        rows = (line.split() for line in (group / "memory.stat").read_text().splitlines())
        cached = next(int(size) for name, size in rows if name == "inactive_file")
    except (OSError, StopIteration):
        return free
    # What files have in memory is given back when it is needed.
    return free if most == "max" else min(free, int(most) - used + cached)
