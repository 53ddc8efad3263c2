"""When a call is sent again, and after what pause."""

import random
from dataclasses import dataclass, field
from time import monotonic

import httpx

from .calls import Call
from .errors import UnreachableError

#: Seconds of the first pause. Each further one is twice as long.
FIRST_PAUSE = 0.2
#: Maximum seconds between two attempts, unless the service asks for more.
LONGEST_PAUSE = 5.0
#: Statuses of a service that is restarting, overloaded or without its cluster.
PASSING = frozenset({429, 502, 503, 504})

#: What an attempt leads to.
Outcome = httpx.Response | httpx.TransportError


@dataclass
class Retries:
    """Decides how long one call is repeated.

    Every operation except `roll_back` can be repeated: a submission has an idempotency key, and the
    others lead to the same state.
    """

    call: Call
    seconds: float
    started: float = field(default_factory=monotonic)
    attempts: int = 0

    def pause(self, outcome: Outcome) -> float | None:
        """Seconds until the next attempt, or None if this outcome is final."""
        if not _passes(outcome) or self.call.path.endswith("/rollback"):
            return None
        longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2**self.attempts)
        pause = max(_retry_after(outcome), random.uniform(longest / 2, longest))
        self.attempts += 1
        is_late = monotonic() + pause - self.started > self.seconds
        return None if is_late else pause


def final(outcome: Outcome) -> httpx.Response:
    """The response of the last attempt.

    Raises:
        UnreachableError: The service did not respond.
    """
    if isinstance(outcome, httpx.Response):
        return outcome
    url = outcome.request.url
    address = f"{url.scheme}://{url.netloc.decode()}"
    reason = str(outcome) or type(outcome).__name__
    raise UnreachableError(f"no response from {address}: {reason}") from outcome


def _passes(outcome: Outcome) -> bool:
    return not isinstance(outcome, httpx.Response) or outcome.status_code in PASSING


def _retry_after(outcome: Outcome) -> float:
    headers = outcome.headers if isinstance(outcome, httpx.Response) else {}
    value = headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else 0.0
