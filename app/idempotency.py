"""`Idempotency-Key`: a request that is sent again makes nothing twice (draft-ietf-httpapi-idempotency-key-header).

A route that makes something takes the key of its request (`key_of`), and makes it within `once`, to which it says
what of the request counts: what was received, not how it was written, since a form sent again has other boundaries.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any

import anyio
from fastapi import Header
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from app.callers import Caller
from app.problems import FieldProblem, Problem
from app.service import Service
from jobs.errors import KeyReused, RequestForgotten, RequestInFlight
from jobs.idempotency import Claim, fingerprint, key_id

HEADER = "Idempotency-Key"
MAX_KEY_LENGTH = 255
KEY = re.compile(rf"[\x20-\x7e]{{1,{MAX_KEY_LENGTH}}}")
# Sent with an answer to a request that was answered before.
REPLAYED = {"Idempotency-Replayed": "true"}

# For the API's description only: `key_of` reads it, since several of it are an error.
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias=HEADER,
        # Its limits are `key_of`'s: so the error says more than a pattern.
        json_schema_extra={"pattern": f"^[\\x20-\\x7e]{{1,{MAX_KEY_LENGTH}}}$"},
        description="A name of your choice for this request, such as a UUID. Sent again with the same key within 24"
        f" hours, it makes nothing new and is answered with what was made. Up to {MAX_KEY_LENGTH} characters of"
        " ASCII.",
        examples=["0193a6c1-f3d0-7e52-8f1e-5b1b2f0c9d11"],
    ),
]


@dataclass(frozen=True)
class Key:
    """The key of one request, and under what it is kept: one caller's key is nobody else's."""

    text: str
    row_id: str


@dataclass(frozen=True)
class Turn:
    """Whose turn it is: `made` is what was made for an earlier one of this request; else this one makes it, and
    completes the `claim` where it makes it. Both are None for a request without a key."""

    claim: Claim | None = None
    made: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """What an answer says of it."""
        return {} if self.made is None else REPLAYED


def key_of(request: Request, caller: Caller) -> Key | None:
    """The request's key; None without one. Raises `Problem` invalid-request for one that can't be used."""
    given = request.headers.getlist(HEADER)
    if not given:
        return None
    if len(given) > 1 or not KEY.fullmatch(given[0]):
        why = f"has to be sent once, with 1 to {MAX_KEY_LENGTH} characters of printable ASCII."
        raise Problem("invalid-request", f"{HEADER}: {why}", errors=[FieldProblem(detail=why, header=HEADER)])
    return Key(given[0], key_id(caller.owner, given[0]))


async def known(service: Service, key: Key | None) -> bool:
    """Whether there is an answer to a request of this key already, so that no room is needed for it."""
    return key is not None and await run_in_threadpool(service.store.idempotency.known, key.row_id)


@contextlib.asynccontextmanager
async def once(
    service: Service, request: Request, key: Key | None, picture: bytes | str, fields: dict[str, Any]
) -> AsyncIterator[Turn]:
    """The turn of a request. Where the block raises, the request may be sent again under the same key.

    Args:
        picture: its bytes, or its address.
        fields: everything else that was asked, as JSON has it.

    Raises `Problem`: idempotency-key-reused for another request and where nobody can say any more whether it is
    another, request-in-flight while the same is worked on.
    """
    if key is None:
        yield Turn()
        return
    kept = service.store.idempotency
    try:
        claim = await run_in_threadpool(
            lambda: kept.claim(key.row_id, _fingerprint(request, key, picture, fields))
        )
        if isinstance(claim, str):
            yield Turn(made=claim)
            return
        try:
            yield Turn(claim)
        except BaseException:
            # Also of a request that is cancelled; what was made has completed the claim, and it stays.
            with anyio.CancelScope(shield=True):
                await run_in_threadpool(kept.release, claim)
            raise
    except (KeyReused, RequestForgotten) as error:
        raise Problem("idempotency-key-reused", _sentence(error)) from error
    except RequestInFlight as error:
        raise Problem(
            "request-in-flight", _sentence(error), {"Retry-After": str(error.retry_seconds)}
        ) from error


def _fingerprint(request: Request, key: Key, picture: bytes | str, fields: dict[str, Any]) -> str:
    kind, data = (b"address", picture.encode()) if isinstance(picture, str) else (b"bytes", picture)
    asked = json.dumps(fields, sort_keys=True, ensure_ascii=True, default=str)
    parts = [
        request.method.encode(),
        request.url.path.encode(),
        request.url.query.encode(),
        kind,
        hashlib.sha256(data).digest(),
        asked.encode(),
    ]
    return fingerprint(key.text, parts)


def _sentence(error: Exception) -> str:
    text = str(error)
    return f"{text[0].upper()}{text[1:]}."
