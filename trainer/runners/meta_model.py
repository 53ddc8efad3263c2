"""Builds the model of the plain loop: its weights, adapters, and how it is spread and computed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
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

import models
from llama import MODELS, Llama, ModelConfig
from run import Run, TrainingError
from runners import lacks, meta_config
from runners.meta_arguments import Arguments
from runners.meta_names import layer
from runners.meta_weights import (
    Rows,
    check,
    check_state,
    drawn,
    fill,
    loaded,
    open_state,
    stored,
    with_drawn_adapters,
)
from storage import Storage, reason
from tokens import Bytes, Pretrained, Tokenizer
from weights import WeightFiles, has_other_weights

LOG = logging.getLogger("trainer")

# The first GPU generation that computes in float8.
FLOAT8_CAPABILITY = (8, 9)


@dataclass(frozen=True)
class Plan:
    """How a model is made, as the arguments and the machine say it."""

    arguments: Arguments
    device: str
    world_size: int

    @property
    def mesh(self) -> tuple[int, int]:
        """Copies of the model, and the processes that each is sharded over."""
        copies = self.arguments.dp_replicate
        shards = self.arguments.dp_shard
        return copies, self.world_size // copies if shards == -1 else shards

    @property
    def parameter_type(self) -> torch.dtype:
        """What weights are kept in."""
        return torch.bfloat16 if self.arguments.precision == "bf16" else torch.float32

    @property
    def recompute_every(self) -> int:
        """One of this many blocks recomputes its activations; 0 disables this."""
        return {"none": 0, "full": 1, "selective": 2}[self.arguments.activation_checkpoint]

    def sharding(self) -> tuple[MixedPrecisionPolicy, OffloadPolicy]:
        """FSDP's own settings."""
        mixed = self.arguments.precision == "bf16-mixed"
        policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16 if mixed else None,
            reduce_dtype=torch.float32 if mixed else None,
        )
        # On a CPU everything is in the host's memory already.
        offloads = self.arguments.cpu_offload and self.device == "cuda"
        return policy, CPUOffloadPolicy() if offloads else OffloadPolicy()

    @property
    def holds(self) -> str:
        """The device that weights are kept on."""
        return "cpu" if self.arguments.cpu_offload and self.world_size > 1 else self.device

    def computing(self) -> Any:
        """What a forward pass runs in."""
        if self.arguments.precision == "bf16-mixed" and self.world_size == 1:
            return torch.autocast(self.device, dtype=torch.bfloat16)
        return nullcontext()

    def activations(self) -> Any:
        """Where activations wait for the backward pass."""
        if self.arguments.activation_offloading:
            return torch.autograd.graph.save_on_cpu(pin_memory=self.device == "cuda")
        return nullcontext()


@dataclass(frozen=True)
class Chosen:
    """What a job trains, found and checked before the processes meet."""

    model_id: str
    config: ModelConfig
    tokens: Tokenizer
    # The folder of the model; a model of this image has none.
    folder: Path | None
    # What it starts from; nothing where it is trained from scratch.
    weights: WeightFiles | Path | None


def choose(run: Run, storage: Storage, arguments: Arguments) -> Chosen:
    """Finds the model and the tokenizer of a job, and checks that they fit each other."""
    debug = run.model_id in MODELS
    own = arguments.init == "pretrained" and not arguments.initial_load_path
    folder = None
    if not debug:
        kind = models.MODEL if own else models.SHAPE
        folder = models.resolve(run, storage, run.model_id, kind, known=tuple(MODELS))
    config = _config(run.model_id, folder, arguments) if folder else MODELS[run.model_id]
    tokens = tokenizer(run, storage, folder)
    # A model of this image has as many tokens as its tokenizer.
    words = config.vocabulary if folder else tokens.vocabulary
    config = replace(config, vocabulary=words, padding=tokens.padding)
    if folder:
        _check_fits(run.model_id, config, tokens)
    found = None
    if arguments.initial_load_path:
        found = _initial(run, storage, arguments.initial_load_path)
    elif folder and own:
        found = _weights(run.model_id, folder)
    chosen = Chosen(run.model_id, config, tokens, folder, found)
    if isinstance(found, WeightFiles):
        with torch.device("meta"):
            check(run.model_id, Llama(config), found)
    return chosen


