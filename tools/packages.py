"""Writes what the trainer image contains, by its lock files: the labels in its Dockerfile, and packages.txt.

packages.txt is for the service, which refuses jobs that need other packages. It is that of the variant for
GPUs, the default image of jobs.
"""

from __future__ import annotations

import re
from pathlib import Path

from packaging.requirements import Requirement

TRAINER = Path(__file__).parent.parent / "trainer"
LOCKS = {"cuda": "lock-cuda-hashes.txt", "cpu": "lock-hashes.txt"}
LABEL = "LABEL trainer.deepfinery/packages="


def packages(lock: str, python: str) -> list[str]:
    """The packages that pip installs from a lock file with a version of Python, as NAME==VERSION."""
    system = {
        "python_full_version": python, "python_version": python.rpartition(".")[0],
        "sys_platform": "linux", "platform_system": "Linux", "os_name": "posix",
        "platform_machine": "x86_64", "implementation_name": "cpython",
        "platform_python_implementation": "CPython", "extra": "",
    }  # fmt: skip
    lines = re.findall(r"^[a-z0-9][^\n]*==[^\n]*", lock, re.MULTILINE | re.IGNORECASE)
    locked = [Requirement(line.removesuffix(chr(92)).strip()) for line in lines]
    installed = [one for one in locked if one.marker is None or one.marker.evaluate(system)]
    return sorted(f"{one.name}{one.specifier}" for one in installed)


def labelled(dockerfile: str) -> str:
    """The Dockerfile with the label of each variant."""
    python = re.search(r"^ARG PYTHON=([0-9.]+)", dockerfile, re.MULTILINE)
    assert python, "the Dockerfile names no version of Python"
    for variant, lock in LOCKS.items():
        line = LABEL + '"' + " ".join(packages((TRAINER / lock).read_text(), python[1])) + '"'
        stage = rf"(^FROM base AS {variant}$.*?^){LABEL}[^\n]*"
        dockerfile = re.sub(
            stage, lambda found: found[1] + line, dockerfile, flags=re.MULTILINE | re.DOTALL
        )
    return dockerfile


def main() -> None:
    """Writes both files."""
    file = TRAINER / "Dockerfile"
    file.write_text(labelled(file.read_text()))
    label = re.search(f'AS cuda$.*?{LABEL}"([^"]*)"', file.read_text(), re.MULTILINE | re.DOTALL)
    assert label, "the Dockerfile has no label"
    (TRAINER / "packages.txt").write_text("\n".join(label[1].split()) + "\n")


if __name__ == "__main__":
    main()
