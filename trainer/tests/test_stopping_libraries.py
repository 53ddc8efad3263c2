"""SIGTERM in each phase of the loops of NeMo AutoModel and torchtitan, without a GPU."""

from __future__ import annotations

import ast
import importlib.util
import os
import signal
import sys
import textwrap
import time
import types
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import LIBRARIES, MakeRun

import logs
import session as sessions
from run import Terminated
from runners import meta_torchtitan, nemo_automodel

pytestmark = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="torchtitan and NeMo AutoModel need Python 3.11"
)
# Where the signal arrives, the phase of the loop and its step, and the last step that is saved.
PHASES = {
    "start": ("start", 0, 1),
    "first step": ("step", 1, 1),
    "step": ("step", 7, 7),
    "evaluation": ("evaluation", 5, 6),
    "save": ("save", 10, 10),
    "upload": ("upload", 10, 11),
    "last step": ("step", 25, 25),
    "last save": ("save", 25, 25),
    "end": ("upload", 25, 25),
}
STEPS, EVERY = 25, 10


def tell() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def function_of(file: str, name: str, names: dict[str, Any]) -> Any:
    """A function of a library, copied because its module can only be imported with a GPU."""
    text = (LIBRARIES / file).read_text()
    (found,) = (
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef) and node.name == name
    )
    lines = text.splitlines()[found.lineno - 1 : found.end_lineno]
    exec(textwrap.dedent("\n".join(lines)), names)
    return names[name]


class Told:
    """Sends the signal when a loop is in a phase of a step."""

    def __init__(self, phase: str = "", step: int = 0) -> None:
        self._at = phase, step

    def at(self, phase: str, step: int) -> None:
        """Called by each phase."""
        if (phase, step) == self._at:
            tell()


def checkpoints(run: Any) -> dict[str, str]:
    folder = Path(run.checkpoints_uri.removeprefix("file://"))
    return {path.name: (path / "state").read_text() for path in folder.glob("step-*/")}


def saved_until(last: int) -> set[str]:
    """The names of the steps that are saved up to one."""
    return {f"step-{step:06}" for step in (*range(EVERY, last, EVERY), last)}


