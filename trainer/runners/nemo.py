"""NeMo: whichever of its libraries the image has."""

from __future__ import annotations

import importlib
import importlib.util

from run import TrainingError
from runners import lacks
from session import Session

# Each library by the package that it is found by, with the file that starts it; the first wins.
LIBRARIES = {"nemo_automodel": "runners.nemo_automodel"}
# Libraries that were before it, and whose jobs this image does not start.
OTHERS = {"megatron": "Megatron-Bridge", "nemo": "NeMo 2"}


def run(session: Session) -> None:
    """Trains one run to its end."""
    for package, module in LIBRARIES.items():
        if importlib.util.find_spec(package) is not None:
            importlib.import_module(module).train(session)
            return
    for package, name in OTHERS.items():
        if importlib.util.find_spec(package) is not None:
            raise TrainingError(
                f"framework nemo: this image has {name}, which train.py does not start; set "
                f"`image` to one with nemo_automodel, or with a train.py of your own"
            )
    raise lacks("framework nemo", "nemo_automodel")
