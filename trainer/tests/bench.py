"""Measures the overhead of the image: pauses for checkpoints, and the time to the first step.

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
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from typing import Any

import loading

HERE = Path(__file__).parents[1]
ROUNDS = 3
# Enough steps between two checkpoints for an upload to finish before the next one.
STEPS, SAVE_STEPS = 600, 120
# The default interval, because transformers writes all logs into each checkpoint.
LOGGING_STEPS = 10
# Progress lines of the first steps, which are slower than later ones.
WARM_UP = 3
# Bandwidths of the store: that of a remote one, and unlimited.
BANDWIDTHS = {"16 MiB/s": "16M", "loopback speed": "off"}
# A model with 8 million weights, for which fixed costs of a checkpoint matter less.
LARGER = {
    "model_type": "llama", "vocab_size": 258, "hidden_size": 384, "intermediate_size": 1024,
    "num_hidden_layers": 5, "num_attention_heads": 6, "num_key_value_heads": 2,
}  # fmt: skip
# The bare framework of the hf runner: transformers.
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
# The bare framework of the meta runner: PyTorch.
BARE_META = """
import json, sys, torch
sys.path.insert(0, sys.argv[2])
from llama import MODELS, Llama
text = "".join(json.loads(line)["text"] for line in open(sys.argv[1]))
tokens = torch.tensor(list(text.encode()))[: 4 * 65].view(4, 65)
model = Llama(MODELS["llama-debug"])
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
(model(tokens) / 256).backward()
optimizer.step()
print("first", flush=True)
"""
BARE = {"hf": BARE_HF, "meta": BARE_META}
GPUS = [
    "## GPUs",
    "",
    "No GPU was available for this page. `python gpu_check.py`, in the trainer image, prints the "
    "table of a machine.",
]


def main() -> None:
    """Prints the page. Intermediate results go to standard error."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        licence = (HERE.parent / "LICENSE").read_text().split("\n\n")
        rows = [json.dumps({"text": text}) for text in licence if text.strip()]
        (folder / "data.jsonl").write_text("\n".join(rows))
        starts = {framework: start(framework, folder) for framework in BARE}
        models = [(framework, "llama-debug") for framework in BARE]
        models.append(("hf", str(larger(folder))))
        stalls = [stall(*model, folder, store) for model in models for store in BANDWIDTHS]
        memory = loading.table(folder)
    print("\n".join([page(starts, stalls), "", *memory, "", *GPUS]))


def larger(folder: Path) -> Path:
    """A folder with a configuration and a tokenizer, but without weights."""
    from tokens import Bytes

    model = folder / "larger"
    Bytes().pretrained().save_pretrained(model)
    (model / "config.json").write_text(json.dumps(LARGER))
    return model


def start(framework: str, folder: Path) -> tuple[float, float]:
    """Seconds to the first step with the bare framework and with the image."""
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
    print(f"{framework}: to the first step: bare {bare}, here {ours}", file=sys.stderr)
    return median(bare), median(ours)


def seconds_until(mark: str, words: list[str], extra: dict[str, str]) -> float:
    """The time until a program prints a text."""
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


@dataclass(frozen=True)
class Stall:
    """The cost of a checkpoint for the training, in seconds."""

    framework: str
    store: str
    megabytes: float
    # The pause after a step until the training continues.
    still: float
    # The pause, plus the delay of steps during the upload.
    lost: float
    upload: float


def stall(framework: str, model_id: str, folder: Path, store: str) -> Stall:
    """Trains with a store of limited bandwidth."""
    from conftest import S3

    server = S3(Path(tempfile.mkdtemp(dir=folder)), "--bwlimit", BANDWIDTHS[store])
    arguments: dict[str, Any] = {
        "max_steps": STEPS, "save_steps": SAVE_STEPS, "logging_steps": LOGGING_STEPS,
    }  # fmt: skip
    if framework == "meta":
        arguments["async_checkpoint"] = "async"
    words = command(framework, folder, "s3://bucket", model_id)
    try:
        said = lines_of(
            [sys.executable, "train.py", *words],
            {**variables(folder, arguments), **server.environment, "PYTHONUNBUFFERED": "1"},
        )
    finally:
        server.stop()
    steps = [at for at, line in said if '"progress"' in line]
    if len(steps) < STEPS // LOGGING_STEPS:
        raise RuntimeError("".join(line for _, line in said))
    still = numbers(said, r"paused for (\S+) s")
    # No steps follow the last checkpoint.
    saved = numbers(said, r"saved step \d+ in (\S+) s")[:-1]
    uploads = [(at - seconds, at) for at, seconds in saved]
    commits = sorted(server.root.glob("bucket/runs/*/*/checkpoints/step-*.json"))
    files = json.loads(commits[-1].read_text())["files"]
    found = Stall(
        framework,
        store,
        sum(file["size"] for file in files) / 1e6,
        median(seconds for _, seconds in still[:-1]),
        median(lost(steps[WARM_UP:], uploads)),
        median(seconds for _, seconds in saved),
    )
    print(found, file=sys.stderr)
    return found


