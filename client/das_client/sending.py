"""Sending, by a client that waits. Made by client/generate.py of async_sending.py; don't edit."""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

import httpx

from das_client.address import Address
from das_client.call import Call, problem_of
from das_client.errors import ProblemError, ServiceUnreachable
from das_client.retries import IN_FLIGHT, RETRIED_STATUSES, Retries

CONNECT_S = 10.0
# To a request with If-None-Match alone.
NOT_MODIFIED = 304


class Sending:
    """A connection to a service, with patience. Close it, or use it as a context."""

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        retries: Retries | None = None,
        timeout_s: float = 60.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """See `Client`."""
        self._address = Address.of(url, key)
        self._retries = retries or Retries()
        self._timeout_s = timeout_s
        # Redirections aren't followed: the key is for this address.
        self._http = httpx.Client(transport=transport, follow_redirects=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all connections."""
        self._http.close()

    def _send(self, call: Call) -> httpx.Response:
        """The answer to a request, sent again where that can help. Raises `ProblemError` and `ServiceUnreachable`."""
        headers = self._headers(call)
        began = time.monotonic()
        failures = 0
        while True:
            asked: float | None = None
            error: Exception
            try:
                response = self._http.request(
                    call.method,
                    self._address.url + call.path,
                    headers=headers,
                    timeout=self._timeout(call.held_s),
                    **call.arguments(),
                )
            except httpx.TransportError as broken:
                error = self._unreachable(broken)
                again = call.repeats or isinstance(broken, httpx.ConnectError | httpx.ConnectTimeout)
            except httpx.HTTPError as broken:
                error, again = self._unreachable(broken), False
            else:
                if response.is_success or response.status_code == NOT_MODIFIED:
                    return response
                error = problem_of(response, time.time())
                again = isinstance(error, ProblemError) and _may_pass(error, call)
                asked = error.retry_after_s if isinstance(error, ProblemError) else None
            failures += asked is None
            pause = self._retries.pause(failures, time.monotonic() - began, asked) if again else None
            if pause is None:
                raise error from error.__cause__
            time.sleep(pause)

    @contextmanager
    def _open(self, call: Call) -> Iterator[httpx.Response]:
        """An answer that is read while it comes, sent for once. Raises as `_send`."""
        try:
            with self._http.stream(
                call.method,
                self._address.url + call.path,
                headers=self._headers(call),
                timeout=self._timeout(call.held_s),
                **call.arguments(),
            ) as response:
                if not response.is_success:
                    response.read()
                    raise problem_of(response, time.time())
                yield response
        except httpx.HTTPError as broken:
            raise self._unreachable(broken) from broken

    def _headers(self, call: Call) -> dict[str, str]:
        headers = {"Accept": "application/json", "User-Agent": "das-client", **call.headers}
        if self._address.key is not None:
            headers["Authorization"] = f"Bearer {self._address.key}"
        if call.method == "POST":
            headers.setdefault("Idempotency-Key", str(uuid.uuid4()))
        return headers

    def _timeout(self, held_s: float) -> httpx.Timeout:
        return httpx.Timeout(self._timeout_s + held_s, connect=min(CONNECT_S, self._timeout_s))

    def _unreachable(self, error: httpx.HTTPError) -> ServiceUnreachable:
        said = str(error) or type(error).__name__
        made = ServiceUnreachable(f"{self._address.url} gave no answer: {said}")
        made.__cause__ = error
        return made


def _may_pass(error: ProblemError, call: Call) -> bool:
    """Whether the same request may be answered later. What a 502 or 504 stands for may have been done already."""
    if error.status in (429, 503):
        return True
    return call.repeats and (error.status in RETRIED_STATUSES or error.code == IN_FLIGHT)
