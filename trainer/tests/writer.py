"""Writes to a prefix as train.py does, but trains nothing: for races of many writers.

It says `ready`, claims the prefix at the next line of standard input, saves one step, says
`held`, and leaves the prefix at the line after that. `WRITER_ALONE` names a file whose lock only
one writer gets, `WRITER_MACHINE` a machine to claim from, `WRITER_HOLDS` the seconds to stay where
there is no input.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import failure
import train
from checkpoints import Native, name_of
from lease import Lease
from publisher import Draft
from run import Run, TrainingError
from session import Session
from signals import Termination


def main(argv: Sequence[str], environment: Mapping[str, str]) -> int:
    """Writes to the prefix of a command of train.py; gives the exit code that train.py would."""
    try:
        run = train.read_command(argv, environment)
        print("ready", flush=True)
        sys.stdin.readline()
        write(run, environment)
    except TrainingError as error:
        return failure.report(error, environment)
    return 0


def write(run: Run, environment: Mapping[str, str]) -> None:
    """Saves one step, as the only writer."""
    with Termination() as termination:
        session = Session(run, run.scratch / "log", termination)
        holder = run.holder
        if machine := environment.get("WRITER_MACHINE"):
            holder = replace(holder, machine=machine)
        session.lease = Lease(session.storage, run.prefix, holder, renewal=0.2, expiry=30)
        try:
            session.claim()
            with Path(environment["WRITER_ALONE"]).open("a") as alone:
                fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
                session.checkpoints.clear_uncommitted()
                save(session)
                print("held", flush=True)
                if not sys.stdin.readline():
                    time.sleep(float(environment.get("WRITER_HOLDS", "0")))
                session.check()
        finally:
            session.lease.release()


def save(session: Session) -> None:
    """Publishes the step after the newest one."""
    step = 1 + next(iter(session.checkpoints.committed_steps()), 0)
    file = session.saving / f"{name_of(step)}.pt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(session.run.holder.attempts_of)
    session.publisher.publish(Draft(step, lambda: [Native(file, file.name)]))
    session.publisher.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