class Recipe:
    """A recipe of AutoModel with fake steps and files."""

    model_parts: tuple[Any, ...] = ()
    max_grad_norm = 1.0
    partial_cuda_graph_manager = None
    domain_mixture = None
    best_metric_key = "default"
    val_dataloaders: dict[str, Any] = {"held": [{}]}  # noqa: RUF012
    metric_logger_valid = {"held": SimpleNamespace(close=lambda: None)}  # noqa: RUF012
    checkpointer = SimpleNamespace(async_wait=lambda: None)
    metric_logger_train = SimpleNamespace(close=lambda: None)

    def __init__(self, saving: Path, told: Told, **more: Any) -> None:
        path = LIBRARIES / "nemo_automodel/components/training/step_scheduler.py"
        spec = importlib.util.spec_from_file_location("automodel_steps", path)
        assert spec and spec.loader
        module = sys.modules["automodel_steps"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self.step_scheduler = module.StepScheduler(
            global_batch_size=2, local_batch_size=1, dp_size=1, dataloader=[{}] * 200,
            ckpt_every_steps=EVERY, save_checkpoint_every_epoch=False, max_steps=STEPS,
            val_every_steps=5, **more,
        )  # fmt: skip
        self._saving, self._told = saving, told

    @property
    def _step(self) -> int:
        return int(self.step_scheduler.step) + 1

    def save_checkpoint(self, epoch: int, step: int, loss: float, *_: Any, **__: Any) -> None:
        self._told.at("save", self._step)
        folder = self._saving / f"epoch_{epoch}_step_{step}"
        folder.mkdir(parents=True)
        (folder / "state").write_text(str(self.step_scheduler.state_dict()["step"]))

    def _run_train_optim_step(self, *_: Any) -> Any:
        self._told.at("step", self._step)
        return SimpleNamespace(metrics={"loss": 2.5, "num_label_tokens": 64})

    def _run_validation_epoch(self, *_: Any) -> Any:
        self._told.at("evaluation", self._step)
        return SimpleNamespace(metrics={"val_loss": 2.5, "num_label_tokens": 64})

    def _maybe_collect_garbage(self) -> None:
        # Checkpoints are uploaded in the background.
        self._told.at("upload", self._step)

    def log_train_metrics(self, *_: Any) -> None: ...

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None

    def run(self) -> None:
        """The loop of the library."""
        names = {
            "time": time, "end_mlflow_active_run_as_killed": lambda: None,
            "WEIGHTED_AGGREGATE_NAME": "",
        }  # fmt: skip
        file = "nemo_automodel/recipes/llm/train_ft.py"
        self._told.at("start", 0)
        function_of(file, "run_train_validation_loop", names)(self)


@pytest.fixture
def automodel(libraries: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nemo_automodel", types.ModuleType("nemo_automodel"))
    sys.modules["nemo_automodel"].__path__ = [str(LIBRARIES / "nemo_automodel")]


@pytest.mark.usefixtures("automodel")
@pytest.mark.parametrize("handler", [None, signal.SIGTERM])
@pytest.mark.parametrize("phase", PHASES)
def test_automodel_that_receives_sigterm_saves_and_does_not_succeed(
    make_run: MakeRun, handler: Any, phase: str
) -> None:
    at, step, last = PHASES[phase]
    run = make_run(framework="nemo", logging_steps=5)
    with pytest.raises(Terminated), sessions.opened(run) as session:
        session.prepare({})
        recipe = Recipe(session.saving, Told(at, step), preemption_signal=handler)
        nemo_automodel._publish_from(recipe, session)
        recipe.run()
    found = checkpoints(run)
    if handler and phase == "start":
        # The library leaves its loop before the first step.
        assert found == {}
        return
    assert found[f"step-{last:06}"] == str(last)
    assert found.keys() == saved_until(last)


@pytest.mark.usefixtures("automodel")
def test_steps_of_automodel_are_optimizer_steps(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(framework="nemo", logging_steps=7)
    with sessions.opened(run) as session:
        session.prepare({})
        recipe = Recipe(session.saving, Told())
        nemo_automodel._publish_from(recipe, session)
        recipe.run()
    assert checkpoints(run) == {
        "step-000010": "10", "step-000020": "20", "step-000025": "25",
    }  # fmt: skip
    assert reported(capsys) == [1, 7, 14, 21, 25]


def reported(capsys: pytest.CaptureFixture[str]) -> list[int]:
    """The steps of the progress lines."""
    lines = [line for line in capsys.readouterr().out.splitlines() if '"event"' in line]
    return [int(line.split('"step": ')[1].split(",")[0]) for line in lines]


class Titan:
    """A trainer of torchtitan with fake steps and files. It is its own checkpointer and validator.

    A real trainer has the step of its checkpoint only after it has begun to train.
    """

    def __init__(self, folder: Path, told: Told, *, save_hf: bool = False, begin: int = 0) -> None:
        self.step, self._begin, self._folder, self._told = 0, begin, folder, told
        self.last_save_in_hf = self.last_save_model_only = save_hf
        self.checkpointer: Any = self
        self.validator = self.dataloader = self.gc_handler = self
        self.metrics_processor = SimpleNamespace(
            log=lambda *_: None, should_log=lambda step: step == 1 or step % 7 == 0
        )
        training = SimpleNamespace(steps=STEPS, global_batch_size=2, seq_len=8)
        nothing = SimpleNamespace(step=lambda: None)
        self.config = SimpleNamespace(
            training=training, checkpoint=SimpleNamespace(load_step=-1), dump_folder="",
            validator=SimpleNamespace(enable=True), comm=SimpleNamespace(train_timeout_seconds=1),
            profiler=SimpleNamespace(build=lambda **_: nullcontext(nothing)),
        )  # fmt: skip
        self.parallel_dims = None

    def load(self, step: int) -> None:
        self.step = self._begin

    def batch_generator(self, _loader: Any) -> Any: ...

    def should_continue_training(self) -> bool:
        return bool(self.step < STEPS)

    def run(self, _step: int) -> None: ...

    def train_step(self, _batches: Any) -> None:
        self._told.at("step", self.step)
        if self.metrics_processor.should_log(self.step):
            self.metrics_processor.log(self.step, 2.5)

    def save(self, step: int, last_step: bool = False) -> bool:
        if not last_step and step % EVERY:
            return False
        self._told.at("save", step)
        path = self._folder / f"step-{step}"
        path.mkdir(parents=True)
        (path / "state").write_text("weights" if self._exports(last_step) else "all")
        return True

    def _exports(self, last_step: bool) -> bool:
        return bool(last_step and self.last_save_model_only)

    def should_validate(self, step: int) -> bool:
        self._told.at("upload", step)
        return step % 5 == 0

    def validate(self, _parts: Any, step: int) -> None:
        self._told.at("evaluation", step)

    model_parts: tuple[Any, ...] = ()

    def maybe_wait_for_saving(self) -> None: ...

    def train(self) -> None:
        """The loop of the library."""
        quiet = SimpleNamespace(info=lambda *_: None)
        tracing = SimpleNamespace(
            log_trace_instant=lambda *_: None, set_step=lambda *_, **__: None,
            log_trace_span=lambda *_: nullcontext(),
        )  # fmt: skip
        names = {
            "sl": tracing, "logger": quiet, "DataloaderExhaustedError": StopIteration,
            "dist_utils": SimpleNamespace(set_pg_timeouts=lambda **_: None),
            "timedelta": timedelta, "time": SimpleNamespace(sleep=lambda _: None),
            "torch": SimpleNamespace(distributed=SimpleNamespace(get_rank=lambda: 0)),
        }  # fmt: skip
        self._told.at("start", 0)
        function_of("torchtitan/trainer.py", "train", names)(self)


def titan(session: Any, told: Told, **more: Any) -> Titan:
    trainer = Titan(session.saving, told, **more)
    meta_torchtitan._publish_from(trainer, session, session.saving, more.get("begin", 0))
    return trainer


@pytest.mark.parametrize("save_hf", [False, True])
@pytest.mark.parametrize("phase", PHASES)
def test_torchtitan_that_receives_sigterm_saves_what_can_be_resumed_from(
    make_run: MakeRun, save_hf: bool, phase: str
) -> None:
    at, step, last = PHASES[phase]
    run = make_run()
    with pytest.raises(Terminated), sessions.opened(run) as session:
        session.prepare({})
        titan(session, Told(at, step), save_hf=save_hf).train()
    found = checkpoints(run)
    assert found.keys() == saved_until(last)
    is_export = save_hf and last == STEPS
    assert found[f"step-{last:06}"] == ("weights" if is_export else "all")
    with sessions.opened(make_run(resume=True)) as session:
        prepared = session.prepare({})
        assert prepared and prepared[0].step == (20 if is_export else last)


def test_weights_that_torchtitan_exports_at_the_end_are_not_resumed_from(make_run: MakeRun) -> None:
    run = make_run(uid="job")
    with sessions.opened(run) as session:
        session.prepare({})
        trainer = titan(session, Told(), save_hf=True)
        trainer.save(STEPS, last_step=True)
    assert checkpoints(run) == {f"step-{STEPS:06}": "weights"}
    with sessions.opened(run) as session:
        assert session.prepare({}) is None


@pytest.mark.parametrize(
    ("begin", "steps"), [(0, [1, 7, 14, 21, 25]), (10, [14, 21, 25]), (21, [25])]
)
def test_torchtitan_reports_its_last_step_and_counts_only_tokens_of_this_start(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    begin: int, steps: list[int],
) -> None:  # fmt: skip
    counted: list[int] = []
    monkeypatch.setattr(logs.Progress, "count", lambda _, tokens: counted.append(tokens))
    with sessions.opened(make_run()) as session:
        session.prepare({})
        titan(session, Told(), begin=begin).train()
    assert reported(capsys) == steps
    assert sum(counted) == (STEPS - begin) * 2 * 8
