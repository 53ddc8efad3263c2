"""Checks a machine's GPU: speed and memory of each backend beside bare libraries, save and resume.

    python gpu_check.py            the shape of Llama 3.2 1B, 60 steps, one GPU
    python gpu_check.py --small    a small shape, which also trains on a CPU

It needs no network and prints one table in Markdown.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
STEPS = 60
# Lines of progress at the start, which are slower than the rest.
WARM_UP = 2
# Dense bfloat16 operations a second, by a part of the card's name (NVIDIA's data sheets).
PEAKS = {"B200": 2250e12, "H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12}
# config.json of Llama 3.2 1B, and of a model for a machine without a GPU.
SHAPE: dict[str, Any] = {
    "model_type": "llama", "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192,
    "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
    "max_position_embeddings": 131072, "rope_theta": 500000.0, "tie_word_embeddings": True,
    "rms_norm_eps": 1e-5,
    "rope_scaling": {
        "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
}  # fmt: skip
SMALL: dict[str, Any] = {
    **SHAPE, "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
}  # fmt: skip
# transformers' own Trainer on random tokens: what hf and meta are compared with.
BARE = """
import json, sys, torch, transformers
folder, length, batch, steps, kind = sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5]
class Rows(torch.utils.data.Dataset):
    def __len__(self): return steps * batch
    def __getitem__(self, at):
        row = torch.randint(0, 256, (length,), generator=torch.Generator().manual_seed(at))
        return {"input_ids": row, "labels": row}
on_cpu = not torch.cuda.is_available()
arguments = transformers.TrainingArguments(
    folder + "/bare", max_steps=steps, per_device_train_batch_size=batch, report_to="none",
    save_strategy="no", logging_steps=10, disable_tqdm=True, bf16=kind == "bf16-mixed",
    use_cpu=on_cpu)
class Say(transformers.TrainerCallback):
    def on_train_begin(self, *_, **__): import time; self.at, self.step = time.monotonic(), 0
    def on_log(self, arguments, state, control, **_):
        import time
        if not on_cpu: torch.cuda.synchronize()
        now, done = time.monotonic(), state.global_step - self.step
        if done > 0:
            pace = done * batch * length / (now - self.at)
            print(json.dumps({"event": "progress", "tokens_per_second": pace}), flush=True)
        self.at, self.step = now, state.global_step
model = transformers.AutoModelForCausalLM.from_config(
    transformers.AutoConfig.from_pretrained(folder + "/model"), dtype=torch.float32)
