"""Publishes checkpoints in a background thread, one at a time."""

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

# Files of one process: its shard (torch.distributed.checkpoint) or random state (transformers).
# All other files of a node also exist on the first node, but may contain different timestamps.
OF_A_PROCESS = re.compile(r"__\d+_\d+\.distcp$|rng_state_\d+\.pth$|rank_?\d+")
# How long rank 0 waits for the files of other nodes, and how often it checks, in seconds.
PATIENCE = 3600.0
INTERVAL = 0.2


@dataclass(frozen=True)
class Draft:
    """A local checkpoint that is to be published."""

    step: int
    # Writes the native files if necessary, and returns them.
    write: Callable[[], list[Native]]
    metadata: dict[str, Any] = field(default_factory=dict)
    # Old steps that must be kept, such as the best one.
    protected: frozenset[int] = frozenset()
    # Whether to delete the native files after they are published.
    discard: bool = True
    # The number of nodes with files: all nodes for a sharded state, otherwise 1.
    nodes: int = 1


class Publisher:
    """Uploads and commits in the background. The next call raises errors that occurred there."""

    def __init__(
        self,
        run: Run,
        manager: CheckpointManager,
        check: Callable[[], None],
        after: Callable[[], None],
    ) -> None:
        """`check` raises an error if writing is not allowed. `after` runs after each commit."""
        self._run, self._manager, self._check, self._after = run, manager, check, after
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._keep: int | None = None

    def keep(self, count: int | None) -> None:
        """Sets the number of checkpoints to keep."""
        self._keep = count

    def publish(self, draft: Draft) -> None:
        """Starts to publish a checkpoint, after waiting for the previous one."""
        self.wait()
        self._thread = threading.Thread(target=self._guarded, args=(draft,), name="publisher")
        self._thread.start()

    def wait(self) -> None:
        """Waits until the pending checkpoint is committed."""
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
            # A run resumes from the first one. The others are exports and the like.
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
        """The files of the other nodes, which signal through the store when they are done."""
        files: list[StoredFile] = []
        begun = time.monotonic()
        for node in range(1, draft.nodes):
            while (part := self._manager.read_part(draft.step, node)) is None:
                if time.monotonic() - begun > PATIENCE:
                    raise PassingError(
                        f"{name_of(draft.step)}: node {node} did not upload its files within "
                        f"{PATIENCE:.0f} s; see its log"
                    )
                time.sleep(INTERVAL)
            files += part
        return files


def remove(native: Native) -> None:
    """Deletes the local files of a checkpoint."""
    if native.path.is_dir():
        shutil.rmtree(native.path, ignore_errors=True)
    else:
        native.path.unlink(missing_ok=True)
