"""NeMo: whichever of its libraries the image has."""

from __future__ import annotations

import importlib
import importlib.util

from run import TrainingError
from runners import lacks
from session import Session

# Each library by the package that it is found by, with the file that starts it; the first wins.
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
        # Its makers have gone on with the others, which read and write other checkpoints.
        raise TrainingError(
            "framework nemo: this image has NeMo 2, which train.py does not start; set `image` to "
            "one with nemo_automodel or megatron-bridge, or with a train.py of your own"
        )
    raise lacks("framework nemo", "nemo_automodel or megatron-bridge")


def has(package: str) -> bool:
    """Whether a package is there; `megatron` is one that several libraries share."""
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False
