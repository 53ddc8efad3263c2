"""Writes the options of torchrun and the frameworks for the plugins.

    python tests/known_options.py FOLDER

The options come from the source of the locked releases. Nothing is imported, so no GPU is needed.
"""

from __future__ import annotations

import ast
import sys
import sysconfig
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

PACKAGES = Path(sysconfig.get_path("purelib"))
LIBRARIES = Path(sys.prefix) / "libraries"

# Files that define the options of each framework, by distribution.
SOURCES: dict[str, dict[str, list[str]]] = {
    "hf": {
        "transformers": ["transformers/training_args.py"],
        "trl": [
            "trl/scripts/utils.py",
            "trl/trainer/base_config.py",
            "trl/trainer/model_config.py",
            "trl/trainer/sft_config.py",
        ],
    },
    "nemo": {
        "megatron-core": [
            "megatron/core/distributed/distributed_data_parallel_config.py",
            "megatron/core/model_parallel_config.py",
            "megatron/core/optimizer/optimizer_config.py",
            "megatron/core/transformer/transformer_config.py",
        ],
        "megatron-bridge": [
            "megatron/bridge/models/gpt_provider.py",
            "megatron/bridge/training/config.py",
            "megatron/bridge/training/mixed_precision.py",
            "megatron/bridge/training/tokenizers/config.py",
        ],
        "nemo-automodel": [
            "nemo_automodel/components/checkpoint/config.py",
            "nemo_automodel/components/distributed/config.py",
            "nemo_automodel/components/distributed/pipelining/config.py",
            "nemo_automodel/components/moe/config.py",
            "nemo_automodel/components/training/step_scheduler.py",
        ],
    },
    "meta": {
        "torchtitan": [
            "torchtitan/components/checkpointer/base.py",
            "torchtitan/components/checkpointer/dcp.py",
            "torchtitan/components/dataloader.py",
            "torchtitan/components/lora.py",
            "torchtitan/components/metrics.py",
            "torchtitan/components/optimizer/lr_scheduler.py",
            "torchtitan/components/optimizer/optimizer.py",
            "torchtitan/components/quantization/float8.py",
            "torchtitan/components/validate.py",
            "torchtitan/config/configs.py",
            "torchtitan/distributed/activation_checkpoint.py",
            "torchtitan/tools/profiler.py",
            "torchtitan/trainer.py",
        ],
    },
}
# The lists: the options of each framework, and those of torchrun.
TORCHRUN = "torchrun"
LISTS = (*SOURCES, TORCHRUN)
# Classes whose options train.py passes to the framework if the plugin's table does not have them.
PASSED_ON = {"TrainingArguments"}
# Options that the hf runner always sets itself (runners/hf.py).
SET_BY_TRAIN_PY = {
    "disable_tqdm",
    "logging_first_step",
    "output_dir",
    "remove_unused_columns",
    "save_on_each_node",
    "use_cpu",
}

WORDS = {
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "str": "text",
    "Path": "text",
    "PathLike": "text",
    "dict": "object",
    "Dict": "object",
    "Mapping": "object",
    "list": "list",
    "List": "list",
    "tuple": "list",
    "Tuple": "list",
    "Sequence": "list",
    # Enumerations, whose values are passed by name.
    "HubStrategy": "text",
    "IntervalStrategy": "text",
    "OptimizerNames": "text",
    "SaveStrategy": "text",
    "SchedulerType": "text",
}


def main(folder: Path) -> None:
    """Writes a list for each framework."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in LISTS:
        (folder / f"{name}.txt").write_text(listing(name))


def listing(name: str) -> str:
    """A list: the options of torchrun or of a framework."""
    if name == TORCHRUN:
        package, root = _distribution("torch")
        release = package.version.partition("+")[0]
        options = sorted(set(_flags(root / "torch/distributed/run.py")))
        return _head([f"torch {release}"]) + "".join(f"{option}\n" for option in options)
    return _framework(name)


def _flags(file: Path) -> Iterator[str]:
    """The long options that a file adds to its parser, with `_` instead of `-`."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".add_argument"):
            for word in node.args:
                if isinstance(word, ast.Constant) and str(word.value).startswith("--"):
                    yield str(word.value)[2:].replace("-", "_")


def _framework(framework: str) -> str:
    """Lines with a name and its types, and `unread` if train.py does not pass it on."""
    types: dict[str, set[str]] = {}
    read = set()
    releases = []
    for name, files in SOURCES[framework].items():
        package, root = _distribution(name)
        releases.append(f"{name} {package.version}")
        for file in files:
            for owner, option, accepted in _options(root / file):
                types.setdefault(option, set()).update(accepted)
                if owner in PASSED_ON and option not in SET_BY_TRAIN_PY:
                    read.add(option)
    return _head(releases) + "".join(
        f"{option} {_word(types[option])}{'' if option in read else ' unread'}\n"
        for option in sorted(types)
    )


def _head(releases: list[str]) -> str:
    return f"# {', '.join(releases)}. Written by `make known-options`.\n"


def _word(types: set[str]) -> str:
    return "any" if "any" in types else "|".join(sorted(types))


def _distribution(name: str) -> tuple[Distribution, Path]:
    for root in (PACKAGES, LIBRARIES):
        found = next(iter(distributions(name=name, path=[str(root)])), None)
        if found is not None:
            return found, root
    raise SystemExit(f"{name} is not installed: `make python` installs it")


def _options(file: Path) -> Iterator[tuple[str, str, set[str]]]:
    """Class, name and types of each field of the dataclasses in a file."""
    for node in ast.walk(ast.parse(file.read_text())):
        if not isinstance(node, ast.ClassDef) or not _is_dataclass(node):
            continue
        for field in node.body:
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                name, types = field.target.id, _types(field.annotation)
                if types and not name.startswith("_"):
                    yield node.name, name, types


def _is_dataclass(node: ast.ClassDef) -> bool:
    names = {ast.unparse(decorator).split("(")[0] for decorator in node.decorator_list}
    return bool(names & {"dataclass", "dataclasses.dataclass"})


def _types(annotation: ast.expr) -> set[str]:
    """The types that an annotation accepts, or None for class constants."""
    match annotation:
        case ast.Constant(value=None):
            return set()
        case ast.Constant(value=str() as text):
            return _types(ast.parse(text, mode="eval").body)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _types(left) | _types(right)
        case ast.Subscript(value=generic, slice=inner):
            return _generic(ast.unparse(generic).rsplit(".")[-1], inner)
        case _:
            return {WORDS.get(ast.unparse(annotation).rsplit(".")[-1], "any")}


def _generic(name: str, inner: ast.expr) -> set[str]:
    inside = inner.elts if isinstance(inner, ast.Tuple) else [inner]
    if name == "ClassVar":
        return set()
    if name in ("Optional", "Union"):
        return set().union(*map(_types, inside))
    if name == "Annotated":
        return _types(inside[0])
    if name == "Literal":
        values = [each.value for each in inside if isinstance(each, ast.Constant)]
        return {WORDS.get(type(value).__name__, "any") for value in values if value is not None}
    return {WORDS.get(name, "any")}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
