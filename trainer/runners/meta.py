"""The meta runner: Llama models, trained with a plain FSDP loop or with torchtitan."""

from __future__ import annotations

import importlib.util

import resolved
import session as sessions
from run import TrainingError
from runners import lacks
from runners.meta_arguments import Arguments
from session import Session

# The module of each backend, and the package that it needs in addition to PyTorch.
BACKENDS = {
    "fsdp": ("runners.meta_loop", None),
    "torchtitan": ("runners.meta_torchtitan", "torchtitan"),
}
# Backends that the plugin refuses, and the reasons.
OTHERS = {
    # recipes/full_finetune_distributed.py of torchtune 0.6.1, its last release.
    "torchtune": "it saves only at the ends of epochs and does not record the step",
    # utils/train_utils.py and finetuning.py of llama-cookbook 0.0.5, its last release.
    "llama_cookbook": "it saves only at the ends of epochs and resumes only adapters",
}


def run(session: Session) -> None:
    """Trains one run to completion."""
    device = sessions.device_of(session.run)
    arguments = Arguments.read(resolved.for_device(session.run, device))
    backend = arguments.backend
    if backend not in BACKENDS:
        known, why = " or ".join(BACKENDS), OTHERS.get(backend, "it is unknown")
        raise TrainingError(
            f"backend {backend}: not supported: {why}; "
            f"set backend to {known}, or `image` to one with your own train.py"
        )
    module, package = BACKENDS[backend]
    if package and importlib.util.find_spec(package) is None:
        raise lacks(f"backend {backend}", package)
    importlib.import_module(module).train(session, arguments, device)
