"""Every operation against a real service, sync and async."""

import asyncio
import inspect
import itertools
from typing import Any

import pytest
from conftest import Service

from deepfinery_trainer import (
    AsyncJob,
    AsyncJobs,
    AsyncTrainer,
    InvalidRequestError,
    Job,
    JobDeletedError,
    JobRequest,
    Jobs,
    NotFoundError,
    Trainer,
)

NUMBERS = itertools.count()


def request(**changes: Any) -> JobRequest:
    number = next(NUMBERS)
    fields: JobRequest = {
        "framework": "meta",
        "model_id": "llama-debug",
        "run_id": f"run-{number:03}x",
        "checkpoint_base_uri": "file:///tmp/trainer-client-tests",
        "dataset_uri": "file:///tmp/trainer-client-tests/data/",
        "gpus_per_node": 0,
        "extra_args": {"max_steps": 5, "save_steps": 5},
    }
    return {**fields, **changes}  # type: ignore[typeddict-item]


@pytest.fixture
def trainer(service: Service) -> Any:
    with Trainer(service.url) as client:
        yield client


def test_a_job_is_created_read_suspended_resumed_and_deleted(trainer: Trainer) -> None:
    job = trainer.jobs.create(**request(labels={"team": "a"}))
    assert (job.status, job.details.detail) == ("submitted", "PyTorchJob created")
    assert job.refresh().details.model_id == "llama-debug"
    assert job.namespace == "default"
    assert job.suspend().details.suspended
    assert not job.resume().details.suspended
    assert job.name in {of.name for of in trainer.jobs.list(label_selector="team=a", progress=True)}
    assert job.manifest()["metadata"]["name"] == job.name
    job.delete()
    with pytest.raises(NotFoundError, match=job.name):
        trainer.jobs.get(job.name)


async def test_the_same_with_asyncio(service: Service) -> None:
    async with AsyncTrainer(service.url) as trainer:
        job = await trainer.jobs.create(**request(labels={"team": "async"}))
        assert (await job.refresh()).details.model_id == "llama-debug"
        assert (await job.suspend()).details.suspended
        assert not (await job.resume()).details.suspended
        listed = [of.name async for of in trainer.jobs.list(label_selector="team=async")]
        assert listed == [job.name]
        assert (await job.manifest())["metadata"]["name"] == job.name
        assert (await job.metrics()).points == []
        assert (await trainer.whoami()).name is None
        assert {of.name for of in await trainer.frameworks.list()} >= {"hf", "meta", "nemo"}
        events = job.events()
        assert (await anext(events)).kind == "status"
        copy = await job.clone(env={"TEAM": "b"})
        await copy.delete()
        await job.delete()
        with pytest.raises(NotFoundError):
            await trainer.jobs.get(job.name)


def test_an_error_names_the_argument_and_what_would_be_right(trainer: Trainer) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        trainer.jobs.create(**request(extra_args={"lr": "fast", "max_stepps": 5}))
    lines = str(refused.value).splitlines()
    assert lines[0] == 'extra_args.lr: expected number, got "fast" (E05)'
    assert "max_steps" in lines[1]
    assert [finding.code for finding in refused.value.findings] == ["E05", "E11"]
    assert refused.value.request_id


def test_a_preview_creates_nothing(trainer: Trainer) -> None:
    preview = trainer.jobs.preview(**request())
    assert preview.resolved_args["max_steps"] == 5
    assert preview.command[0] == "torchrun"
    with pytest.raises(NotFoundError):
        trainer.jobs.get(preview.name)


def test_a_list_reads_all_pages(trainer: Trainer) -> None:
    jobs = [trainer.jobs.create(**request(labels={"paged": "yes"})) for _ in range(5)]
    listed = [job.name for job in trainer.jobs.list(label_selector="paged=yes", page_size=2)]
    assert listed == [job.name for job in reversed(jobs)]
    for job in jobs:
        job.delete()


