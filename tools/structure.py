"""Checks the structure of the Rust crates: no cycle of imports between the modules of a crate, and no
file that is too long."""

import re
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

CRATES = [
    "core/src",
    "host/src",
    "plugins/sdk/src",
    "plugins/hf/src",
    "plugins/meta/src",
    "plugins/nemo/src",
]
MAX_LINES = 400
USE = re.compile(r"\bcrate::(?:\{([^}]*)\}|(\w+))")
TESTS = re.compile(r"#\[cfg\(test\)\]\s*mod \w+ \{.*", re.DOTALL)


def module_of(crate: Path, file: Path) -> str:
    """The module of the crate's root that a file belongs to."""
    return file.relative_to(crate).parts[0].removesuffix(".rs")


def imports(file: Path) -> set[str]:
    """The modules of the crate's root that a file names, tests and comments aside."""
    text = TESTS.sub("", re.sub(r"//.*", "", file.read_text()))
    several_or_one = USE.findall(text)
    named = ",".join(several or one for several, one in several_or_one)
    return set(re.findall(r"(?:^|,)\s*(\w+)", named))


def cycle(crate: Path) -> str | None:
    """A cycle of imports, or None."""
    graph: dict[str, set[str]] = {}
    for file in crate.rglob("*.rs"):
        if file.stem not in ("lib", "main", "tests"):
            module = module_of(crate, file)
            graph.setdefault(module, set()).update(imports(file) - {module})
    sorter = TopologicalSorter({module: used & graph.keys() for module, used in graph.items()})
    try:
        sorter.prepare()
    except CycleError as error:
        return " -> ".join(error.args[1])
    return None


def main() -> int:
    faults = []
    for crate in map(Path, CRATES):
        if found := cycle(crate):
            faults.append(f"{crate}: modules import each other: {found}")
        for file in crate.rglob("*.rs"):
            lines = len(file.read_text().splitlines())
            if lines > MAX_LINES:
                faults.append(f"{file}: {lines} lines; split files of more than {MAX_LINES}")
    print("\n".join(faults), end="\n" if faults else "", file=sys.stderr)
    return 1 if faults else 0


sys.exit(main())
