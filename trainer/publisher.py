"""Publishes checkpoints while the training goes on: one thread, one checkpoint at a time."""

from __future__ import annotations

import logging
import re
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from checkpoints import CheckpointManager, Native, StoredFile, name_of
from run import PassingError, Run

LOG = logging.getLogger("trainer")

# Files of one process: its shard (torch.distributed.checkpoint), its random state (transformers).
# Whatever else another node has written stands at the first one too, with other times in it.
OF_A_PROCESS = re.compile(r"__\d+_\d+\.distcp$|rng_state_\d+\.pth$|rank_?\d+")
# How long rank 0 waits for the files of other nodes, in seconds, and how often it looks.
PATIENCE = 3600.0
INTERVAL = 0.2


@dataclass(frozen=True)
class Draft:
    """A checkpoint on this machine, to be published."""

    step: int
    # Writes the native files if they are not there yet, and gives them.
    write: Callable[[], list[Native]]
    metadata: dict[str, Any] = field(default_factory=dict)
    # Steps that are kept although they are old, such as the best one.
    protected: frozenset[int] = frozenset()
    # Whether the native files are needed no more when they are published.
    discard: bool = True
    # Nodes that have files of it: all of them where the state is sharded, else the first.
    nodes: int = 1


class Publisher:
    """Uploads and commits in the background; what fails there fails the run at the next call."""

    def __init__(
        self,
        run: Run,
        manager: CheckpointManager,
        check: Callable[[], None],
        after: Callable[[], None],
    ) -> None:
        """`check` refuses to write, `after` is called when a checkpoint is published."""
        self._run, self._manager, self._check, self._after = run, manager, check, after
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._keep: int | None = None

    def keep(self, count: int | None) -> None:
        """Removes old checkpoints from now on, so that so many are left."""
        self._keep = count

    def publish(self, draft: Draft) -> None:
        """Starts to publish, when the checkpoint before is done."""
        self.wait()
        self._thread = threading.Thread(target=self._guarded, args=(draft,), name="publisher")
        self._thread.start()

    def wait(self) -> None:
        """Waits until all that was begun is committed."""
        if self._thread:
            begun = time.monotonic()
            self._thread.join()
            self._thread = None
            if (waited := time.monotonic() - begun) > 1:
                LOG.info("waited %.1f s for the upload of a checkpoint", waited)
        if self._failure:
            failure, self._failure = self._failure, None
            raise failure

    def _guarded(self, draft: Draft) -> None:
        try:
            self._publish(draft)
        except BaseException as error:
            self._failure = error

    def _publish(self, draft: Draft) -> None:
        begun = time.monotonic()
        natives = draft.write()
        if not self._run.is_leader or self._run.node >= draft.nodes:
            return
        self._check()
        stored = [self._manager.beside_replaced(native) for native in natives]
        files = self._manager.upload(stored, None if self._run.is_writer else OF_A_PROCESS)
        if self._run.is_writer:
            files += self._of_others(draft)
            # The first is what a run resumes from; others, such as exports, stand beside it.
            metadata = {**draft.metadata, "native": stored[0].name}
            self._check()
            self._manager.commit(draft.step, files, metadata)
            self._manager.remove_replaced()
            self._manager.delete_parts(draft.step, range(1, draft.nodes))
            LOG.info("saved step %d in %.2f s", draft.step, time.monotonic() - begun)
            if self._keep is not None:
                self._manager.keep(self._keep, draft.protected, draft.step)
        else:
            self._manager.write_part(draft.step, self._run.node, files)
        if draft.discard:
            for native in natives:
                remove(native)
        self._after()

    def _of_others(self, draft: Draft) -> list[StoredFile]:
        """What the other nodes have uploaded: the store itself says when they are done."""
        files: list[StoredFile] = []
        begun = time.monotonic()
        for node in range(1, draft.nodes):
            while (part := self._manager.read_part(draft.step, node)) is None:
                if time.monotonic() - begun > PATIENCE:
                    raise PassingError(
                        f"{name_of(draft.step)}: node {node} has not uploaded its files in "
                        f"{PATIENCE:.0f} s; see its log"
                    )
                time.sleep(INTERVAL)
            files += part
        return files


def remove(native: Native) -> None:
    """Removes what was written for a checkpoint."""
    if native.path.is_dir():
        shutil.rmtree(native.path, ignore_errors=True)
    else:
        native.path.unlink(missing_ok=True)
