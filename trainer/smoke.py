"""Smoke test of the image: trains a few steps with each framework, without a network."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import train

FRAMEWORKS = ("meta", "hf")
STEPS = 3


def main() -> int:
    """Trains and prints the results. Returns 0 if each framework saved its last checkpoint."""
    failed = 0
    for framework in FRAMEWORKS:
        with tempfile.TemporaryDirectory() as folder:
            done = works(framework, Path(folder))
        print(f"smoke: {framework}: {'OK' if done else 'FAILED'}", flush=True)
        failed += not done
    return min(failed, 1)


def works(framework: str, folder: Path) -> bool:
    """Whether a framework trains and commits a checkpoint."""
    rows = [json.dumps({"text": f"Sentence number {number}."}) for number in range(32)]
    (folder / "data.jsonl").write_text("\n".join(rows))
    arguments = {"max_steps": STEPS, "max_seq_len": 32, "batch_size": 2}
    prefix = f"file://{folder}/runs/smoke/framework={framework}"
    argv = [
        "--framework", framework, "--run-id", "smoke", "--model-id", "llama-debug",
        "--checkpoint-prefix", prefix, "--dataset-uri", f"file://{folder}/data.jsonl",
    ]  # fmt: skip
    environment = {
        "TRAINING_EXTRA_ARGS_JSON": json.dumps(arguments),
        "TRAINING_LOCAL_ROOT": f"{folder}/scratch",
        "GPUS_PER_NODE": "0",
    }
    code = train.main(argv, environment)
    commit = folder / f"runs/smoke/framework={framework}/checkpoints/step-{STEPS:06}.json"
    return code == 0 and commit.exists()


if __name__ == "__main__":
    sys.exit(main())