def tokenizer(run: Run, storage: Storage, folder: Path | None = None) -> Tokenizer:
    """The tokenizer of the job: the one it names, that of the model, or bytes for debug models."""
    if name := run.tokenizer_id:
        return Pretrained.load(
            name, models.resolve(run, storage, name, models.TOKENIZER), "tokenizer_name"
        )
    return Pretrained.load(run.model_id, folder, "model_id") if folder else Bytes()


def _config(model_id: str, folder: Path, arguments: Arguments) -> ModelConfig:
    content = meta_config.read(folder)
    positions = content.get("max_position_embeddings")
    if positions and arguments.max_seq_len > positions:
        raise TrainingError(
            f"max_seq_len {arguments.max_seq_len}: model {model_id} has {positions} positions "
            f"(max_position_embeddings in its config.json); give at most {positions}"
        )
    return meta_config.shape(model_id, content)


def _check_fits(model_id: str, config: ModelConfig, tokens: Tokenizer) -> None:
    # One of them is padding, which a model has no embedding for.
    words = tokens.vocabulary - 1
    if words > config.vocabulary:
        raise TrainingError(
            f"the tokenizer has {words} tokens and model {model_id} has embeddings for "
            f"{config.vocabulary} (vocab_size in its config.json): tokenizer_name names the "
            f"tokenizer that belongs to the model"
        )


def _weights(model_id: str, folder: Path) -> WeightFiles | None:
    found = WeightFiles.find(folder)
    if found is None and (others := has_other_weights(folder)):
        raise TrainingError(
            f"model {model_id} has its weights in {others[0]}: framework meta reads safetensors; "
            f"convert them with transformers' save_pretrained, or use framework hf"
        )
    if found is None:
        LOG.warning("model %s has no weights: it is trained from scratch", model_id)
    return found


def _initial(run: Run, storage: Storage, place: str) -> WeightFiles | Path:
    """Weights to start from: a file, or a folder in the format of Hugging Face."""
    if not place.endswith((".pt", ".safetensors")):
        folder = models.resolve(run, storage, place, models.MODEL)
        if found := WeightFiles.find(folder):
            return found
        raise TrainingError(f"initial_load_path {place} has no safetensors files")
    try:
        return models.fetch_file(run, storage, place)
    except FileNotFoundError as error:
        raise TrainingError(f"initial_load_path {place} does not exist") from error


def build(chosen: Chosen, plan: Plan) -> Llama:
    """The model where it trains, with its weights; each process holds its own part alone."""
    model = spread(outline(chosen.config, plan), plan)
    model.to_empty(device=plan.holds)
    seed = plan.arguments.seed
    source = _source(chosen, model, plan)
    fill(model, with_drawn_adapters(source, seed))
    return model


def outline(config: ModelConfig, plan: Plan) -> Llama:
    """The model without its weights, in no memory."""
    arguments = plan.arguments
    with torch.device("meta"):
        model = Llama(config)
        if arguments.peft_method != "none":
            if arguments.save_hf:
                raise TrainingError("save_hf writes whole weights: leave it or peft_method out")
            _add_adapters(model, arguments)
        if arguments.float8:
            _compute_in_float8(model)
    model.recompute_every = plan.recompute_every
    return model.to(plan.parameter_type)


def _source(chosen: Chosen, model: Llama, plan: Plan) -> Callable[[str, torch.Size], Rows]:
    if isinstance(chosen.weights, WeightFiles):
        return stored(chosen.weights)
    if chosen.weights is None:
        return drawn(plan.arguments.seed, chosen.config.initial_deviation)
    place = plan.arguments.initial_load_path
    try:
        state = open_state(chosen.weights)
        check_state(model, state)
    except Exception as error:
        raise TrainingError(
            f"initial_load_path {place} does not hold the weights of this model ({reason(error)}): "
            f"give the .pt file of a run with the same model_id, or a .safetensors file"
        ) from error
    return loaded(state)


def spread(model: Llama, plan: Plan) -> Llama:
    """Shards the model with FSDP where there are several processes."""
    if plan.arguments.compile:
        for block in model.blocks:
            block.compile()
    if plan.world_size == 1:
        return model
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
        target_modules=[layer(name) for name in arguments.lora_target_modules],
    )
    try:
        inject_adapter_in_model(config, model, low_cpu_mem_usage=True)
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
