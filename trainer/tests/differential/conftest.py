"""Prints the figures of the comparisons after the tests."""

from __future__ import annotations

from typing import Any

from differential.figures import FIGURES


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Prints a line for each kind of comparison."""
    for kind, found in sorted(FIGURES.items()):
        terminalreporter.write_line(
            f"{kind}: {len(found)} runs, largest distance of weights {max(found):.2g}"
        )
