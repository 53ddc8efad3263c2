"""The hf runner trains and resumes with transformers 4 as transformers 4 does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from conftest import TRAINER

# The folder that `make python` installs it into.
PACKAGES = Path(sys.prefix) / "transformers4"


def test_transformers_4_trains_the_same_jobs() -> None:
    variables = {**os.environ, "PYTHONPATH": str(PACKAGES)}
    version = "import transformers; print(transformers.__version__)"
    shown = subprocess.run(
        [sys.executable, "-c", version], env=variables, capture_output=True, text=True, check=True
    )
    assert shown.stdout.startswith("4.57.")
    compared = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "tests/differential"],
        cwd=TRAINER, env=variables, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert compared.returncode == 0, compared.stdout
    assert " passed" in compared.stdout
