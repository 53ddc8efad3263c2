"""Measures the memory that loading a model takes: how much a process holds at its peak.

python tests/loading.py      prints the table of docs/performance-trainer.md
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(HERE))

# The shape of TinyLlama: 1.1 billion parameters.
BILLION = {
    "model_type": "llama", "vocab_size": 32000, "hidden_size": 2048, "intermediate_size": 5632,
    "num_hidden_layers": 22, "num_attention_heads": 32, "num_key_value_heads": 4,
    "max_position_embeddings": 2048,
}  # fmt: skip
# Bytes of a file of weights.
FILE_SIZE = 500_000_000
GIB = 1 << 30


@dataclass(frozen=True)
class Loaded:
    """What one process of some holds, in bytes."""

    # Its share of the parameters.
    share: int
    # Before there was a model: PyTorch itself.
    before: int
    peak: int


def write(folder: Path, shape: dict[str, Any], file_size: int = FILE_SIZE) -> Path:
    """A folder with random weights in bfloat16, in files of a size, and a tokenizer."""
    import torch

    from llama import Llama
    from runners import meta_config
    from runners.meta_hf import WeightWriter
    from runners.meta_names import theirs
    from tokens import Bytes

    folder.mkdir(parents=True)
    Bytes().pretrained().save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(shape))
    with torch.device("meta"):
        model = Llama(meta_config.shape("x", shape))
    files = WeightWriter(folder, file_size)
    for name, parameter in model.named_parameters():
        files.add(theirs(name), torch.empty(parameter.shape, dtype=torch.bfloat16).normal_())
    files.end()
    return folder


def measure(model: Path, processes: int, scratch: Path) -> list[Loaded]:
    """Loads a model with a number of processes, which do nothing else."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {
        **os.environ, "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes),
        "GPUS_PER_NODE": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
        "TRAINING_LOCAL_ROOT": str(scratch), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    started = [
        subprocess.Popen(
            [sys.executable, __file__, str(model)],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    said = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise RuntimeError("a process that loads a model has failed")
    return [Loaded(**json.loads(words.splitlines()[-1])) for words in said]


def load(model: str) -> Loaded:
    """What each of the processes does."""
    from torch.distributed.tensor import DTensor

    import session
    from runners.meta_arguments import Arguments
    from runners.meta_model import Plan, build, choose
    from storage import Storage
    from train import read_command

    words = ["--framework", "meta", "--run-id", "x", "--model-id", model]
    words += ["--checkpoint-prefix", "file:///x", "--dataset-uri", "file:///x"]
    run = read_command(words, os.environ)
    arguments = Arguments.read(run.arguments)
    chosen = choose(run, Storage(os.environ), arguments)
    device = session.join(run)
    before = memory("VmRSS")
    loaded = build(chosen, Plan(arguments, device, run.world_size))
    parameters = list(loaded.parameters())
    local = [one.to_local() if isinstance(one, DTensor) else one for one in parameters]
    return Loaded(sum(one.nbytes for one in local), before, memory("VmHWM"))


def memory(name: str) -> int:
    """Bytes of this process, by the kernel's name for them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024


def table(folder: Path) -> list[str]:
    """The section of docs/performance-trainer.md."""
    model = write(folder / "billion", BILLION)
    lines = [
        "## Memory of loading",
        "",
        "A Llama of 1.1 billion parameters, in files of 500 MB in bfloat16, is loaded as float32.",
        "Each process reads its own rows from the files. The peak counts everything that a process",
        "holds, PyTorch included; the largest of all processes is shown.",
        "",
        "| processes | share of the parameters | peak | above the share | target | result |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for processes in (2, 4):
        found = max(measure(model, processes, folder), key=lambda one: one.peak - one.share)
        above = found.peak - found.share
        result = "pass" if above <= GIB else "fail"
        row = [str(processes), *(f"{size / GIB:.2f} GiB" for size in (found.share, found.peak))]
        lines.append(f"| {' | '.join(row)} | {above / GIB:.2f} GiB | at most 1 GiB | {result} |")
    return lines


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(vars(load(sys.argv[1]))))
    else:
        with tempfile.TemporaryDirectory() as name:
            print("\n".join(table(Path(name))))
