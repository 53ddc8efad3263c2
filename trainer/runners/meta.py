"""Meta's Llama: a plain FSDP loop, or the stack that `backend` names."""

from __future__ import annotations

import importlib

from runners import lacks
from runners.meta_arguments import Arguments
from session import Session

# Each loop by the name of its backend, with the package that it needs beside PyTorch.
BACKENDS = {
    "fsdp": ("runners.meta_loop", None),
    "torchtitan": ("runners.meta_torchtitan", "torchtitan"),
    "torchtune": ("runners.meta_torchtune", "torchtune"),
    "llama_cookbook": ("runners.meta_cookbook", "llama_cookbook"),
}


def run(session: Session) -> None:
    """Trains one run to its end."""
    arguments = Arguments.read(session.run.arguments)
    module, package = BACKENDS[arguments.backend]
    if package and importlib.util.find_spec(package) is None:
        raise lacks(f"backend {arguments.backend}", package)
    importlib.import_module(module).train(session, arguments)
