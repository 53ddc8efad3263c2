"""The session handles SIGTERM: a stopped run has not succeeded, whatever a library does."""

from __future__ import annotations

import ast
import importlib.util
import os
import signal
import sys
import textwrap
import time
import types
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import LIBRARIES, MakeRun

import session as sessions
from run import Terminated
from runners import meta_torchtitan, nemo_automodel
from signals import Termination

needs_311 = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="torchtitan and NeMo AutoModel need Python 3.11"
)


def tell() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("installed", ["nothing", "a handler", "ignored", "an exit"])
def test_a_signal_is_noticed_whatever_handler_is_installed(installed: str) -> None:
    def leave(*_: Any) -> None:
        sys.exit(0)

    before = signal.getsignal(signal.SIGTERM)
    with Termination() as termination:
        assert not termination.received
        if installed == "a handler":
            signal.signal(signal.SIGTERM, lambda *_: None)
        if installed == "ignored":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            assert not termination.received
        if installed == "an exit":
            signal.signal(signal.SIGTERM, leave)
            with pytest.raises(SystemExit):
                tell()
        else:
            tell()
        assert termination.received
    assert termination.received
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_of_a_forked_worker_is_not_ours() -> None:
    with Termination() as termination:
        child = os.fork()
        if child == 0:
            tell()
            os._exit(0)
        os.waitpid(child, 0)
        assert not termination.received


@pytest.mark.parametrize("ending", ["returns", "exits"])
def test_a_runner_that_leaves_its_loop_for_a_signal_has_not_succeeded(
    make_run: MakeRun, ending: str
) -> None:
    with pytest.raises(Terminated), sessions.opened(make_run()):
        tell()
        if ending == "exits":
            sys.exit(0)


STUBS = {
    "time": time,
    "end_mlflow_active_run_as_killed": lambda: None,
    "WEIGHTED_AGGREGATE_NAME": "",
}


def loop_of_automodel() -> Any:
    """The loop of AutoModel, copied because its module can only be imported with a GPU."""
    file = LIBRARIES / "nemo_automodel/recipes/llm/train_ft.py"
    text = file.read_text()
    (found,) = (
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef) and node.name == "run_train_validation_loop"
    )
    names: dict[str, Any] = dict(STUBS)
    lines = text.splitlines()[found.lineno - 1 : found.end_lineno]
    exec(textwrap.dedent("\n".join(lines)), names)
    return names["run_train_validation_loop"]


