"""What the server of forked processes imports, once for all of them."""

from __future__ import annotations

import importlib

import processes

for name in processes.PRELOAD:
    importlib.import_module(name)
