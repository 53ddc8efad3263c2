"""The lease of a prefix allows one writer at a time, on a disk and in a real object store."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import TRAINER

from holder import Holder
from lease import Lease
from run import TrainingError
from storage import Storage

PREFIX = "runs/run-1/framework=meta"
Take = Callable[..., Lease]


def holder(job: str, machine: str = "") -> Holder:
    """The writer of a job, on this machine or on an unknown one."""
    mine = Holder.of(
        {"TRAINER_JOB_UID": job, "TRAINER_JOB_NAME": job, "TRAINER_JOB_NAMESPACE": "a"}
    )
    return replace(mine, machine=machine) if machine else mine


@pytest.fixture
def take(tmp_path: Path) -> Iterator[Take]:
    """Acquires the lease of a prefix for a job."""
    taken = []

    def acquire(who: Holder, prefix: str = PREFIX, renewal: float = 0.1) -> Lease:
        lease = Lease(Storage({}), f"file://{tmp_path}/{prefix}", who, renewal, expiry=1.0)
        lease.acquire()
        taken.append(lease)
        return lease

    yield acquire
    for lease in taken:
        lease.release()


def claims(folder: Path) -> list[Path]:
    return sorted(folder.rglob("lease-*.json"))


@pytest.mark.parametrize("machine", ["", "another"])
def test_a_second_job_is_refused_with_the_name_of_the_holder(take: Take, machine: str) -> None:
    take(holder("one", machine))
    with pytest.raises(TrainingError, match=r"\(job one in namespace a\); wait"):
        take(holder("two"))
    with pytest.raises(TrainingError, match=r"\(job one"):
        take(holder("one-again"))


def test_a_lease_is_free_when_it_was_released(take: Take, tmp_path: Path) -> None:
    take(holder("one")).release()
    assert claims(tmp_path) == []
    take(holder("two", "another"))
    (claim,) = claims(tmp_path)
    content = json.loads(claim.read_text())
    assert (content["held"], content["holder"]["job"]) == (True, "two")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (PREFIX, f"{PREFIX}/checkpoints/run-2/framework=hf"),
        (f"{PREFIX}/more/run-2/framework=hf", PREFIX),
    ],
)
def test_a_prefix_within_another_one_is_the_same(take: Take, one: str, other: str) -> None:
    take(holder("one"), one)
    with pytest.raises(TrainingError, match=r"\(job one"):
        take(holder("two"), other)


def test_prefixes_beside_each_other_are_different(take: Take) -> None:
    for prefix in (PREFIX, "runs/run-1/framework=hf", "runs/run-10/framework=meta"):
        take(holder(prefix), prefix)


def test_a_later_attempt_of_a_job_takes_over_at_once(take: Take) -> None:
    earlier = take(holder("one", "machine 1"), renewal=60)
    began = time.monotonic()
    later = take(holder("one", "machine 2"), renewal=60)
    assert time.monotonic() - began < 0.5
    later.check()
    with pytest.raises(TrainingError, match="job one in namespace a"):
        earlier.check()
    assert not earlier.is_held
    later.check()


@pytest.mark.parametrize("machine", ["", "another"])
def test_a_successor_waits_for_a_job_that_stops_and_says_so(
    take: Take, tmp_path: Path, machine: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    stopping = take(holder("one", machine))
    stopping.end()
    (claim,) = claims(tmp_path)
    eventually(lambda: json.loads(claim.read_text())["ending"])
    with ThreadPoolExecutor(1) as pool:
        successor = pool.submit(take, holder("two"))
        eventually(lambda: "waiting for job one in namespace a, which stops" in caplog.text)
        assert not successor.done()
        stopping.check()
        stopping.release()
        successor.result(10).check()


def eventually(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_lease_expires_when_its_holder_does_not_renew_it(take: Take) -> None:
    gone = take(holder("one", "another"), renewal=60)
    began = time.monotonic()
    take(holder("two"))
    assert 0.9 < time.monotonic() - began < 3
    with pytest.raises(TrainingError, match=r"\(job two"):
        gone.check()


def test_a_holder_that_was_paused_gives_way_to_its_successor(take: Take, tmp_path: Path) -> None:
    paused = take(holder("one", "another"), renewal=60)
    (claim,) = claims(tmp_path)
    content = claim.read_bytes()
    successor = take(holder("two"))
    # It listed the claims before it was paused, and writes now.
    claim.write_bytes(content)
    successor.check()
    with pytest.raises(TrainingError, match=r"\(job two"):
        paused.check()
    assert len(claims(tmp_path)) == 1


def test_a_claim_of_an_unknown_kind_is_respected_until_it_expires(
    take: Take, tmp_path: Path
) -> None:
    file = tmp_path / PREFIX / f"config/lease-000001-{'0' * 32}.json"
    file.parent.mkdir(parents=True)
    file.write_text('{"schema_version": 9}')
    began = time.monotonic()
    take(holder("one"))
    assert time.monotonic() - began > 0.9


def test_a_killed_process_of_this_machine_holds_nothing(take: Take, tmp_path: Path) -> None:
    code = f"""
import time
from holder import Holder
from lease import Lease
from storage import Storage
Lease(Storage({{}}), "file://{tmp_path}/{PREFIX}", Holder.of({{}})).acquire()
print("held", flush=True)
time.sleep(60)
"""
    child = subprocess.Popen(
        [sys.executable, "-c", code], cwd=TRAINER, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout and child.stdout.readline() == "held\n"
    with pytest.raises(TrainingError, match=rf"\(process {child.pid} on host"):
        take(holder("two"))
    child.send_signal(signal.SIGKILL)
    child.wait()
    began = time.monotonic()
    take(holder("two"))
    assert time.monotonic() - began < 0.5
