"""Modules that the fork server imports once for all processes."""

from __future__ import annotations

import importlib

import processes

for name in processes.PRELOAD:
    importlib.import_module(name)
