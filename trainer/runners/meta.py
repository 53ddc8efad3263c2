"""Meta's Llama: a plain FSDP loop, or the stack that `backend` names."""

from __future__ import annotations

import importlib.util

from run import TrainingError
from runners import lacks
from runners.meta_arguments import Arguments
from session import Session

# Each loop by the name of its backend, with the package that it needs beside PyTorch.
BACKENDS = {
    "fsdp": ("runners.meta_loop", None),
    "torchtitan": ("runners.meta_torchtitan", "torchtitan"),
}


def run(session: Session) -> None:
    """Trains one run to its end."""
    arguments = Arguments.read(session.run.arguments)
    backend = arguments.backend
    if backend not in BACKENDS:
        # torchtune and llama_cookbook are recipes with command lines of their own.
        known = " or ".join(BACKENDS)
        raise TrainingError(f"backend {backend}: train.py cannot start it; set backend to {known}")
    module, package = BACKENDS[backend]
    if package and importlib.util.find_spec(package) is None:
        raise lacks(f"backend {backend}", package)
    importlib.import_module(module).train(session, arguments)