def test_a_clone_has_the_fields_of_the_original_and_the_changes(trainer: Trainer) -> None:
    original = trainer.jobs.create(
        **request(
            run_id="cloned-9",
            env={"PRICE": "5$", "TEAM": "a", "TRAINER_LOG_LEVEL": "DEBUG"},
            labels={"team": "a"},
            cpus_per_node=2,
            memory_per_node_gb=3,
            extra_args={"max_steps": 7, "lr": 0.5},
        )
    )
    copy = original.clone(extra_args={"lr": 0.25}, env={"TEAM": "b"})
    assert copy.details.run_id == "cloned-10"
    manifests = [of.manifest()["spec"]["pytorchReplicaSpecs"]["Master"] for of in (original, copy)]
    first, second = (of["template"]["spec"]["containers"][0] for of in manifests)
    assert first["resources"] == second["resources"]
    values = {of["name"]: of.get("value") for of in second["env"]}
    assert (values["PRICE"], values["TEAM"]) == ("5$$", "b")
    assert values["TRAINER_LOG_LEVEL"] == "DEBUG"
    assert values["TRAINING_EXTRA_ARGS_JSON"] == '{"lr":0.25,"max_steps":7}'
    for job in (original, copy):
        job.delete()


def test_waiting_ends_with_the_time_or_the_job(trainer: Trainer) -> None:
    job = trainer.jobs.create(**request())
    with pytest.raises(TimeoutError, match="is still"):
        job.wait(timeout=0, progress=False)
    events = job.events()
    assert next(events).kind == "status"
    job.delete()
    assert [change.kind for change in events][-1] == "deleted"
    with pytest.raises(NotFoundError):
        job.wait(progress=False)
    assert issubclass(JobDeletedError, Exception)


def test_all_events_begin_with_the_complete_list(trainer: Trainer) -> None:
    job = trainer.jobs.create(**request())
    begin = list(itertools.takewhile(lambda of: of.kind != "synced", trainer.jobs.all_events()))
    assert begin[0].kind == "reset"
    assert job.name in {change.name for change in begin}
    job.delete()


def test_frameworks_are_read_reloaded_and_rolled_back(trainer: Trainer) -> None:
    meta = trainer.frameworks.get("meta")
    assert "lr" in meta.args_schema["properties"]
    assert meta in trainer.frameworks.reload()
    with pytest.raises(InvalidRequestError, match="earlier version") as refused:
        trainer.frameworks.roll_back("meta")
    assert refused.value.status == 409
    assert [grant.role for grant in trainer.whoami().grants] == ["admin"]


def test_a_job_shows_itself_in_a_notebook_without_markup_of_others(trainer: Trainer) -> None:
    job = trainer.jobs.create(**request(model_id="<script>alert(1)</script>"))
    shown = job.refresh()._repr_html_()
    assert "&lt;script&gt;" in shown and "<script>" not in shown
    assert repr(job) == f"<Job {job.name}: {job.status}>"
    job.delete()


def test_both_clients_have_the_same_operations() -> None:
    for plain, other in ((Job, AsyncJob), (Jobs, AsyncJobs)):
        for name, method in inspect.getmembers(plain, inspect.isfunction):
            parameters = inspect.signature(getattr(other, name)).parameters
            assert list(parameters) == list(inspect.signature(method).parameters), name


async def test_parallel_submissions_survive_kills_of_the_service(tmp_path: Any) -> None:
    from conftest import launcher

    service = Service(tmp_path, launcher(tmp_path), TRAINER_LOCAL_MAX_JOBS="1000").start()
    async with AsyncTrainer(service.url) as trainer:
        requests = [request(run_id=f"killed-{number:03}x") for number in range(200)]
        creations = [asyncio.create_task(trainer.jobs.create(**of)) for of in requests]
        done = 0
        for share in (40, 100, 160):
            while done < share:
                await asyncio.sleep(0.01)
                done = sum(task.done() for task in creations)
            await asyncio.to_thread(service.kill)
            await asyncio.to_thread(service.start)
        created = [job.name for job in await asyncio.gather(*creations)]
        listed = [job.name async for job in trainer.jobs.list()]
    service.stop()
    assert sorted(created) == sorted(listed) == [f"meta-killed-{n:03}x" for n in range(200)]
