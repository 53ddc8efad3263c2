"""NeMo: whichever of its libraries the image has."""

from __future__ import annotations

import importlib
import importlib.util

from runners import lacks
from session import Session

# Each library by the package that it is found by, with the file that starts it; the first wins.
LIBRARIES: dict[str, str] = {}


def run(session: Session) -> None:
    """Trains one run to its end."""
    for package, module in LIBRARIES.items():
        if importlib.util.find_spec(package) is not None:
            importlib.import_module(module).train(session)
            return
    raise lacks("framework nemo", "nemo_automodel (or megatron.bridge, or nemo)")
