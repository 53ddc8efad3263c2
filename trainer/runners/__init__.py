"""The runners by framework. Each is a module with a `run` function, imported on demand."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from run import Terminated, TrainingError
from session import Session
from storage import reason

# To add a framework, add a module to this package and a line to this table.
Runner = Callable[[Session], None]
RUNNERS = {"hf": "runners.hf", "meta": "runners.meta", "nemo": "runners.nemo"}


def find(framework: str) -> Runner:
    """Returns the runner of a framework, or raises an error that says why there is none."""
    if framework not in RUNNERS:
        known = ", ".join(sorted(RUNNERS))
        raise TrainingError(f"framework {framework}: no runner in train.py; available: {known}")
    try:
        runner: Runner = importlib.import_module(RUNNERS[framework]).run
    except ModuleNotFoundError as error:
        raise lacks(f"framework {framework}", error.name or "a package") from error
    return runner


# Permanent errors. A RuntimeError may come from the network or another process.
LASTING = (
    ArithmeticError, AssertionError, AttributeError, LookupError, NotImplementedError, TypeError,
    ValueError,
)  # fmt: skip


@contextmanager
def explained(
    what: str,
    remedy: str = "",
    others: tuple[type[Exception], ...] = (),
    has_begun: Callable[[], bool] = lambda: True,
) -> Iterator[None]:
    """Converts an error of a library to one line: what failed, its message, and the remedy.

    Transient errors, such as those of the network, pass through. `others` are additional types
    of permanent errors. Before a run has begun, a RuntimeError is permanent too.
    """
    hint = f"; {remedy}" if remedy else ""
    lasting: tuple[type[Exception], ...] = (*LASTING, *others)
    try:
        yield
    except Terminated:
        raise
    except TrainingError as error:
        if (words := _of_worker(error)) is None:
            raise
        raise TrainingError(words) from error
    except ImportError as error:
        raise TrainingError(
            f"{what}: {reason(error)}; set `image` to one that contains the package{hint}"
        ) from error
    except lasting as error:
        raise TrainingError(f"{what}: {reason(error)}{hint}") from error
    except Exception as error:
        if "out of memory" in str(error).lower():
            raise TrainingError(
                f"out of memory ({reason(error)}): lower batch_size or max_seq_len, or recompute "
                f"activations (gradient_checkpointing, activation_checkpoint)"
            ) from error
        # Some libraries raise plain exceptions for invalid input.
        if type(error) is Exception or (_is_of_the_job(error) and not has_begun()):
            raise TrainingError(f"{what}: {reason(error)}{hint}") from error
        raise


def _of_worker(error: TrainingError) -> str | None:
    """The message of an error in a data loader worker, without the traceback of PyTorch."""
    words = str(error)
    if not words.startswith("Caught "):
        return None
    return words.strip().splitlines()[-1].partition("TrainingError: ")[2]


def _is_of_the_job(error: Exception) -> bool:
    """Whether an error is a RuntimeError that concerns neither the network nor a device."""
    passing = ("gloo", "nccl", "cuda error", "connection", "timed out")
    named = any(word in str(error).lower() for word in passing)
    return isinstance(error, RuntimeError) and not named


def lacks(what: str, package: str) -> TrainingError:
    """The error for a missing package."""
    return TrainingError(
        f"{what}: package {package} is not installed in this image; set `image` to one that has it"
    )
