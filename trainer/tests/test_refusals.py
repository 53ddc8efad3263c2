"""Errors of libraries before the first step are one line that says what to change."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import here
import pytest
from processes import Training

from run import TrainingError
from runners import explained

BASE: dict[str, Any] = {
    "max_steps": 4, "max_seq_len": 32, "batch_size": 2, "save_steps": 2, "logging_steps": 1,
}  # fmt: skip
CHAT = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"lr_scheduler": "cosine_with_min_lr"}, "lr_scheduler cosine_with_min_lr: "),
        ({"lr_scheduler": "cosine_warmup_with_min_lr"}, "lr_scheduler cosine_warmup_with_min_lr: "),
        ({"lr_scheduler": "warmup_stable_decay"}, "lr_scheduler warmup_stable_decay: "),
        ({"optim": "galore_adamw"}, "optim galore_adamw: "),
        ({"optim": "adamw_torch_xla"}, "optim adamw_torch_xla: "),
        ({"optim": "schedule_free_adamw"}, "optim schedule_free_adamw: "),
        (
            {"load_best_model_at_end": True, "eval_steps": 2, "metric_for_best_model": "accuracy"},
            "metric_for_best_model accuracy: unknown metric; choose one of loss",
        ),
        (
            {"save_strategy": "best", "eval_steps": 2, "metric_for_best_model": "eval_f1"},
            "metric_for_best_model f1: unknown metric; choose one of loss",
        ),
        ({"train_sampling_strategy": "group_by_length"}, "transformers "),
        ({"dataset_streaming": True, "eval_steps": 2}, "dataset_streaming reads rows in order"),
        ({"peft_method": "qlora"}, "peft_method qlora: llama-debug has no weights to quantize"),
        ({"assistant_only_loss": True}, "assistant_only_loss needs rows with a field 'messages'"),
        ({"attn_implementation": "flash_attention_2"}, "llama-debug cannot be loaded: "),
        ({"report_to": ["mlflow"]}, "transformers rejects the job: "),
        ({"use_liger_kernel": True}, "transformers "),
        (
            {"dataloader_drop_last": True, "batch_size": 512},
            "dataloader_drop_last: the dataset has",
        ),
        ({"eval_on_start": True}, "transformers "),
        ({"deepspeed": "zero2"}, "transformers rejects the arguments: "),
    ],
)
def test_hf_says_what_it_refuses(
    tmp_path: Path, dataset: Path, given: dict[str, Any], words: str
) -> None:
    ended = here.run(tmp_path, dataset, **{**BASE, **given})
    assert ended.code != 0
    (line,) = ended.errors
    assert words in line
    assert "Traceback" not in ended.output
    assert ended.losses == {}


def test_packing_says_that_it_reads_the_whole_dataset(tmp_path: Path, dataset: Path) -> None:
    ended = here.run(tmp_path, dataset, **{**BASE, "dataset_streaming": True, "packing": True})
    assert ended.code == 0
    assert "dataset_streaming has no effect" in ended.output


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (KeyError("loss"), "it: KeyError: 'loss'; do that"),
        (NotImplementedError("no"), "it: NotImplementedError: no; do that"),
        (ImportError("needs x\nand y"), "it: ImportError: needs x; set `image` to one"),
        (Exception("WSD decay"), "it: Exception: WSD decay; do that"),
        (RuntimeError("shapes differ"), "it: RuntimeError: shapes differ; do that"),
        (RuntimeError("CUDA out of memory. Tried"), "out of memory .* lower batch_size"),
        (
            TrainingError("Caught TrainingError in DataLoader worker process 0.\nOriginal\n"
                          "run.TrainingError: line 3: not JSON\n"),
            "^line 3: not JSON$",
        ),
    ],
)  # fmt: skip
def test_errors_of_libraries_are_one_line(error: Exception, shown: str) -> None:
    with (
        pytest.raises(TrainingError, match=shown),
        explained("it", "do that", has_begun=lambda: False),
    ):
        raise error


def test_an_assertion_without_words_is_reported_by_its_line() -> None:
    def schedule() -> None:
        raise AssertionError

    shown = pytest.raises(TrainingError, match="it: AssertionError: raise AssertionError")
    with shown, explained("it"):
        schedule()


@pytest.mark.parametrize(
    "error",
    [RuntimeError("[gloo/transport/tcp/pair.cc] Connection closed"), ConnectionError("reset")],
)
def test_what_another_try_may_pass_is_left_alone(error: Exception) -> None:
    with pytest.raises(type(error)), explained("it", has_begun=lambda: False):
        raise error


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_row_of_a_stream_is_reported_with_its_place(tmp_path: Path, workers: int) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text('{"text": "a"}\n' * 3 + "{\n")
    given = {**BASE, "dataset_streaming": True, "dataloader_workers": workers}
    ended = here.run(tmp_path, file, **given)
    (line,) = ended.errors
    assert line.startswith(f"train.py: error: dataset file://{file}, line 4: invalid JSON")


@pytest.mark.parametrize("packing", [False, True])
def test_columns_that_nobody_reads_may_have_any_type(tmp_path: Path, packing: bool) -> None:
    file = tmp_path / "mixed.jsonl"
    ids: list[Any] = [1, "10a", {}, "none", [1], None, 2.5]
    file.write_text("".join(json.dumps({"text": "abc", "id": value}) + "\n" for value in ids))
    assert here.run(tmp_path, file, packing=packing, **BASE).code == 0


def test_columns_beside_messages_may_have_any_type(tmp_path: Path) -> None:
    file = tmp_path / "mixed.jsonl"
    kinds: list[Any] = [{}, "none", 3]
    rows = [{**CHAT, "meta": value} for value in kinds]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert here.run(tmp_path, file, assistant_only_loss=True, **BASE).code == 0
    plain = here.run(tmp_path / "plain", file, **BASE)
    assert (
        "for 'messages', use framework meta, or framework hf with assistant_only_loss"
        in plain.errors[0]
    )


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "assistant", "content": [{"type": "text", "text": "b"}]},
        {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]},
    ],
)
@pytest.mark.parametrize("field", ["messages", "prompt"])
def test_messages_that_the_chat_template_cannot_render_are_reported_with_their_place(
    tmp_path: Path, field: str, turn: dict[str, Any]
) -> None:
    turns = [{"role": "user", "content": "a"}, turn]
    bad: dict[str, Any] = {"messages": turns}
    if field == "prompt":
        bad = {"prompt": turns[:1], "completion": turns[1:]}
    good = {field: CHAT["messages"][:1], "completion": CHAT["messages"][1:]}
    file = tmp_path / "chat.jsonl"
    rows = [CHAT if field == "messages" else good, bad]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ended = here.run(tmp_path, file, packing=True, **BASE)
    (line,) = ended.errors
    assert f"{file}, line 2: the tokenizer's chat template cannot render" in line
    assert ended.losses == {}


@pytest.mark.parametrize("framework", ["hf", "meta"])
def test_conversations_without_an_answer_are_not_trained_on(tmp_path: Path, framework: str) -> None:
    file = tmp_path / "chat.jsonl"
    rows = [CHAT, {"messages": CHAT["messages"][:1]}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {**BASE, "assistant_only_loss": True}
    ended = here.run(tmp_path, file, framework=framework, **given)
    (line,) = ended.errors
    assert f"{file}, line 2: assistant_only_loss: 'messages' has no turn of the assistant" in line
    assert ended.losses == {}


def test_answers_beyond_the_length_of_a_sequence_are_reported(tmp_path: Path) -> None:
    file = tmp_path / "chat.jsonl"
    long = {"role": "user", "content": "a" * 100}
    file.write_text(json.dumps({"messages": [long, CHAT["messages"][1]]}) + "\n")
    ended = here.run(tmp_path, file, assistant_only_loss=True, **BASE)
    (line,) = ended.errors
    assert "no turn of the assistant is within the first 32 tokens of a row" in line


def test_save_only_model_is_not_resumed_from(tmp_path: Path, dataset: Path) -> None:
    given = {**BASE, "save_only_model": True, "lr_scheduler": "linear", "lr": 0.01}
    job = {"TRAINER_JOB_UID": "job-1"}
    whole = here.run(tmp_path, dataset, variables=job, **given)
    assert whole.commit(2)["metadata"]["weights_only"] is True
    (whole.checkpoints / "step-000004.json").unlink()
    # A restarted job cannot resume from weights only.
    again = here.run(tmp_path, dataset, variables=job, **given)
    assert "step 2 contains only weights (save_only_model)" in again.output
    assert again.losses == whole.losses
    shutil.rmtree(tmp_path / "scratch")
    asked = here.run(tmp_path, dataset, resume=True, **BASE)
    assert "cannot resume from step 4: it contains only weights" in asked.errors[0]


def test_a_run_records_what_it_does(tmp_path: Path, dataset: Path) -> None:
    def recorded(framework: str, **given: Any) -> dict[str, Any]:
        folder = tmp_path / framework
        assert here.run(folder, dataset, framework=framework, **BASE, **given).code == 0
        file = folder / f"runs/run-1/framework={framework}/config/run.json"
        content: dict[str, Any] = json.loads(file.read_text())["resolved_args"]
        return content

    meta = recorded("meta", global_batch_size=8)
    assert (meta["gradient_accumulation"], meta["precision"]) == (4, "fp32")
    assert recorded("hf")["precision"] == "fp32"


@pytest.mark.parametrize("framework", ["hf", "meta"])
def test_no_empty_folders_are_left(tmp_path: Path, dataset: Path, framework: str) -> None:
    ended = here.run(tmp_path, dataset, framework=framework, save_total_limit=1, **BASE)
    left = {path.name.split(".")[0] for path in ended.checkpoints.iterdir()}
    assert left == {"step-000004"}


def test_a_run_stopped_at_an_evaluation_saves_that_step(tmp_path: Path, dataset: Path) -> None:
    given = {
        **BASE, "max_steps": 500, "save_strategy": "best", "eval_steps": 1, "lr": 0.9,
        "lr_scheduler": "constant", "max_grad_norm": 0, "load_best_model_at_end": True,
    }  # fmt: skip
    training = Training(tmp_path, given, framework="hf", dataset_uri=f"file://{dataset}")
    while '"step": 8' not in training.log:
        assert training.is_running(), training.log
    training.terminate()
    assert training.wait() == 143
    stopped = int(training.log.split("received SIGTERM: saved step ")[1].split()[0])
    lines = [line for line in training.log.splitlines() if line.startswith('{"event"')]
    last = max(json.loads(line)["step"] for line in lines)
    assert stopped >= last


def test_an_export_has_its_tokenizer(tmp_path: Path, dataset: Path) -> None:
    from transformers import AutoConfig, AutoTokenizer

    names = here.tokenizer()
    names.save_pretrained(tmp_path / "tokenizer")
    for name in (None, str(tmp_path / "tokenizer")):
        given: dict[str, Any] = {
            **BASE,
            "save_hf": True,
            **({"tokenizer_name": name} if name else {}),
        }
        folder = tmp_path / f"run-{bool(name)}"
        ended = here.run(folder, dataset, framework="meta", **given)
        assert ended.code == 0, ended.output
        export = ended.checkpoints / "step-000004/hf"
        loaded = AutoTokenizer.from_pretrained(export)
        assert loaded.decode(loaded("A b")["input_ids"], skip_special_tokens=True) == "A b"
        assert AutoConfig.from_pretrained(export).eos_token_id == loaded.eos_token_id
