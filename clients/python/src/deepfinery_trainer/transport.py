"""Sends calls, repeats them while the service restarts, and follows streams; sync and async."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
from httpx_sse import EventSource, ServerSentEvent

from . import parsing
from .calls import Call
from .errors import StreamInterruptedError
from .retries import FIRST_PAUSE, Outcome, Retries, final
from .settings import Settings

_VERSION = "0.1.0"
#: Seconds without any data after which a stream counts as broken. The service sends comments.
_STREAM_TIMEOUT = 60.0


def _options(settings: Settings, timeout: float) -> dict[str, Any]:
    headers = {"User-Agent": f"deepfinery-trainer/{_VERSION}", "Accept": "application/json"}
    if settings.token:
        headers["X-TRAINER-TOKEN"] = settings.token
    # Redirects are not followed, so that the token is sent to this service only.
    return {"base_url": f"{settings.url}/", "headers": headers, "timeout": timeout}


def _request(client: httpx.Client | httpx.AsyncClient, call: Call) -> httpx.Request:
    body = None if call.body is None else dict(call.body)
    return client.build_request(
        call.method, call.path, params=call.params, json=body, headers=dict(call.headers)
    )


def _stream(client: httpx.Client | httpx.AsyncClient, call: Call) -> httpx.Request:
    request = _request(client, call)
    request.extensions["timeout"] = httpx.Timeout(_STREAM_TIMEOUT).as_dict()
    return request


def _interrupted(call: Call, error: httpx.TransportError) -> StreamInterruptedError:
    return StreamInterruptedError(f"{call.path} was cut off before its end: {error}")


class Transport:
    """Sends calls and waits for their responses."""

    def __init__(self, settings: Settings, timeout: float, retry_seconds: float) -> None:
        self._http = httpx.Client(**_options(settings, timeout))
        self._retry_seconds = retry_seconds

    def close(self) -> None:
        self._http.close()

    def send(self, call: Call) -> httpx.Response:
        """Send a call until there is a final response.

        Raises:
            UnreachableError: The service did not respond in time.
        """
        retries = Retries(call, self._retry_seconds)
        while True:
            outcome: Outcome
            try:
                outcome = self._http.send(_request(self._http, call))
            except httpx.TransportError as error:
                outcome = error
            pause = retries.pause(outcome)
            if pause is None:
                return final(outcome)
            time.sleep(pause)

    def events(self, call: Call) -> Iterator[ServerSentEvent]:
        """The events of a stream until it has ended for good. Where it breaks, it is resumed."""
        last = None
        while True:
            response = self._open(call.after(last))
            if response.status_code == httpx.codes.NO_CONTENT:
                return
            try:
                for event in EventSource(response).iter_sse():
                    last = event.id or last
                    yield event
            except httpx.TransportError:
                pass
            finally:
                response.close()
            time.sleep(FIRST_PAUSE)

    def lines(self, call: Call) -> Iterator[str]:
        """The lines of a text as they come.

        Raises:
            StreamInterruptedError: The text was cut off.
        """
        response = self._open(call)
        try:
            yield from response.iter_lines()
        except httpx.TransportError as error:
            raise _interrupted(call, error) from error
        finally:
            response.close()

    def _open(self, call: Call) -> httpx.Response:
        """A response whose body has not been read."""
        retries = Retries(call, self._retry_seconds)
        while True:
            outcome: Outcome
            try:
                outcome = self._http.send(_stream(self._http, call), stream=True)
                if not outcome.is_success:
                    outcome.read()
            except httpx.TransportError as error:
                outcome = error
            pause = retries.pause(outcome)
            if pause is None:
                response = final(outcome)
                return response if response.is_success else parsing.document(response)
            time.sleep(pause)


class AsyncTransport:
    """As `Transport`, for asyncio."""

    def __init__(self, settings: Settings, timeout: float, retry_seconds: float) -> None:
        self._http = httpx.AsyncClient(**_options(settings, timeout))
        self._retry_seconds = retry_seconds

    async def close(self) -> None:
        await self._http.aclose()

    async def send(self, call: Call) -> httpx.Response:
        """As `Transport.send`."""
        retries = Retries(call, self._retry_seconds)
        while True:
            outcome: Outcome
            try:
                outcome = await self._http.send(_request(self._http, call))
            except httpx.TransportError as error:
                outcome = error
            pause = retries.pause(outcome)
            if pause is None:
                return final(outcome)
            await asyncio.sleep(pause)

    async def events(self, call: Call) -> AsyncIterator[ServerSentEvent]:
        """As `Transport.events`."""
        last = None
        while True:
            response = await self._open(call.after(last))
            if response.status_code == httpx.codes.NO_CONTENT:
                return
            try:
                async for event in EventSource(response).aiter_sse():
                    last = event.id or last
                    yield event
            except httpx.TransportError:
                pass
            finally:
                await response.aclose()
            await asyncio.sleep(FIRST_PAUSE)

    async def lines(self, call: Call) -> AsyncIterator[str]:
        """As `Transport.lines`."""
        response = await self._open(call)
        try:
            async for line in response.aiter_lines():
                yield line
        except httpx.TransportError as error:
            raise _interrupted(call, error) from error
        finally:
            await response.aclose()

    async def _open(self, call: Call) -> httpx.Response:
        retries = Retries(call, self._retry_seconds)
        while True:
            outcome: Outcome
            try:
                outcome = await self._http.send(_stream(self._http, call), stream=True)
                if not outcome.is_success:
                    await outcome.aread()
            except httpx.TransportError as error:
                outcome = error
            pause = retries.pause(outcome)
            if pause is None:
                response = final(outcome)
                return response if response.is_success else parsing.document(response)
            await asyncio.sleep(pause)