transformers.Trainer(model, arguments, train_dataset=Rows(), callbacks=[Say()]).train()
"""


@dataclass(frozen=True)
class Job:
    """One training to measure."""

    name: str
    precision: str
    framework: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """What is trained on."""

    shape: dict[str, Any]
    batch: int
    length: int
    on_gpu: bool


def jobs(sizes: Sizes) -> list[Job]:
    """What this image can train, in the precisions that the machine has."""
    precisions = ("bf16-mixed", "bf16") if sizes.on_gpu else ("fp32",)
    found = [Job("meta", kind, "meta", {"precision": kind}) for kind in precisions]
    found.append(Job("hf", precisions[0], "hf", {} if sizes.on_gpu else {"precision": "fp32"}))
    if sizes.on_gpu:
        compiled = {"precision": "bf16-mixed", "compile": True}
        found.append(Job("meta, compile", "bf16-mixed", "meta", compiled))
        if importlib.util.find_spec("torchtitan"):
            titan = {"precision": "bf16-mixed", "backend": "torchtitan", "init": "random"}
            found.append(Job("meta, torchtitan", "bf16-mixed", "meta", titan))
    return found


def main(words: list[str]) -> int:
    """Prints the table; 0 if all trained and a run resumed."""
    import torch

    on_gpu = torch.cuda.is_available()
    small = "--small" in words
    if not on_gpu and not small:
        print("gpu_check: error: no GPU is visible; --small trains on a CPU", file=sys.stderr)
        return 1
    sizes = Sizes(SMALL, 2, 64, on_gpu) if small else Sizes(SHAPE, 4, 2048, on_gpu)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, sizes)
        lines = [row(job.name, job.precision, sizes, measure(folder, sizes, job))
                 for job in jobs(sizes)]  # fmt: skip
        kind = "bf16-mixed" if on_gpu else "fp32"
        bare = [sys.executable, "-c", BARE, name, str(sizes.length), str(sizes.batch)]
        lines.append(
            row("bare Trainer", kind, sizes, observe([*bare, str(STEPS), kind], os.environ))
        )
        resumed = resumes(folder, sizes)
    card = torch.cuda.get_device_name() if on_gpu else "CPU"
    print(f"{card}: {STEPS} steps of {sizes.batch} sequences of {sizes.length} tokens\n")
    print("| training | precision | tokens a second | MFU | peak memory |")
    print("| --- | --- | --- | --- | --- |")
    print("\n".join(lines))
    print(f"\nsave and resume: {'pass' if resumed else 'FAIL'}")
    return 0 if resumed and not any("failed" in line for line in lines) else 1


def prepare(folder: Path, sizes: Sizes) -> None:
    """A model's folder without weights, and text for every step."""
    from tokens import Bytes

    Bytes().pretrained().save_pretrained(folder / "model")
    (folder / "model/config.json").write_text(json.dumps(sizes.shape))
    text = "The quick brown fox jumps over the lazy dog. " * (sizes.length // 32)
    count = STEPS * sizes.batch + 16
    (folder / "rows.jsonl").write_text(f"{json.dumps({'text': text})}\n" * count)


def command(folder: Path, job: Job) -> list[str]:
    """The words that start a job."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "train.py"]
    prefix = f"file://{folder}/runs/{re.sub(r'[^a-z0-9]+', '-', f'{job.name}-{job.precision}')}"
    return [
        *launcher, "--framework", job.framework, "--run-id", "check",
        "--model-id", str(folder / "model"), "--dataset-uri", f"file://{folder}/rows.jsonl",
        "--checkpoint-prefix", f"{prefix}/framework={job.framework}",
    ]  # fmt: skip


def variables(folder: Path, sizes: Sizes, job: Job) -> dict[str, str]:
    """The environment of a job."""
    arguments = {
        "max_steps": STEPS, "save_steps": 10 * STEPS, "logging_steps": 10, "lr": 1e-4,
        "batch_size": sizes.batch, "max_seq_len": sizes.length, **job.arguments,
    }  # fmt: skip
    return {
        **os.environ,
        "TRAINING_EXTRA_ARGS_JSON": json.dumps(arguments),
        "TRAINING_LOCAL_ROOT": str(folder / "scratch"),
        "GPUS_PER_NODE": "1" if sizes.on_gpu else "0",
        "HF_HUB_OFFLINE": "1",
    }


@dataclass(frozen=True)
class Measured:
    """What a training has shown; no speed where it failed."""

    tokens_per_second: float | None
    peak_bytes: int
    output: str


def measure(folder: Path, sizes: Sizes, job: Job) -> Measured:
    """Trains a job."""
    return observe(command(folder, job), variables(folder, sizes, job))


def observe(words: list[str], environment: Any) -> Measured:
    """Runs a program, and measures its speed and the device memory that it uses."""
    stop, peak = threading.Event(), [0]
    before = used()
    watcher = threading.Thread(target=watch, args=(stop, peak))
    watcher.start()
    done = subprocess.run(
        words, cwd=HERE, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, check=False,
    )  # fmt: skip
    stop.set()
    watcher.join()
    said = [line for line in done.stdout.splitlines() if line.startswith('{"event": "progress"')]
    paces = [json.loads(line)["tokens_per_second"] for line in said][WARM_UP:]
    if done.returncode:
        print(done.stdout[-3000:], file=sys.stderr)
    pace = statistics.median(paces) if paces and not done.returncode else None
    return Measured(pace, max(0, peak[0] - before), done.stdout)


def used() -> int:
    """Bytes of the device's memory that are taken."""
    import torch

    if not torch.cuda.is_available():
        return 0
    free, total = torch.cuda.mem_get_info()
    return total - free


def watch(stop: threading.Event, peak: list[int]) -> None:
    """Keeps the most that was taken."""
    while not stop.is_set():
        peak[0] = max(peak[0], used())
        time.sleep(0.05)


def operations(shape: dict[str, Any], length: int) -> float:
    """Floating-point operations for one token, forward and backward."""
    size, layers = shape["hidden_size"], shape["num_hidden_layers"]
    head = size // shape["num_attention_heads"]
    attention = 2 * size * size + 2 * size * shape["num_key_value_heads"] * head
    feed = 3 * size * shape["intermediate_size"]
    weights = layers * (attention + feed) + shape["vocab_size"] * size
    return float(6 * weights + 6 * layers * size * length)


def row(name: str, precision: str, sizes: Sizes, found: Measured) -> str:
    """One line of the table."""
    pace = found.tokens_per_second
    if pace is None:
        return f"| {name} | {precision} | failed | | |"
    memory = f"{found.peak_bytes / (1 << 30):.1f} GiB" if sizes.on_gpu else "-"
    return f"| {name} | {precision} | {pace:,.0f} | {utilization(sizes, pace)} | {memory} |"


def utilization(sizes: Sizes, pace: float) -> str:
    """The share of the card's operations that train."""
    import torch

    card = torch.cuda.get_device_name() if sizes.on_gpu else ""
    most = next((peak for name, peak in PEAKS.items() if name in card), None)
    return f"{pace * operations(sizes.shape, sizes.length) / most:.1%}" if most else "-"


def resumes(folder: Path, sizes: Sizes) -> bool:
    """Whether a run continues from its last checkpoint."""
    job = replace(jobs(sizes)[0], name="resume")
    first = replace(job, arguments={**job.arguments, "max_steps": 4, "save_steps": 4})
    more = replace(job, arguments={**job.arguments, "max_steps": 6, "save_steps": 6})
    observe(command(folder, first), variables(folder, sizes, first))
    again = observe([*command(folder, more), "--resume"], variables(folder, sizes, more))
    return "resumed from step 4" in again.output and "saved step 6" in again.output


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