def numbers(said: list[tuple[float, str]], pattern: str) -> list[tuple[float, float]]:
    """The numbers that match a pattern in the lines, with their times."""
    return [(at, float(number)) for at, line in said for number in re.findall(pattern, line)]


def lines_of(words: list[str], extra: dict[str, str]) -> list[tuple[float, str]]:
    """The output of a program, with the time of each line."""
    with subprocess.Popen(
        words, cwd=HERE, env={**os.environ, **extra},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        assert process.stdout
        return [(time.monotonic(), line) for line in process.stdout]


def lost(steps: list[float], uploads: list[tuple[float, float]]) -> list[float]:
    """For each upload, how much longer the steps during it take than other steps.

    The times of steps come from progress lines, each of which covers several steps.
    """
    times = list(pairwise(steps))
    beside = [[s for s in times if s[0] < end and s[1] > begin] for begin, end in uploads]
    alone = [s for s in times if not any(s in some for some in beside)]
    usual = fmean(end - begin for begin, end in alone)
    return [sum(end - begin - usual for begin, end in some) for some in beside]


def command(
    framework: str, folder: Path, prefix: str | None = None, model_id: str = "llama-debug"
) -> list[str]:
    """The command line of train.py."""
    base = prefix or f"file://{folder}"
    return [
        "--framework", framework, "--run-id", "bench", "--model-id", model_id,
        "--checkpoint-prefix", f"{base}/runs/bench/framework={framework}",
        "--dataset-uri", f"file://{folder}/data.jsonl",
    ]  # fmt: skip


def variables(folder: Path, arguments: dict[str, Any]) -> dict[str, str]:
    """The environment variables of a run."""
    typed = {"max_seq_len": 64, "batch_size": 4, **arguments}
    return {
        "TRAINING_EXTRA_ARGS_JSON": json.dumps(typed),
        "TRAINING_LOCAL_ROOT": str(folder / "scratch"),
        "OMP_NUM_THREADS": "1",
        "TRAINER_JOB_UID": "",
    }


def page(starts: dict[str, tuple[float, float]], stalls: list[Stall]) -> str:
    """docs/performance-trainer.md."""
    lines = [
        "<!-- `make bench-trainer` writes this page. -->",
        "# Performance of the trainer image",
        "",
        "Each ratio compares two times measured in one run on one machine.",
        "",
        "| framework | start to first step: bare | in the image | ratio | target | result |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for framework, (bare, ours) in starts.items():
        ratio = ours / bare
        row = [framework, f"{bare:.2f} s", f"{ours:.2f} s", f"{ratio:.2f}", "at most 1.5"]
        lines.append(f"| {' | '.join(row)} | {verdict(ratio, 1.5)} |")
    lines += [
        "",
        "Checkpoints are uploaded to a real S3 server that shares the cores with the training.",
        "The training pauses while the state is copied, and continues during the upload. The",
        "last column is the total delay, including what hashing, uploading and the server take",
        "from the training steps.",
        "",
        "| framework | checkpoint | store | pause | upload | ratio | target | result | delay |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for stall in stalls:
        share = stall.still / stall.upload
        row = [stall.framework, f"{stall.megabytes:.0f} MB", stall.store]
        row += [f"{stall.still * 1000:.0f} ms", f"{stall.upload * 1000:.0f} ms", f"{share:.1%}"]
        row += ["at most 10 %", verdict(share, 0.1), f"{stall.lost * 1000:.0f} ms"]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def verdict(measured: float, most: float) -> str:
    """Whether a target is met."""
    return "pass" if measured <= most else "fail"


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    main()
