"""The lease of a checkpoint prefix: one job writes beneath it at a time.

A writer makes a claim, an object of its own beneath `config/`, and then lists all claims. It holds
the lease once its claim was the only one. Each claim is stored before its writer lists, so of two
writers at least one sees the other, and two never hold the lease together. This needs a store with
current lists, as S3, Google Cloud Storage, Azure and disks have. It needs no conditional writes,
which many servers that speak S3 ignore.
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
# How often a holder renews its claim, and when a claim that does not change is dead, in seconds.
RENEWAL = 15.0
EXPIRY = 90.0
# How often a writer that waits looks at the claim of another one, in seconds.
INTERVAL = 0.5


@dataclass(frozen=True)
class Claim:
    """A claim as it is stored."""

    uri: str
    # Unknown where another version has written it.
    holder: Holder | None
    held: bool
    content: bytes

    @property
    def order(self) -> str:
        """Decides between claims: the later term, then chance."""
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
        # The thread that renews and the publisher both look at the claims.
        self._looking = threading.Lock()
        self._released = threading.Event()

    def acquire(self) -> None:
        """Takes the lease. A TrainingError names the writer that has it."""
        while not self._ask():
            pass
        threading.Thread(target=self._keep, name="lease", daemon=True).start()

    def check(self) -> None:
        """Makes sure that the lease is still held. A TrainingError names who took it over."""
        self._renew()
        if self._lost:
            raise TrainingError(f"{self._lost}: this process stops and writes nothing more")

    @property
    def is_held(self) -> bool:
        """Whether the lease is held, as far as this process knows."""
        return self._uri is not None

    def release(self) -> None:
        """Gives the lease back."""
        self._released.set()
        with self._looking:
            self._withdraw()

    def _ask(self) -> bool:
        """Makes a claim. False when it had to give way to another one, which is gone by then."""
        begun = clock()
        terms = [int(CLAIM.findall(claim.uri)[0]) for claim in self._around()]
        # Later than those whose end this writer has waited for: they may come back.
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
        # Others may soon take a claim for dead that did not change for so long.
        if clock() - begun > self._expiry / 2:
            self._withdraw()
        return self.is_held

    def _wait_for_end(self, rival: Claim) -> None:
        """Waits until a claim is gone. A TrainingError says that its writer holds the lease."""
        until = clock() + self._expiry
        now: Claim | None = rival
        while now:
            changed = now.content != rival.content
            if self._is_over(now):
                self._storage.delete([now.uri])
                return
            if now.held and (changed or (now.holder and now.holder.lives_here())):
                raise TrainingError(self._taken_by(now))
            if changed:
                rival, until = now, clock() + self._expiry
            if clock() > until:
                LOG.warning("taking over the lease of %s, which has expired", now.holder or now.uri)
                self._storage.delete([now.uri])
                return
            time.sleep(INTERVAL)
            now = self._read(rival.uri)

    def _is_over(self, claim: Claim) -> bool:
        """Whether a claim is of an earlier attempt of this job, or of a process that died here."""
        if claim.holder is None:
            return False
        return claim.holder.attempts_of == self._holder.attempts_of or claim.holder.died_here()

    def _keep(self) -> None:
        """Renews the claim until the lease is released or lost."""
        while not self._released.wait(self._renewal) and self.is_held:
            try:
                self._renew()
            except Exception as error:
                LOG.warning("the lease of %s could not be renewed: %s", self._prefix, error)

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
                # A process that slept since it listed may have brought back a removed claim.
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
            "renewals": self._renewals,
            "renewed_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        self._storage.write(self._uri, (json.dumps(content, indent=2) + "\n").encode())

    def _around(self) -> Iterator[Claim]:
        """The claims of this prefix, of prefixes beneath it, and of those that it lies beneath."""
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
            return Claim(uri, Holder(**read["holder"]), bool(read["held"]), content)
        except (ValueError, KeyError, TypeError):
            return Claim(uri, None, True, content)

    def _taken_by(self, claim: Claim) -> str:
        whose = f", by {claim.holder}" if claim.holder else ""
        prefix = claim.uri.rsplit("/config/", 1)[0]
        return (
            f"{prefix} is being written to{whose}; wait for its end or delete it, "
            "or choose another run_id"
        )


def clock() -> float:
    """Seconds, those included for which the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _order(uri: str) -> str:
    return uri.rsplit("/", 1)[-1]
