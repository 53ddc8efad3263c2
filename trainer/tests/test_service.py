"""Jobs of the real service train under torchrun and write the layout to an object store."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import llamas
import pytest
from conftest import S3, english
from service import Service

# Nodes, processes per node, and the batch size for a global batch of eight.
SHAPES = {"1x1": (1, 1, 8), "1x2": (1, 2, 4), "2x1": (2, 1, 4), "2x2": (2, 2, 2)}
# Less than an epoch, whose last batch is incomplete.
STEPS = 12


def request(framework: str, run_id: str, shape: str, **arguments: Any) -> dict[str, Any]:
    nodes, processes, batch = SHAPES[shape]
    return {
        "framework": framework,
        # It has no dropout, which would depend on the number of processes.
        "model_id": "llama-debug",
        "run_id": run_id,
        "num_nodes": nodes,
        "gpus_per_node": processes,
        "checkpoint_base_uri": "s3://bucket/runs",
        "dataset_uri": "s3://bucket/english/",
        "extra_args": {
            "max_steps": STEPS, "lr": 0.004, "max_seq_len": 64, "batch_size": batch,
            "save_steps": STEPS // 2, "logging_steps": 1, **arguments,
        },
    }  # fmt: skip


def curve(log: str) -> list[float]:
    lines = [json.loads(line) for line in log.splitlines() if line.startswith('{"event"')]
    assert all(
        set(line) == {"event", "step", "total_steps", "loss", "tokens_per_second", "seconds_left"}
        for line in lines
    )
    return [line["loss"] for line in lines if line["event"] == "progress"]


@pytest.mark.parametrize("framework", ["meta", "hf"])
def test_every_shape_trains_the_same_curve_into_the_store(
    s3: S3, tmp_path: Path, framework: str
) -> None:
    folder = s3.root / "bucket/english"
    folder.mkdir()
    for number, part in enumerate((english()[::2], english()[1::2])):
        rows = "\n".join(json.dumps({"text": text}) for text in part)
        (folder / f"part-{number}.jsonl").write_text(rows)
    with Service(tmp_path) as service:
        jobs = {shape: service.submit(request(framework, f"r{shape}", shape)) for shape in SHAPES}
        for job in jobs.values():
            service.wait(job)
        curves = {shape: curve(service.log(job)) for shape, job in jobs.items()}
    assert len(curves["1x1"]) == STEPS
    for shape, losses in curves.items():
        assert losses[-1] < 0.7 * losses[0], (shape, losses)
        assert losses == pytest.approx(curves["1x1"], rel=0.02), shape
    for shape, (nodes, processes, _) in SHAPES.items():
        assert_layout(s3.root / f"bucket/runs/r{shape}/framework={framework}", nodes * processes)


# What the specification posts, with steps that end soon and without GPUs.
EXAMPLE = {
    "framework": "meta", "model_id": "meta-llama-3-70b", "run_id": "meta_demo_001",
    "num_nodes": 4, "gpus_per_node": 0, "cpus_per_node": 64, "memory_per_node_gb": 512,
    "checkpoint_base_uri": "s3://deepfinery-training/runs",
    "dataset_uri": "s3://deepfinery-datasets/aml/v1/", "resume_from_checkpoint": False,
    "extra_args": {"max_steps": 2, "lr": 2e-5, "gradient_accumulation": 16},
    "env": {"EXPERIMENT_NAME": "meta-demo"}, "labels": {"deepfinery.com/team": "aml"},
}  # fmt: skip


def test_the_example_of_the_specification_trains_the_model_that_it_names(
    s3: S3, tmp_path: Path
) -> None:
    for bucket in ("deepfinery-training", "deepfinery-datasets/aml/v1"):
        (s3.root / bucket).mkdir(parents=True)
    rows = "\n".join(json.dumps({"text": text}) for text in english())
    (s3.root / "deepfinery-datasets/aml/v1/rows.jsonl").write_text(rows)
    stand_in = llamas.saved(
        tmp_path / "models/meta-llama-3-70b", "llama-3", max_position_embeddings=8192
    )
    shutil.copytree(stand_in, s3.root / "bucket/models/own")
    from_store = {
        **EXAMPLE, "model_id": "s3://bucket/models/own", "run_id": "from_store", "num_nodes": 1,
    }  # fmt: skip
    with Service(tmp_path, {"TRAINER_MODELS_URI": f"file://{tmp_path}/models"}) as service:
        for posted in (EXAMPLE, from_store):
            service.wait(service.submit(posted))
    runs = s3.root / "deepfinery-training/runs"
    for run_id in ("meta_demo_001", "from_store"):
        checkpoints = runs / run_id / "framework=meta/checkpoints"
        commit = json.loads((checkpoints / "step-000002.json").read_text())
        sizes = {file["name"]: file["size"] for file in commit["files"]}
        assert sizes
        assert all((checkpoints / name).stat().st_size == size for name, size in sizes.items())


def assert_layout(prefix: Path, processes: int) -> None:
    """Verifies the layout of the specification, without temporary files."""
    assert {path.name for path in prefix.iterdir()} == {"checkpoints", "config", "logs"}
    commits = sorted(path.name for path in (prefix / "checkpoints").glob("step-*.json"))
    assert commits == [f"step-{step:06}.json" for step in (STEPS // 2, STEPS)]
    for name in commits:
        commit = json.loads((prefix / "checkpoints" / name).read_text())
        assert commit["files"]
        for file in commit["files"]:
            assert (prefix / "checkpoints" / file["name"]).stat().st_size == file["size"]
    record = json.loads((prefix / "config/run.json").read_text())
    assert record["resolved_args"]["max_steps"] == STEPS
    # The service has passed the image and the plugin of the job.
    assert record["image"] and record["job_uid"]
    assert record["plugin"]["name"] == record["framework"]
    assert re.fullmatch("[0-9a-f]{64}", record["plugin"]["sha256"])
    assert re.fullmatch(r"\d+\.\d+\.\d+", record["plugin"]["version"])
    ranks = {path.stem.split("-rank-")[1] for path in (prefix / "logs").iterdir()}
    assert ranks == {str(rank) for rank in range(processes)}
