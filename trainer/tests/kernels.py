"""Stubs of packages that need a GPU, so that libraries can import them without one."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

# Packages that the configuration of Megatron-Bridge imports but never calls.
PACKAGES = frozenset(
    {"causal_conv1d", "fla", "mamba_ssm", "modelopt", "nvidia_resiliency_ext", "transformer_engine"}
)


class Name(type):
    """A class with an attribute of every name, which is a class too."""

    def __getattr__(cls, name: str) -> Name:
        if name.startswith("__"):
            raise AttributeError(name)
        return Name(name, (), {})


class Module(types.ModuleType):
    """A module with a class of every name."""

    __version__ = "2.10.0"

    def __getattr__(self, name: str) -> Name:
        if name.startswith("__"):
            raise AttributeError(name)
        return Name(name, (), {})


class Kernels(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the stubs if no other package is installed."""

    def find_spec(
        self, name: str, _path: Sequence[str] | None, _target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] not in PACKAGES:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> Module:
        return Module(spec.name)

    def exec_module(self, _module: types.ModuleType) -> None:
        """Executes nothing, because the module is empty."""


@contextmanager
def pretended() -> Iterator[None]:
    """Makes the stubs importable within a context."""
    finder = Kernels()
    sys.meta_path.append(finder)
    yield
    sys.meta_path.remove(finder)
    for name in [name for name in sys.modules if name.partition(".")[0] in PACKAGES]:
        if isinstance(sys.modules[name], Module):
            del sys.modules[name]
