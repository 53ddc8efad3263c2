"""The Hugging Face runner: transformers' Trainer, with TRL and PEFT if a job needs them."""

from __future__ import annotations

import logging
from typing import Any

import resolved
import session as sessions
from run import TrainingError
from runners import explained, hf_data, hf_model, hf_resuming, hf_trl
from runners.hf_arguments import HfArguments
from runners.hf_callback import Publishing
from runners.hf_saving import deferred_saving
from session import Session

LOG = logging.getLogger("trainer")


def run(session: Session) -> None:
    """Trains one run to its end."""
    from transformers import PrinterCallback
    from transformers.utils.logging import disable_progress_bar

    # Each checkpoint has a progress bar, which would interrupt the progress lines.
    disable_progress_bar()  # type: ignore[no-untyped-call]
    device = sessions.device_of(session.run)
    options = HfArguments.read(resolved.for_device(session.run, device))
    check_metric(options)
    chosen = hf_model.choose(session.run, session.storage, options)
    sessions.join(session.run)
    arguments = training_arguments(session, options, device)
    trainer, counted = build(session, options, arguments, chosen)
    check_batches(trainer)
    publishing = Publishing(session, trainer, counted)
    trainer.add_callback(publishing)
    trainer.before_copying = session.publisher.wait
    trainer.remove_callback(PrinterCallback)
    session.publisher.keep(options.value("save_total_limit"))
    record = {**session.run.arguments, "precision": options.value("precision")}
    found = session.prepare(record, terms(session, options, trainer))
    if found:
        hf_resuming.prepare(session, trainer, *found)
        if 0 < arguments.max_steps <= found[0].step:
            LOG.info("the run is already complete at step %d: nothing to train", found[0].step)
            return
    LOG.info("training %s with %s", session.run.model_id, type(trainer).__name__)
    with explained("transformers cannot train this job", has_begun=lambda: publishing.has_begun):
        trainer.train(resume_from_checkpoint=str(found[1]) if found else None)
    publishing.end()


def terms(session: Session, options: HfArguments, trainer: Any) -> dict[str, Any]:
    """What a run that resumes has in common with the one that saved."""
    run, arguments, method = session.run, trainer.args, options.value("peft_method")
    adapters = ("lora_rank", "lora_alpha", "lora_target_modules") if method != "none" else ()
    data = trainer.train_dataset
    return {
        "global_batch_size": hf_resuming.global_batch(arguments),
        "max_seq_len": options.value("max_seq_len"),
        "packing": options.value("packing"),
        "assistant_only_loss": options.value("assistant_only_loss"),
        "dataset_streaming": options.value("dataset_streaming"),
        "evaluation": arguments.eval_strategy != "no",
        "dataset_uri": run.dataset_uri,
        "sequences": len(data) if hasattr(data, "__len__") else None,
        "tokenizer": options.value("tokenizer_name") or run.model_id,
        "seed": arguments.seed,
        "optim": str(getattr(arguments.optim, "value", arguments.optim)),
        "peft_method": method,
        **{name: options.value(name) for name in adapters},
    }


def check_metric(options: HfArguments) -> None:
    """Refuses an unknown metric before training, instead of at the first evaluation."""
    name = str(options.value("metric_for_best_model")).removeprefix("eval_")
    known = ("loss", *(hf_trl.METRICS if options.needs_trl else ()))
    if name not in known:
        raise TrainingError(
            f"metric_for_best_model {name}: unknown metric; choose one of {', '.join(known)}"
        )


def check_batches(trainer: Any) -> None:
    """Refuses a dataset of which dataloader_drop_last would leave nothing to train on."""
    arguments, data = trainer.args, trainer.train_dataset
    batch = arguments.per_device_train_batch_size * arguments.world_size
    if not arguments.dataloader_drop_last or not hasattr(data, "__len__") or len(data) >= batch:
        return
    raise TrainingError(
        f"dataloader_drop_last: the dataset has {len(data)} sequences, fewer than one batch of all "
        f"processes ({batch}); omit it, or lower batch_size"
    )


def training_arguments(session: Session, options: HfArguments, device: str) -> Any:
    """The training arguments of transformers, or of TRL if the job needs it."""
    native = {
        **options.native(),
        # These models use every weight in every pass.
        "ddp_find_unused_parameters": False,
        **options.passed,
        "output_dir": str(session.saving),
        "use_cpu": device == "cpu",
        "disable_tqdm": True,
        "logging_first_step": True,
        # The publisher deletes old checkpoints from the store and from this machine.
        "save_total_limit": None,
        # Each node uploads the files of its processes.
        "save_on_each_node": session.run.nodes > 1,
        "remove_unused_columns": False,
    }
    with explained("transformers rejects the arguments", others=(RuntimeError,)):
        if options.needs_trl:
            return hf_trl.arguments(native, options)
        from transformers import TrainingArguments

        return TrainingArguments(**native)


def build(
    session: Session, options: HfArguments, arguments: Any, chosen: hf_model.Chosen
) -> tuple[Any, float]:
    """The trainer, and the average number of tokens in a sequence."""
    from transformers import Trainer

    with explained("transformers rejects the job", others=(RuntimeError,)):
        model = hf_model.build(session.run.model_id, chosen.model, options, arguments)
        adapters = hf_model.adapters(options)
        tokens = hf_data.tokenizer(session.run, chosen.tokenizer, options)
        hf_model.check_fits(model.config, tokens, options, session.run.given)
        if options.needs_trl:
            return hf_trl.build(
                session, options, tokens, model=model, args=arguments, peft_config=adapters
            )
        if adapters:
            from peft import get_peft_model

            model = get_peft_model(model, adapters)
        data = hf_data.read(session, options, tokens)
        trainer = deferred_saving(Trainer)(
            model=model,
            args=arguments,
            train_dataset=data.train,
            eval_dataset=data.held,
            data_collator=data.collate,
            # Each checkpoint contains the tokenizer of the training.
            processing_class=tokens.pretrained(),
        )
        return trainer, data.tokens_per_sequence
