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
# Backends whose packages cannot keep what a run is promised, each with the reason.
OTHERS = {
    # recipes/full_finetune_distributed.py of torchtune 0.6.1, its last release.
    "torchtune": "it saves at the ends of epochs alone, and not at which step that was",
    # utils/train_utils.py and finetuning.py of llama-cookbook 0.0.5, its last release.
    "llama_cookbook": "it saves at the ends of epochs alone, and goes on with adapters alone",
}


def run(session: Session) -> None:
    """Trains one run to its end."""
    arguments = Arguments.read(session.run.arguments)
    backend = arguments.backend
    if backend not in BACKENDS:
        known, why = " or ".join(BACKENDS), OTHERS.get(backend, "it is unknown")
        raise TrainingError(
            f"backend {backend}: train.py does not start it: {why}; "
            f"set backend to {known}, or `image` to one with a train.py of your own"
        )
    module, package = BACKENDS[backend]
    if package and importlib.util.find_spec(package) is None:
        raise lacks(f"backend {backend}", package)
    importlib.import_module(module).train(session, arguments)
