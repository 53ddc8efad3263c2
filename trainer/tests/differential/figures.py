"""Figures of all comparisons, which pytest prints at the end."""

from __future__ import annotations

from collections import defaultdict

# How far apart the weights of two runs were, by the kind of comparison.
FIGURES: dict[str, list[float]] = defaultdict(list)
