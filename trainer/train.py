"""The entry point of the trainer image: parses the plugin's command and runs a framework."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import failure
import repeat
import resolved
import runners
import session
from run import Run, Terminated, TrainingError

# Options that the host also sets as environment variables, so that flags are optional.
OPTIONS = {
    "framework": "FRAMEWORK",
    "run_id": "RUN_ID",
    "model_id": "MODEL_ID",
    "checkpoint_base_uri": "CHECKPOINT_BASE_URI",
    "checkpoint_prefix": "CHECKPOINT_PREFIX",
    "dataset_uri": "DATASET_URI",
    "logs_uri": "LOGS_URI",
    "config_uri": "CONFIG_URI",
    "config": "CONFIG_PATH",
}
# The arguments that the job sets, with types.
GIVEN = "TRAINING_EXTRA_ARGS_JSON"
REQUIRED = ("framework", "run_id", "model_id", "checkpoint_prefix", "dataset_uri")
# Exit code after SIGTERM: the run was interrupted and has not succeeded.
EXIT_CODE_TERMINATED = 128 + signal.SIGTERM


def main(argv: Sequence[str], environment: Mapping[str, str]) -> int:
    """Trains and returns the exit code: 0 on success, 78 for a permanent error, otherwise 1."""
    if repeat.already_failed(environment):
        return repeat.EXIT_CODE_PERMANENT
    try:
        run = read_command(argv, environment)
        runner = runners.find(run.framework)
        with session.opened(run) as opened:
            runner(opened)
    except Terminated:
        return EXIT_CODE_TERMINATED
    except TrainingError as error:
        return failure.report(error, environment)
    except Exception as error:
        text = traceback.format_exception_only(error)[-1]
        failure.report_to_torchrun(text, environment)
        raise
    return 0


class Parser(argparse.ArgumentParser):
    """Reports errors in the command line like all other errors."""

    def error(self, message: str) -> NoReturn:
        """Raises an error instead of printing the usage, which does not help API clients."""
        raise TrainingError(message)


def read_command(argv: Sequence[str], environment: Mapping[str, str]) -> Run:
    """Parses the options and the arguments of the framework that follow them."""
    # With abbreviations, argparse would accept `--dataset x` as --dataset-uri.
    parser = Parser(prog="train.py", allow_abbrev=False)
    for option, variable in OPTIONS.items():
        flag = "--" + option.replace("_", "-")
        parser.add_argument(flag, dest=option, default=environment.get(variable))
    resume = environment.get("RESUME_FROM_CHECKPOINT") == "1"
    parser.add_argument("--resume", action="store_true", default=resume)
    options, rest = parser.parse_known_args(argv)
    missing = [name for name in REQUIRED if not getattr(options, name)]
    if missing:
        flags = ", ".join("--" + name.replace("_", "-") for name in missing)
        raise TrainingError(f"missing required options: {flags}")
    prefix = options.checkpoint_prefix.rstrip("/")
    given = read_arguments(rest, environment)
    return Run(
        framework=options.framework,
        run_id=options.run_id,
        model_id=options.model_id,
        dataset_uri=options.dataset_uri,
        checkpoints_uri=f"{prefix}/checkpoints",
        logs_uri=options.logs_uri or f"{prefix}/logs",
        config_uri=options.config_uri or f"{prefix}/config",
        config_path=options.config,
        resume=options.resume,
        arguments=resolved.arguments(options.framework, given, options.model_id, environment),
        given=frozenset(given),
        argv=list(argv),
        environment=environment,
    )


def read_arguments(words: Sequence[str], environment: Mapping[str, str]) -> dict[str, Any]:
    """The arguments that the job sets, from the variable (with types) or the command line.

    If the variable is set, the command line is ignored: it has no types and cannot express `false`.
    """
    typed = environment.get(GIVEN)
    if typed is not None:
        return resolved.parse(GIVEN, typed)
    given = {}
    words = list(words)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            raise TrainingError(f"expected an argument such as --max_steps, got {word!r}")
        has_value = words and not words[0].startswith("--")
        value = from_text(words.pop(0)) if has_value else True
        given[word[2:].replace("-", "_")] = value
    return given


def from_text(text: str) -> Any:
    """Converts a value of the command line to a number or bool if possible."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, int | float) else text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
