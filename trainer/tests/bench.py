"""Measures what this image adds: the stall of a checkpoint, and the way to the first step.

    make bench-trainer        writes docs/performance-trainer.md

Each is a ratio of two numbers of the same run, so a busy machine spoils it little.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parents[1]
ROUNDS = 3
# Enough steps between two checkpoints for the upload of one to end before the next.
STEPS, SAVE_STEPS = 120, 30
# Bare transformers: what the hf runner does, without this image.
BARE_HF = """
import json, sys, torch
from torch.utils.data import Dataset
from transformers import AutoConfig, AutoModelForCausalLM, Trainer
from transformers import TrainerCallback, TrainingArguments
text = "".join(json.loads(line)["text"] for line in open(sys.argv[1]))
tokens = torch.tensor(list(text.encode()))
class Data(Dataset):
    def __len__(self): return len(tokens) // 64
    def __getitem__(self, at):
        part = tokens[at * 64 : at * 64 + 64]
        return {"input_ids": part, "labels": part}
class First(TrainerCallback):
    def on_step_end(self, args, state, control, **_):
        if state.global_step == 1: print("first", flush=True)
config = AutoConfig.for_model("llama", vocab_size=258, hidden_size=128, intermediate_size=384,
    num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2)
arguments = TrainingArguments("/tmp/bare", max_steps=2, use_cpu=True, report_to="none",
    per_device_train_batch_size=4, save_strategy="no", disable_tqdm=True)
Trainer(AutoModelForCausalLM.from_config(config), arguments, train_dataset=Data(),
    callbacks=[First()]).train()
"""
# Bare PyTorch: what the meta runner does.
BARE_META = """
import json, sys, torch
sys.path.insert(0, sys.argv[2])
from model import MODELS, Llama
text = "".join(json.loads(line)["text"] for line in open(sys.argv[1]))
tokens = torch.tensor(list(text.encode()))[: 4 * 65].view(4, 65)
model = Llama(MODELS["llama-debug"])
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
(model(tokens) / 256).backward()
optimizer.step()
print("first", flush=True)
"""
BARE = {"hf": BARE_HF, "meta": BARE_META}


def main() -> None:
    """Prints the page."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        licence = (HERE.parent / "LICENSE").read_text().split("\n\n")
        rows = [json.dumps({"text": text}) for text in licence if text.strip()]
        (folder / "data.jsonl").write_text("\n".join(rows))
        starts = {framework: start(framework, folder) for framework in BARE}
        stalls = {framework: stall(framework, folder) for framework in BARE}
    print(page(starts, stalls))


def start(framework: str, folder: Path) -> tuple[float, float]:
    """Seconds to the first step: the bare framework's, and this image's, one after the other."""
    torchrun = [str(Path(sys.executable).parent / "torchrun"), "--standalone"]
    script = folder / f"bare_{framework}.py"
    script.write_text(BARE[framework])
    bare, ours = [], []
    for _ in range(ROUNDS):
        words = [*torchrun, str(script), str(folder / "data.jsonl"), str(HERE)]
        bare.append(seconds_until("first", words, {}))
        ours.append(
            seconds_until(
                '"step": 1,',
                [*torchrun, "train.py", *command(framework, folder)],
                variables(folder, {"max_steps": 2}),
            )
        )
    return median(bare), median(ours)


def seconds_until(mark: str, words: list[str], extra: dict[str, str]) -> float:
    """How long a program takes to say something."""
    begun = time.monotonic()
    with subprocess.Popen(
        words, cwd=HERE, env={**os.environ, "OMP_NUM_THREADS": "1", **extra},
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        assert process.stdout
        for line in process.stdout:
            if mark in line:
                seconds = time.monotonic() - begun
                process.communicate()
                return seconds
    raise RuntimeError(f"never said {mark!r}: {' '.join(words)}")


def stall(framework: str, folder: Path) -> tuple[float, float]:
    """Seconds that the training stands still for a checkpoint, and those of its upload."""
    from conftest import S3

    # A store that takes 16 MiB/s: on the loopback an upload would take no time at all.
    server = S3(folder / f"s3-{framework}", "--bwlimit", "16M")
    try:
        arguments = {
            "max_steps": STEPS, "save_steps": SAVE_STEPS, "max_seq_len": 64, "batch_size": 4,
            "async_checkpoint": "async",
        }  # fmt: skip
        if framework == "hf":
            del arguments["async_checkpoint"]
        done = subprocess.run(
            [sys.executable, "train.py", *command(framework, folder, "s3://bucket")],
            cwd=HERE, capture_output=True, text=True, check=True,
            env={**os.environ, **variables(folder, arguments), **server.environment},
        )  # fmt: skip
    finally:
        server.stop()
    stalls = [float(s) for s in re.findall(r"stood still for (\d+\.\d+) s", done.stderr)]
    uploads = [float(s) for s in re.findall(r"saved step \d+ in (\d+\.\d+) s", done.stderr)]
    return median(stalls), median(uploads)


def command(framework: str, folder: Path, prefix: str | None = None) -> list[str]:
    """The words of train.py."""
    base = prefix or f"file://{folder}"
    return [
        "--framework", framework, "--run-id", "bench", "--model-id", "llama-debug",
        "--checkpoint-prefix", f"{base}/runs/bench/framework={framework}",
        "--dataset-uri", f"file://{folder}/data.jsonl",
    ]  # fmt: skip


def variables(folder: Path, arguments: dict[str, Any]) -> dict[str, str]:
    """The variables of a run."""
    typed = {"max_seq_len": 64, "batch_size": 4, **arguments}
    return {
        "TRAINING_EXTRA_ARGS_JSON": json.dumps(typed),
        "TRAINING_LOCAL_ROOT": str(folder / "scratch"),
        "OMP_NUM_THREADS": "1",
        "TRAINER_JOB_UID": "",
    }


def page(starts: dict[str, tuple[float, float]], stalls: dict[str, tuple[float, float]]) -> str:
    """docs/performance-trainer.md."""
    lines = [
        "<!-- `make bench-trainer` writes this page. -->",
        "# What the trainer image costs",
        "",
        "Measured on one machine in one run; ratios are what counts. The store is a real S3 server",
        "on the loopback that takes 16 MiB/s.",
        "",
        "| framework | start to first step: bare | here | ratio | limit |",
        "| --- | --- | --- | --- | --- |",
    ]
    for framework, (bare, ours) in starts.items():
        lines.append(f"| {framework} | {bare:.2f} s | {ours:.2f} s | {ours / bare:.2f} | 1.5 |")
    lines += [
        "",
        "| framework | training stands still | upload takes | share | limit |",
        "| --- | --- | --- | --- | --- |",
    ]
    for framework, (still, upload) in stalls.items():
        share = still / upload
        lines.append(f"| {framework} | {still:.3f} s | {upload:.2f} s | {share:.1%} | 10 % |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    main()
