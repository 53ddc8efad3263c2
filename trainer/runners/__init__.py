"""The runners by framework: each one file with a `run` function, imported when asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from run import Terminated, TrainingError
from session import Session
from storage import reason

# What a framework is to this program. A new one is a file here and a line in this table.
Runner = Callable[[Session], None]
RUNNERS = {"hf": "runners.hf", "meta": "runners.meta", "nemo": "runners.nemo"}


def find(framework: str) -> Runner:
    """The runner of a framework, or the one line that says why there is none."""
    if framework not in RUNNERS:
        known = ", ".join(sorted(RUNNERS))
        raise TrainingError(f"framework {framework}: unknown to train.py; known: {known}")
    try:
        runner: Runner = importlib.import_module(RUNNERS[framework]).run
    except ModuleNotFoundError as error:
        raise lacks(f"framework {framework}", error.name or "a package") from error
    return runner


# Errors that the same job meets again. A RuntimeError may be the network or another process.
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
    """Makes an error of a library one line: what it refuses, its words, and what to change.

    Errors that another try may pass, such as those of the network, are left as they are; `others`
    are types that last here beside those that always do. Until a run has begun, a RuntimeError is
    about the job, too.
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
            f"{what}: {reason(error)}; set `image` to one that has the package{hint}"
        ) from error
    except lasting as error:
        raise TrainingError(f"{what}: {reason(error)}{hint}") from error
    except Exception as error:
        if "out of memory" in str(error).lower():
            raise TrainingError(
                f"out of memory ({reason(error)}): lower batch_size or max_seq_len, or compute "
                f"activations again (gradient_checkpointing, activation_checkpoint)"
            ) from error
        # A library may have no type of its own for what it refuses.
        if type(error) is Exception or (_is_of_the_job(error) and not has_begun()):
            raise TrainingError(f"{what}: {reason(error)}{hint}") from error
        raise


def _of_worker(error: TrainingError) -> str | None:
    """What a worker of a data loader met, without the traceback that PyTorch adds."""
    words = str(error)
    if not words.startswith("Caught "):
        return None
    return words.strip().splitlines()[-1].partition("TrainingError: ")[2]


def _is_of_the_job(error: Exception) -> bool:
    """Whether a RuntimeError is neither of the network nor of a device."""
    passing = ("gloo", "nccl", "cuda error", "connection", "timed out")
    named = any(word in str(error).lower() for word in passing)
    return isinstance(error, RuntimeError) and not named


def lacks(what: str, package: str) -> TrainingError:
    """What is said where a package is not there."""
    return TrainingError(
        f"{what}: this image lacks the package {package}; set `image` to one that has it"
    )
