"""Builds the model of the plain loop: its weights, adapters, and how it is spread and computed."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)

from model import MODELS, Llama
from run import Run, TrainingError
from runners import lacks
from runners.meta_arguments import Arguments
from storage import Storage, reason
from tokens import Bytes, Pretrained, Tokenizer

# The first GPU generation that computes in float8.
FLOAT8_CAPABILITY = (8, 9)


@dataclass(frozen=True)
class Plan:
    """How a model is made, as the arguments and the machine say it."""

    arguments: Arguments
    device: str
    world_size: int

    @property
    def precision(self) -> str:
        """The number format: a CPU trains in float32 unless the job itself says otherwise."""
        default = "bf16-mixed" if self.device == "cuda" else "fp32"
        return self.arguments.precision or default

    @property
    def mesh(self) -> tuple[int, int]:
        """Copies of the model, and the processes that each is sharded over."""
        copies = self.arguments.dp_replicate
        shards = self.arguments.dp_shard
        return copies, self.world_size // copies if shards == -1 else shards

    @property
    def parameter_type(self) -> torch.dtype:
        """What weights are kept in."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32

    @property
    def recompute_every(self) -> int:
        """Every so many blocks one computes its activations anew."""
        return {"none": 0, "full": 1, "selective": 2}[self.arguments.activation_checkpoint]

    def sharding(self) -> tuple[MixedPrecisionPolicy, OffloadPolicy]:
        """FSDP's own settings."""
        mixed = self.precision == "bf16-mixed"
        policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16 if mixed else None,
            reduce_dtype=torch.float32 if mixed else None,
        )
        # On a CPU everything is in the host's memory already.
        offloads = self.arguments.cpu_offload and self.device == "cuda"
        return policy, CPUOffloadPolicy() if offloads else OffloadPolicy()

    def computing(self) -> Any:
        """What a forward pass runs in."""
        if self.precision == "bf16-mixed" and self.world_size == 1:
            return torch.autocast(self.device, dtype=torch.bfloat16)
        return nullcontext()

    def activations(self) -> Any:
        """Where activations wait for the backward pass."""
        if self.arguments.activation_offloading:
            return torch.autograd.graph.save_on_cpu(pin_memory=self.device == "cuda")
        return nullcontext()


def tokenizer(arguments: Arguments) -> Tokenizer:
    """The job's tokenizer; bytes need no download."""
    name = arguments.tokenizer_name
    return Pretrained.load(name) if name else Bytes()


def build(run: Run, storage: Storage, plan: Plan, tokenizer: Tokenizer) -> Llama:
    """The whole model on every process, the same on all."""
    arguments = plan.arguments
    if run.model_id not in MODELS:
        known = ", ".join(sorted(MODELS))
        raise TrainingError(f"model {run.model_id} is not in this image; known: {known}")
    config = replace(
        MODELS[run.model_id], vocabulary=tokenizer.vocabulary, padding=tokenizer.padding
    )
    torch.manual_seed(arguments.seed)
    model = Llama(config)
    if arguments.initial_load_path:
        load_weights(model, storage, arguments.initial_load_path)
    if arguments.peft_method != "none":
        if arguments.save_hf:
            raise TrainingError("save_hf writes whole weights: leave it or peft_method out")
        _add_adapters(model, arguments)
    if arguments.float8:
        _compute_in_float8(model)
    model.recompute_every = plan.recompute_every
    return model.to(plan.parameter_type)


def spread(model: Llama, plan: Plan) -> Llama:
    """Puts the model where it trains: sharded with FSDP where there are several processes."""
    if plan.arguments.compile:
        for block in model.blocks:
            block.compile()
    if plan.world_size == 1:
        return model.to(plan.device)
    mesh = init_device_mesh(plan.device, plan.mesh, mesh_dim_names=("replicate", "shard"))
    policy, offload = plan.sharding()
    for block in model.blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy, offload_policy=offload)
    fully_shard(model, mesh=mesh, mp_policy=policy, offload_policy=offload)
    return model


@contextmanager
def synchronized(model: nn.Module, last: bool) -> Iterator[None]:
    """Gradients are exchanged once a step, with the last micro batch."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(last)
    yield


def load_weights(model: Llama, storage: Storage, place: str) -> None:
    """Weights to start from: the `.pt` file of a run, or a `.safetensors` file."""
    uri = place if "://" in place else f"file://{place}"
    try:
        data = storage.read(uri)
    except FileNotFoundError as error:
        raise TrainingError(f"initial_load_path {place} does not exist") from error
    try:
        if place.endswith(".safetensors"):
            from safetensors.torch import load

            state: dict[str, Any] = load(data)
        else:
            state = torch.load(io.BytesIO(data), weights_only=True)
        model.load_state_dict(state.get("model", state))
    except Exception as error:
        raise TrainingError(
            f"initial_load_path {place} does not hold the weights of this model ({reason(error)}): "
            f"give the .pt file of a run with the same model_id, or a .safetensors file"
        ) from error


def _add_adapters(model: Llama, arguments: Arguments) -> None:
    if arguments.peft_method == "qlora":
        raise TrainingError(
            "peft_method qlora: the plain loop has no 4 bit weights; use lora, or framework hf"
        )
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ModuleNotFoundError as error:
        raise lacks("peft_method lora", "peft") from error
    config = LoraConfig(
        r=arguments.lora_rank,
        lora_alpha=arguments.lora_alpha,
        lora_dropout=arguments.lora_dropout,
        target_modules=arguments.lora_target_modules,
    )
    try:
        inject_adapter_in_model(config, model)
    except ValueError as error:
        known = sorted({name.rsplit(".", 1)[-1] for name, _ in linears(model)})
        raise TrainingError(
            f"lora_target_modules {', '.join(arguments.lora_target_modules)}: the model has "
            f"{', '.join(known)}"
        ) from error


def linears(model: nn.Module) -> list[tuple[str, nn.Linear]]:
    """The linear layers of a model by name."""
    return [(name, part) for name, part in model.named_modules() if isinstance(part, nn.Linear)]


def _compute_in_float8(model: Llama) -> None:
    able = torch.cuda.is_available()
    if not able or torch.cuda.get_device_capability() < FLOAT8_CAPABILITY:
        raise TrainingError("float8 needs a GPU of the Hopper generation or later: leave it out")
    try:
        from torchao.float8 import convert_to_float8_training
    except ModuleNotFoundError as error:
        raise lacks("float8", "torchao") from error
    convert_to_float8_training(model, module_filter_fn=lambda _, name: name != "output")
