"""The image is complete: its files are sufficient to train, and its versions match lock.txt."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import distributions
from pathlib import Path

from conftest import TRAINER

DOCKERFILE = (TRAINER / "Dockerfile").read_text()


def test_the_files_of_the_image_train_by_themselves(tmp_path: Path) -> None:
    for words in re.findall(r"^COPY (.+)$", DOCKERFILE, re.MULTILINE):
        *sources, target = words.split()
        for source in sources:
            for path in TRAINER.glob(source):
                place = tmp_path / target
                if path.is_dir():
                    shutil.copytree(path, place, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(path, place)
    command = re.findall(r'^CMD \["python", "(.+)"\]$', DOCKERFILE, re.MULTILINE)
    assert command == ["smoke.py"]
    done = subprocess.run(
        [sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "smoke: meta: OK" in done.stdout, done.stderr
    assert "smoke: hf: OK" in done.stdout, done.stderr
    assert done.returncode == 0


def test_both_variants_come_from_one_file() -> None:
    stages = re.findall(r"^FROM \S+ AS (\w+)$", DOCKERFILE, re.MULTILINE)
    assert stages == ["base", "cuda", "cpu"]
    assert "FROM ${VARIANT}" in DOCKERFILE


def test_every_file_of_the_image_has_a_digest_and_the_locked_version() -> None:
    lock = (TRAINER / "lock.txt").read_text()
    locked = set(re.findall(r"^([\w.-]+==[^\s;]+)", lock, re.MULTILINE))
    requirements = re.split(r"\n(?=\w)", (TRAINER / "lock-hashes.txt").read_text())[1:]
    assert len(requirements) > 50
    for requirement in requirements:
        name = re.sub(r"\[[^]]*\]", "", requirement.split()[0])
        assert name in locked
        assert "--hash=sha256:" in requirement, name


def test_what_is_installed_is_what_the_lock_says() -> None:
    lock = (TRAINER / "lock.txt").read_text()
    assert "://" not in lock
    pins: dict[str, set[str]] = {}
    for name, pin in re.findall(r"^([\w.-]+)(?:\[[^]]*\])?==([^\s;]+)", lock, re.MULTILINE):
        pins.setdefault(name, set()).add(pin)
    assert len(pins) > 50
    for name, wanted in pins.items():
        # Some are for other versions of Python or other machines.
        for found in distributions(name=name, path=[sysconfig.get_path("purelib")]):
            assert found.version.split("+")[0] in wanted, name
