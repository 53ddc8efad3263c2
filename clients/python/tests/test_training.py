"""Real training, and the examples of the documentation."""

import re
from pathlib import Path

import pytest
from conftest import ROOT, Service

from deepfinery_trainer import JobFailedError, Trainer

README = ROOT / "clients/python/README.md"


def test_the_examples_of_the_readme_run(
    training: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRAINER_URL", training.url)
    names: dict[str, object] = {}
    for example in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL):
        exec(compile(example, str(README), "exec"), names)
    shown = capsys.readouterr().out
    assert "succeeded" in shown
    assert 'extra_args.lr: expected number, got "fast"' in shown
    assert "[10, 20]" in shown


def test_curves_logs_and_checkpoints_of_a_run(training: Service, tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    with Trainer(training.url) as trainer:
        job = trainer.jobs.create(
            framework="meta",
            model_id="llama-debug",
            run_id="curves",
            checkpoint_base_uri=f"file://{tmp_path}/runs",
            dataset_uri="file:///tmp/trainer-demo/data/",
            gpus_per_node=0,
            extra_args={"max_steps": 6, "save_steps": 3, "logging_steps": 1},
        )
        followed = list(job.follow_metrics())
        lines = list(job.follow_logs())
        job.wait(progress=True)
        curves = job.metrics().to_pandas()
        assert list(curves.index) == [1, 2, 3, 4, 5, 6]
        assert curves["loss"].notna().all() and isinstance(curves, pd.DataFrame)
        assert [point.step for of in followed for point in of.points][-1] == 6
        assert job.logs().splitlines() == lines
        checkpoints = job.checkpoints()
        assert [of.step for of in checkpoints.list()] == [3, 6]
        assert checkpoints.download(tmp_path / "copy", step=3).exists()


def test_a_failed_job_raises_its_reason(training: Service, tmp_path: Path) -> None:
    (tmp_path / "text.jsonl").write_text("{not JSON\n")
    with Trainer(training.url) as trainer:
        job = trainer.jobs.create(
            framework="meta",
            model_id="llama-debug",
            run_id="no-data",
            checkpoint_base_uri=f"file://{tmp_path}/runs",
            dataset_uri=f"file://{tmp_path}/text.jsonl",
            gpus_per_node=0,
        )
        with pytest.raises(JobFailedError, match=r"text\.jsonl"):
            job.wait(progress=False)
        assert job.wait(check=False, progress=False).status == "failed"
