"""The check of a machine's GPU trains, compares and resumes; here with a small model on a CPU."""

from __future__ import annotations

import pytest

import gpu_check


def test_the_check_prints_a_table_and_resumes(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    code = gpu_check.main(["--small"])
    said = capfd.readouterr()
    assert code == 0, said
    names = [line.split(" | ")[0].removeprefix("| ") for line in said.out.splitlines()]
    assert {"meta", "hf", "bare Trainer"} <= set(names)
    assert "save and resume: pass" in said.out


def test_without_a_gpu_it_says_so(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpu_check.main([]) == 1
    assert "no GPU is visible" in capfd.readouterr().err
