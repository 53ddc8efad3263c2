"""Permanent failures, and how they are reported to the cluster."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

import pytest
from conftest import TRAINER

import failure
from run import PassingError, TrainingError


class Answer(Exception):  # noqa: N818
    """An error of an HTTP client."""

    def __init__(self, status: int) -> None:
        self.response = type("Response", (), {"status_code": status})


class OutOfMemoryError(RuntimeError):
    """As PyTorch has it."""


class OfflineModeIsEnabled(ConnectionError):  # noqa: N818
    """As huggingface_hub has it."""


def caused_by(cause: BaseException) -> TrainingError:
    error = TrainingError("model x cannot be loaded")
    error.__cause__ = OSError("cannot load")
    error.__cause__.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [TrainingError("wrong field"), caused_by(KeyError("x")), caused_by(Answer(404)),
     caused_by(Answer(401)), caused_by(OfflineModeIsEnabled())],
)  # fmt: skip
def test_what_another_start_meets_again_is_permanent(
    error: TrainingError, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "failure"
    environment = {"TRAINER_FAILURE_FILE": str(file), "RANK": "3"}
    assert failure.report(error, environment) == 78
    assert capsys.readouterr().err == f"train.py: error: [rank 3] {error}\n"
    assert json.loads(file.read_text()) == {"permanent": True, "message": f"[rank 3] {error}"}
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    "error",
    [PassingError("no rights"), caused_by(ConnectionResetError()), caused_by(TimeoutError()),
     caused_by(Answer(503)), caused_by(Answer(429)), caused_by(OutOfMemoryError())],
)  # fmt: skip
def test_what_may_pass_is_worth_a_restart(error: TrainingError, tmp_path: Path) -> None:
    environment = {"TRAINER_FAILURE_FILE": str(tmp_path / "failure")}
    assert failure.report(error, environment) == 1
    assert list(tmp_path.iterdir()) == []


def test_torchrun_reads_an_error_as_one_of_its_own(tmp_path: Path) -> None:
    """Uses the class of torchrun itself."""
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

    file = tmp_path / "error.json"
    began = int(time.time())
    variables = {"TORCHELASTIC_ERROR_FILE": str(file), "RANK": "3"}
    failure.report(PassingError("no\nrights"), variables)
    read = ProcessFailure(local_rank=3, pid=1, exitcode=1, error_file=str(file))
    assert isinstance(read.message, dict)
    assert read.message["extraInfo"]["py_callstack"] == "train.py: error: [rank 3] no rights"
    assert began <= read.timestamp <= time.time()


def test_torchrun_reports_an_unexpected_exception(tmp_path: Path) -> None:
    file = tmp_path / "error.json"
    code = "import train, runners; runners.find = lambda _: {}['x']; sys.exit(train.main(*args))"
    options = ["--framework", "own", "--run-id", "r", "--model-id", "m"]
    options += ["--dataset-uri", "file:///d", "--checkpoint-prefix", "file:///p"]
    variables = {"TORCHELASTIC_ERROR_FILE": str(file)}
    code = f"import sys; args = {options}, {variables}; {code}"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=TRAINER, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.endswith("KeyError: 'x'\n")
    assert json.loads(file.read_text())["message"]["message"] == "KeyError: 'x'"


def start(*words: str, **environment: str) -> tuple[int, str]:
    process = subprocess.run(
        [sys.executable, "train.py", *words],
        cwd=TRAINER, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return process.returncode, process.stderr


@pytest.mark.parametrize(
    ("words", "variables", "message"),
    [
        ((), {}, "missing required options: --framework, --run-id"),
        (("--run-id",), {}, "argument --run-id: expected one argument"),
        (
            ("--framework", "own", "--run-id", "r", "--model-id", "m", "--dataset-uri", "file:///d",
             "--checkpoint-prefix", "file:///p"),
            {"TRAINING_EXTRA_ARGS_JSON": "{"},
            "TRAINING_EXTRA_ARGS_JSON is not valid JSON",
        ),
    ],
)  # fmt: skip
def test_a_wrong_command_is_reported_in_one_line(
    words: tuple[str, ...], variables: dict[str, str], message: str, tmp_path: Path
) -> None:
    file = tmp_path / "failure"
    code, shown = start(*words, TRAINER_FAILURE_FILE=str(file), **variables)
    assert code == 78
    assert shown.startswith(f"train.py: error: {message}")
    assert shown.count("\n") == 1
    assert message in json.loads(file.read_text())["message"]


def test_a_restart_after_a_permanent_failure_ends_at_once(tmp_path: Path) -> None:
    file = tmp_path / "failure"
    file.write_text(json.dumps({"permanent": True, "message": "no such dataset"}))
    began = time.monotonic()
    assert start(TRAINER_FAILURE_FILE=str(file)) == (78, "train.py: error: no such dataset\n")
    assert time.monotonic() - began < 1.5


def test_torchrun_ends_with_a_code_of_its_own_after_a_permanent_failure(
    tmp_path: Path,
) -> None:
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv/bin/python"
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = subprocess.check_output([python, "-c", ask], text=True).strip()
    for name in ("repeat.py", "repeat.pth"):
        shutil.copy(TRAINER / name, packages)
    # The process that torchrun starts writes the file. torchrun raises an exception then.
    words = "import shutil, sys; print('runs'); sys.argv[1:] and shutil.copy(*sys.argv[1:])"
    for program in ("torchrun", "another"):
        (tmp_path / program).write_text(f"{words}; sys.exit('failed')")
    file = tmp_path / "failure"

    def run(program: str, *words: Path) -> tuple[int, str, str]:
        done = subprocess.run(
            [python, tmp_path / program, *words], env={"TRAINER_FAILURE_FILE": str(file)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    assert run("torchrun") == (1, "runs\n", "failed\n")
    failure = tmp_path / "permanent"
    failure.write_text(json.dumps({"permanent": True, "message": "no such dataset"}))
    shown = "train.py: error: no such dataset\n"
    assert run("another", failure, file) == (1, "runs\n", "failed\n")
    assert run("another") == (1, "runs\n", "failed\n")
    assert run("torchrun") == (78, "", shown)
    file.unlink()
    assert run("torchrun", failure, file) == (78, "runs\n", f"failed\n{shown}")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"permanent": false, "message": "x"}', "\0"])
def test_a_file_that_says_nothing_of_a_permanent_failure_is_passed_over(
    tmp_path: Path, content: str
) -> None:
    file = tmp_path / "failure"
    file.write_text(content)
    _, shown = start(TRAINER_FAILURE_FILE=str(file))
    assert shown.startswith("train.py: error: missing")
