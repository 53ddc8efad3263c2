"""Hugging Face: transformers' Trainer, with TRL and PEFT where a job asks for them."""

from __future__ import annotations

import logging
from typing import Any

import session as sessions
from run import TrainingError
from runners import hf_data, hf_model, hf_trl
from runners.hf_arguments import Wish
from runners.hf_callback import Publishing
from runners.hf_saving import later
from session import Session
from storage import reason

LOG = logging.getLogger("trainer")


def run(session: Session) -> None:
    """Trains one run to its end."""
    from transformers import PrinterCallback
    from transformers.utils.logging import disable_progress_bar

    # One of each checkpoint, in the middle of the lines of progress.
    disable_progress_bar()  # type: ignore[no-untyped-call]
    wish = Wish.read(session.run.arguments)
    device = sessions.join(session.run)
    arguments = training_arguments(session, wish, device)
    trainer, counted = build(session, wish, arguments)
    publishing = Publishing(session, trainer, counted)
    trainer.add_callback(publishing)
    trainer.before_copying = session.publisher.wait
    trainer.remove_callback(PrinterCallback)
    session.publisher.keep(wish.value("save_total_limit"))
    found = session.prepare(wish.resolved())
    LOG.info("training %s with %s", session.run.model_id, type(trainer).__name__)
    trainer.train(resume_from_checkpoint=str(found[1]) if found else None)
    publishing.end()


def training_arguments(session: Session, wish: Wish, device: str) -> Any:
    """What transformers, or TRL where it is asked for, takes."""
    native = {
        **wish.native(on_cpu=device == "cpu"),
        # Every weight of these models is used in every pass.
        "ddp_find_unused_parameters": False,
        **wish.passed,
        "output_dir": str(session.saving),
        "use_cpu": device == "cpu",
        "disable_tqdm": True,
        "logging_first_step": True,
        # Old checkpoints are removed from the store and from this machine by the publisher.
        "save_total_limit": None,
        # Each node publishes what its processes have written.
        "save_on_each_node": session.run.nodes > 1,
        "remove_unused_columns": False,
    }
    try:
        if wish.needs_trl:
            return hf_trl.arguments(native, wish)
        from transformers import TrainingArguments

        return TrainingArguments(**native)
    except (ImportError, RuntimeError, TypeError, ValueError) as error:
        raise TrainingError(f"transformers refuses the arguments: {reason(error)}") from error


def build(session: Session, wish: Wish, arguments: Any) -> tuple[Any, float]:
    """The trainer, and the tokens that a sequence has on average."""
    from transformers import Trainer

    model = hf_model.build(session.run.model_id, wish, arguments)
    adapters = hf_model.adapters(wish)
    try:
        if wish.needs_trl:
            return hf_trl.build(session, wish, arguments, model, adapters)
        if adapters:
            from peft import get_peft_model

            model = get_peft_model(model, adapters)
        data = hf_data.read(session, wish)
        trainer = later(Trainer)(
            model=model,
            args=arguments,
            train_dataset=data.train,
            eval_dataset=data.held,
            data_collator=data.collate,
        )
    except (ImportError, RuntimeError, ValueError) as error:
        raise TrainingError(f"transformers refuses the job: {reason(error)}") from error
    return trainer, data.tokens_per_sequence
