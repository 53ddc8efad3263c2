"""The NeMo runner, which uses the NeMo library that the image contains."""

from __future__ import annotations

import importlib
import importlib.util

from run import TrainingError
from runners import lacks
from session import Session

# Package of each library, and the module that runs it. The first one that is installed is used.
LIBRARIES = {
    "nemo_automodel": "runners.nemo_automodel",
    "megatron.bridge": "runners.nemo_bridge",
}


def run(session: Session) -> None:
    """Trains one run to its end."""
    for package, module in LIBRARIES.items():
        if has(package):
            importlib.import_module(module).train(session)
            return
    if has("nemo"):
        # NVIDIA replaced NeMo 2 with the other libraries, which use other checkpoint formats.
        raise TrainingError(
            "framework nemo: this image has NeMo 2, which train.py does not support; set `image` "
            "to one with nemo_automodel or megatron-bridge, or with your own train.py"
        )
    raise lacks("framework nemo", "nemo_automodel or megatron-bridge")


def has(package: str) -> bool:
    """Whether a package is installed. Several libraries share the package `megatron`."""
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False
