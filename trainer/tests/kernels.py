"""Packages that are compiled for a GPU, as names alone: what imports them needs none."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

# What Megatron-Bridge's configuration imports and never calls.
PACKAGES = frozenset(
    {"causal_conv1d", "fla", "mamba_ssm", "modelopt", "nvidia_resiliency_ext", "transformer_engine"}
)


class Name(type):
    """A class that has a class of every name."""

    def __getattr__(cls, name: str) -> Name:
        if name.startswith("__"):
            raise AttributeError(name)
        return Name(name, (), {})


class Module(types.ModuleType):
    """A module that has a class of every name."""

    __version__ = "2.10.0"

    def __getattr__(self, name: str) -> Name:
        if name.startswith("__"):
            raise AttributeError(name)
        return Name(name, (), {})


class Kernels(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the packages where nothing else does."""

    def find_spec(
        self, name: str, _path: Sequence[str] | None, _target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] not in PACKAGES:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> Module:
        return Module(spec.name)

    def exec_module(self, _module: types.ModuleType) -> None:
        """There is nothing in it."""


@contextmanager
def pretended() -> Iterator[None]:
    """Lets the packages be imported for a while."""
    finder = Kernels()
    sys.meta_path.append(finder)
    yield
    sys.meta_path.remove(finder)
    for name in [name for name in sys.modules if name.partition(".")[0] in PACKAGES]:
        if isinstance(sys.modules[name], Module):
            del sys.modules[name]