class Recipe:
    """A recipe of AutoModel with fake steps and files."""

    model_parts: tuple[Any, ...] = ()
    max_grad_norm = 1.0
    partial_cuda_graph_manager = None
    domain_mixture = None
    best_metric_key = "default"
    val_dataloaders: dict[str, Any] = {}  # noqa: RUF012
    metric_logger_valid: dict[str, Any] = {}  # noqa: RUF012
    checkpointer = SimpleNamespace(async_wait=lambda: None)
    metric_logger_train = SimpleNamespace(close=lambda: None)

    def __init__(self, saving: Path, steps: int, every: int, stop_at: int, **more: Any) -> None:
        path = LIBRARIES / "nemo_automodel/components/training/step_scheduler.py"
        spec = importlib.util.spec_from_file_location("automodel_steps", path)
        assert spec and spec.loader
        module = sys.modules["automodel_steps"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self.step_scheduler = module.StepScheduler(
            global_batch_size=2, local_batch_size=1, dp_size=1, dataloader=[{}] * 200,
            ckpt_every_steps=every, save_checkpoint_every_epoch=False, max_steps=steps, **more,
        )  # fmt: skip
        self._saving, self._stop_at = saving, stop_at

    def save_checkpoint(self, epoch: int, step: int, loss: float, *_: Any, **__: Any) -> None:
        folder = self._saving / f"epoch_{epoch}_step_{step}"
        folder.mkdir(parents=True)
        (folder / "state").write_text(str(self.step_scheduler.state_dict()["step"]))

    def _run_train_optim_step(self, *_: Any) -> Any:
        if self.step_scheduler.step + 1 == self._stop_at:
            tell()
        return SimpleNamespace(metrics={"loss": 2.5, "num_label_tokens": 64})

    def log_train_metrics(self, *_: Any) -> None: ...

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


@pytest.fixture
def automodel(libraries: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nemo_automodel", types.ModuleType("nemo_automodel"))
    sys.modules["nemo_automodel"].__path__ = [str(LIBRARIES / "nemo_automodel")]


def checkpoints(run: Any) -> dict[str, str]:
    folder = Path(run.checkpoints_uri.removeprefix("file://"))
    return {path.name: (path / "state").read_text() for path in folder.glob("step-*/")}


@needs_311
@pytest.mark.usefixtures("automodel")
@pytest.mark.parametrize("handler", [None, signal.SIGTERM])
@pytest.mark.parametrize("stop_at", [1, 7, 24])
def test_automodel_that_receives_sigterm_saves_and_does_not_succeed(
    make_run: MakeRun, handler: Any, stop_at: int
) -> None:
    run = make_run(framework="nemo", logging_steps=5)
    with pytest.raises(Terminated, match=f"saved step {stop_at}"), sessions.opened(run) as session:
        session.prepare({})
        recipe = Recipe(session.saving, 50, 10, stop_at, preemption_signal=handler)
        nemo_automodel._publish_from(recipe, session)
        loop_of_automodel()(recipe)
    found = checkpoints(run)
    assert found[f"step-{stop_at:06}"] == str(stop_at)
    assert len(found) == 1 + stop_at // 10


@needs_311
@pytest.mark.usefixtures("automodel")
def test_steps_of_automodel_are_optimizer_steps(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(framework="nemo", logging_steps=5)
    with sessions.opened(run) as session:
        session.prepare({})
        recipe = Recipe(session.saving, 23, 10, 0)
        nemo_automodel._publish_from(recipe, session)
        loop_of_automodel()(recipe)
    assert checkpoints(run) == {
        "step-000010": "10", "step-000020": "20", "step-000023": "23",
    }  # fmt: skip
    lines = [line for line in capsys.readouterr().out.splitlines() if '"event"' in line]
    assert [line.split('"step": ')[1].split(",")[0] for line in lines] == [
        "1", "5", "10", "15", "20", "23",
    ]  # fmt: skip


class Titan:
    """A trainer of torchtitan with fake files."""

    def __init__(self, folder: Path, save_hf: bool, step: int, steps: int) -> None:
        self.step, self.folder = step, folder
        self.last_save_in_hf = self.last_save_model_only = save_hf
        self.checkpointer = self
        self.reported: list[int] = []
        self.metrics_processor = SimpleNamespace(log=lambda step, *_: self.reported.append(step))
        training = SimpleNamespace(steps=steps, global_batch_size=2, seq_len=8)
        self.config = SimpleNamespace(training=training)

    def save(self, step: int, last_step: bool = False) -> bool:
        if not last_step:
            return False
        path = self.folder / f"step-{step}"
        path.mkdir(parents=True)
        (path / "state").write_text("weights" if self.last_save_model_only else "all")
        return True

    def maybe_wait_for_saving(self) -> None: ...


@pytest.mark.parametrize("save_hf", [False, True])
def test_torchtitan_that_receives_sigterm_saves_what_can_be_resumed_from(
    make_run: MakeRun, save_hf: bool
) -> None:
    run = make_run()
    with pytest.raises(Terminated, match="saved step 60"), sessions.opened(run) as session:
        session.prepare({})
        titan = Titan(session.saving, save_hf, 59, 100)
        meta_torchtitan._publish_from(titan, session, session.saving)
        titan.metrics_processor.log(60, 2.5)
        tell()
        titan.save(60)
    assert checkpoints(run) == {"step-000060": "all"}
    with sessions.opened(make_run(resume=True)) as session:
        found = session.prepare({})
        assert found and found[0].step == 60


def test_weights_that_torchtitan_exports_at_the_end_are_not_resumed_from(make_run: MakeRun) -> None:
    run = make_run(uid="job")
    with sessions.opened(run) as session:
        session.prepare({})
        titan = Titan(session.saving, True, 99, 100)
        meta_torchtitan._publish_from(titan, session, session.saving)
        titan.save(100, last_step=True)
    assert checkpoints(run) == {"step-000100": "weights"}
    with sessions.opened(run) as session:
        assert session.prepare({}) is None
