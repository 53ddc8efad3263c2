"""Trains a job of meta with a short loop around the Llama of transformers, in one process."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.nn import functional

from differential.grid import GLOBAL_BATCH, SEQUENCE, arguments

SEED = 42
# Marks a token that does not count. Others that are read but not learned have a flag.
NOTHING = -1
Token = tuple[int, bool]


def main(argv: Sequence[str], _environment: Mapping[str, str]) -> int:
    """Trains the job in a file and writes the weights and the losses to a folder."""
    file, model_id, data, folder = argv
    job = json.loads(Path(file).read_text())
    rows = [json.loads(line) for line in Path(data).read_text().splitlines()]
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_id)
    auto: Any = transformers.AutoModelForCausalLM
    kind = torch.bfloat16 if job["precision"] == "bf16" else torch.float32
    model = _with_adapters(job, auto.from_pretrained(model_id, dtype=kind))
    sequences = _sequences(job, [_tokens(job, row, tokenizer) for row in rows])
    losses, evaluations = train(job, model, sequences)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    result = {"losses": losses, "evaluations": evaluations}
    (Path(folder) / "result.json").write_text(json.dumps(result))
    return 0


def train(
    job: Mapping[str, Any], model: Any, sequences: list[list[Token]]
) -> tuple[dict[int, float], dict[int, float]]:
    """The losses and the losses of the evaluations by step."""
    given = arguments(job)
    held: list[list[Token]] = []
    if job["evaluation"] != "none":
        held = sequences[9::10]
        sequences = [one for at, one in enumerate(sequences) if at % 10 != 9]
    epochs = given.get("num_epochs", 0)
    total = given.get("max_steps") or math.ceil(epochs * len(sequences) / GLOBAL_BATCH)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=given["lr"], weight_decay=job["weight_decay"])
    losses, evaluations = {}, {}
    model.train()
    for step in range(total):
        optimizer.param_groups[0]["lr"] = rate(job, step, total)
        batch = [_of_position(sequences, step * GLOBAL_BATCH + at) for at in range(GLOBAL_BATCH)]
        loss, count = _loss(job, model, batch)
        (loss / count).backward()
        if given["max_grad_norm"]:
            torch.nn.utils.clip_grad_norm_(trained, given["max_grad_norm"])
        optimizer.step()
        optimizer.zero_grad()
        losses[step + 1] = loss.item() / count
        if held and (step + 1) % 2 == 0:
            with torch.no_grad():
                loss, count = _loss(job, model, held)
            evaluations[step + 1] = loss.item() / count
    return losses, evaluations


def rate(job: Mapping[str, Any], step: int, total: int) -> float:
    """The learning rate of a step: a linear rise, and then a decay."""
    warmup: int = job["warmup_steps"]
    if step < warmup:
        return 0.002 * (step + 1) / (warmup + 1)
    done = (step - warmup) / (total - warmup)
    kept: dict[str, float] = {
        "linear": 1 - done, "sqrt": 1 - done**0.5, "constant": 1.0,
        "cosine": 0.5 * (1 + math.cos(math.pi * done)),
    }  # fmt: skip
    return 0.002 * kept[job["lr_scheduler"]]


def _loss(job: Mapping[str, Any], model: Any, batch: list[list[Token]]) -> tuple[Any, int]:
    """The summed loss, and the number of tokens that count."""
    tokens = torch.tensor([[token for token, _ in one] for one in batch])
    counts = torch.tensor([[counted for _, counted in one] for one in batch])
    targets = torch.where(counts, tokens, NOTHING)[:, 1:]
    mixed = job["precision"] == "bf16-mixed"
    with torch.autocast("cpu", dtype=torch.bfloat16) if mixed else nullcontext():
        logits = model(input_ids=tokens[:, :-1].clamp(min=0), use_cache=False).logits
    flat = logits.flatten(0, 1).float(), targets.flatten()
    loss = functional.cross_entropy(*flat, ignore_index=NOTHING, reduction="sum")
    return loss, int((targets != NOTHING).sum())


def _tokens(job: Mapping[str, Any], row: dict[str, Any], tokenizer: Any) -> list[Token]:
    if job["data"] != "chat":
        tokens = tokenizer(row["text"])["input_ids"] + [tokenizer.eos_token_id]
        return [(token, True) for token in tokens]
    laid = tokenizer.apply_chat_template(
        row["messages"], return_dict=True, return_assistant_tokens_mask=True
    )
    pairs = zip(laid["input_ids"], laid["assistant_masks"], strict=True)
    return [(token, bool(learned)) for token, learned in pairs]


def _sequences(job: Mapping[str, Any], texts: list[list[Token]]) -> list[list[Token]]:
    """Sequences with one more token, which the last position predicts."""
    if job["data"] == "packing":
        texts = [[token for text in texts for token in text]]
    found = []
    for text in texts:
        for at in range(0, max(1, len(text) - 1), SEQUENCE):
            part = text[at : at + SEQUENCE + 1]
            found.append(part + [(NOTHING, False)] * (SEQUENCE + 1 - len(part)))
    return found


def _of_position(sequences: list[list[Token]], position: int) -> list[Token]:
    """Each epoch has its own order."""
    epoch, place = divmod(position, len(sequences))
    order = list(range(len(sequences)))
    random.Random(f"{SEED}/{epoch}").shuffle(order)
    return sequences[order[place]]


def _with_adapters(job: Mapping[str, Any], model: Any) -> Any:
    """Adds adapters, whose random values are those of the runner."""
    if job["peft_method"] == "none":
        return model
    from peft import LoraConfig, get_peft_model

    from runners.meta_weights import drawn

    config = LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules=["q_proj", "v_proj"])
    adapted = get_peft_model(model, config)
    values = drawn(SEED, 0.0)
    for name, weight in adapted.named_parameters():
        if "lora_A" in name:
            ours = name.split("layers.")[1].replace(".self_attn", "")
            rows = values(f"blocks.{ours}", weight.shape)(0, weight.shape[0])
            weight.data.copy_(rows)
        elif "lora_B" in name:
            weight.data.zero_()
    return adapted
