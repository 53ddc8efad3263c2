"""The lease of a checkpoint prefix, which ensures that only one job writes to it.

A writer creates a claim, a separate object in `config/`, and then lists all claims. It holds the
lease once its claim is the only one. Each writer stores its claim before it lists the claims.
Therefore at least one of two writers sees the other, and they never hold the lease together. The
protocol needs strongly consistent listings, which S3, Google Cloud Storage, Azure and disks have.
It needs no conditional writes, which many S3-compatible servers ignore.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timezone

from holder import Holder
from run import TrainingError
from storage import Storage

LOG = logging.getLogger("trainer")

CLAIM = re.compile(r"(?:^|/)config/lease-(\d{6,})-[0-9a-f]{32}\.json$")
# How often a holder renews its claim, and when an unchanged claim expires, in seconds.
RENEWAL = 15.0
EXPIRY = 90.0
# How often a waiting writer reads the claim of another one, in seconds.
INTERVAL = 0.5


@dataclass(frozen=True)
class Claim:
    """A stored claim."""

    uri: str
    # None if another version of the format was used.
    holder: Holder | None
    held: bool
    # Whether the writer has received SIGTERM and only saves its last step.
    ending: bool
    content: bytes

    @property
    def order(self) -> str:
        """The order of claims: the later term wins, then a random id decides."""
        return _order(self.uri)


class Lease:
    """The lease of one prefix."""

    def __init__(
        self,
        storage: Storage,
        prefix: str,
        holder: Holder,
        renewal: float = RENEWAL,
        expiry: float = EXPIRY,
    ) -> None:
        self._storage, self._prefix, self._holder = storage, prefix, holder
        self._renewal, self._expiry = renewal, expiry
        self._uri: str | None = None
        self._term = self._renewals = 0
        self._lost: str | None = None
        # The renewal thread and the publisher both access the claims.
        self._looking = threading.Lock()
        self._ending = self._released = False
        # Wakes the renewal thread when one of these changes.
        self._changed = threading.Event()

    def acquire(self) -> None:
        """Acquires the lease, or raises a TrainingError that names its holder."""
        while not self._ask():
            pass
        threading.Thread(target=self._keep, name="lease", daemon=True).start()

    def check(self) -> None:
        """Renews the lease, or raises a TrainingError that names the job that took it over."""
        self._renew()
        if self._lost:
            raise TrainingError(f"{self._lost}: this process stops without writing anything else")

    @property
    def is_held(self) -> bool:
        """Whether this process holds the lease, as far as it knows."""
        return self._uri is not None

    def end(self) -> None:
        """Records in the claim that this writer is about to exit, so that a successor waits."""
        self._ending = True
        self._changed.set()

    def release(self) -> None:
        """Releases the lease."""
        self._released = True
        self._changed.set()
        with self._looking:
            self._withdraw()

    def _ask(self) -> bool:
        """Creates a claim. Returns False if it yielded to another claim, which has ended since."""
        begun = clock()
        terms = [int(CLAIM.findall(claim.uri)[0]) for claim in self._around()]
        # A later term than all claims that this writer has waited for, in case they reappear.
        self._term = 1 + max([self._term, *terms])
        self._uri = f"{self._prefix}/config/lease-{self._term:06}-{uuid.uuid4().hex}.json"
        try:
            self._write(held=False)
            while others := [claim for claim in self._around() if claim.uri != self._uri]:
                first = min(others, key=lambda claim: (not claim.held, claim.order))
                give_way = first.held or first.order < _order(self._uri)
                if give_way:
                    self._withdraw()
                self._wait_for_end(first)
                if give_way:
                    return False
            self._write(held=True)
        except BaseException:
            self._withdraw()
            raise
        # Others may soon consider a claim expired that has not changed for this long.
        if clock() - begun > self._expiry / 2:
            self._withdraw()
        return self.is_held

    def _wait_for_end(self, rival: Claim) -> None:
        """Waits until a claim has ended. Raises a TrainingError if its writer holds the lease.

        A writer that has received SIGTERM saves its last step and exits, so this waits for it.
        """
        until = clock() + self._expiry
        said = False
        now: Claim | None = rival
        while now:
            changed = now.content != rival.content
            if self._is_over(now):
                self._storage.delete([now.uri])
                return
            lives = changed or (now.holder and now.holder.lives_here())
            if now.held and lives and not now.ending:
                raise TrainingError(self._taken_by(now))
            if now.ending and not said:
                said = True
                LOG.info("waiting for %s, which stops and still writes here", now.holder)
            if changed:
                rival, until = now, clock() + self._expiry
            if clock() > until:
                LOG.warning("taking over the expired lease of %s", now.holder or now.uri)
                self._storage.delete([now.uri])
                return
            time.sleep(INTERVAL)
            now = self._read(rival.uri)

    def _is_over(self, claim: Claim) -> bool:
        """Whether a claim belongs to an earlier attempt of this job or to a local dead process."""
        if claim.holder is None:
            return False
        return claim.holder.attempts_of == self._holder.attempts_of or claim.holder.died_here()

    def _keep(self) -> None:
        """Renews the claim until the lease is released or lost."""
        while self.is_held:
            self._changed.wait(self._renewal)
            self._changed.clear()
            if self._released:
                return
            try:
                self._renew()
            except Exception as error:
                LOG.warning("cannot renew the lease of %s: %s", self._prefix, error)

    def _renew(self) -> None:
        with self._looking:
            if self._uri is None:
                return
            begun = clock()
            claims = list(self._claims(f"{self._prefix}/config"))
            later = [claim for claim in claims if claim.held and claim.order > _order(self._uri)]
            gone = all(claim.uri != self._uri for claim in claims)
            if not later and not gone:
                self._renewals += 1
                self._write(held=True)
                # After a long sleep, this write may have restored a claim that others have deleted.
                gone = clock() - begun > self._expiry
            if later:
                self._lost = self._taken_by(later[0])
            elif gone:
                self._lost = f"another process has taken over the lease of {self._prefix}"
            if self._lost:
                LOG.warning("%s", self._lost)
                self._withdraw()

    def _withdraw(self) -> None:
        uri, self._uri = self._uri, None
        if uri:
            self._storage.delete([uri])

    def _write(self, *, held: bool) -> None:
        assert self._uri
        content = {
            "schema_version": 1,
            "holder": asdict(self._holder),
            "held": held,
            "ending": self._ending,
            "renewals": self._renewals,
            "renewed_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        self._storage.write(self._uri, (json.dumps(content, indent=2) + "\n").encode())

    def _around(self) -> Iterator[Claim]:
        """The claims of this prefix, of prefixes inside it, and of those that contain it."""
        yield from self._claims(self._prefix)
        parts = self._prefix.split("/")
        for count in range(3, len(parts)):
            # The prefix of a run ends with its framework.
            if parts[count - 1].startswith("framework="):
                yield from self._claims("/".join([*parts[:count], "config"]))

    def _claims(self, uri: str) -> Iterator[Claim]:
        for name in self._storage.sizes(uri):
            if CLAIM.search(f"{uri}/{name}") and (claim := self._read(f"{uri}/{name}")):
                yield claim

    def _read(self, uri: str) -> Claim | None:
        try:
            content = self._storage.read(uri)
        except FileNotFoundError:
            return None
        try:
            read = json.loads(content)
            holder, held = Holder(**read["holder"]), bool(read["held"])
            return Claim(uri, holder, held, read.get("ending") is True, content)
        except (ValueError, KeyError, TypeError):
            return Claim(uri, None, held=True, ending=False, content=content)

    def _taken_by(self, claim: Claim) -> str:
        whose = f" ({claim.holder})" if claim.holder else ""
        prefix = claim.uri.rsplit("/config/", 1)[0]
        return (
            f"another job is writing to {prefix}{whose}; wait until it ends, delete it, "
            "or choose another run_id"
        )


def clock() -> float:
    """Monotonic time in seconds, including time in which the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _order(uri: str) -> str:
    return uri.rsplit("/", 1)[-1]
