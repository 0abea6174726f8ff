"""Asking about a batch of pictures into a file of answers, which can be gone on with."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from das_client.client import Client
from das_client.errors import DasClientError, ProblemError, ServiceUnreachable
from das_client.ledger import Asked, Ledger
from das_client.models import Attribution
from das_client.sources import Source, digest

GONE = 410
# The key doesn't let anybody in: no other picture would be taken either.
HOPELESS = (401, 403)


@dataclass
class Count:
    """What became of a batch's pictures."""

    answered: int = 0
    already: int = 0
    missing: int = 0


def run(
    client: Client,
    pictures: Iterable[Source],
    ledger: Ledger,
    options: Mapping[str, Any],
    *,
    at_once: int,
    wait_s: float,
    tell: Callable[[str], None],
) -> Count:
    """Ask for every answer that the ledger lacks, `at_once` at a time.

    Args:
        tell: is given a sentence for each picture that has no answer.

    Raises:
        ProblemError: the key lets nobody in.
        ServiceUnreachable: the service is gone; what was answered is kept.
    """
    count = Count()
    running: dict[Future[Attribution], tuple[Source, Asked]] = {}

    def settle(done: set[Future[Attribution]]) -> None:
        for future in done:
            source, asked = running.pop(future)
            try:
                answer = future.result()
            except ServiceUnreachable:
                raise
            except DasClientError as error:
                if isinstance(error, ProblemError) and error.status in HOPELESS:
                    raise
                count.missing += 1
                tell(f"{source.name}: {error}")
            else:
                ledger.write(asked, answer.model_dump(mode="json", by_alias=True))
                count.answered += 1

    pool = ThreadPoolExecutor(at_once)
    try:
        for source in pictures:
            try:
                data = source.read()
            except DasClientError as error:
                count.missing += 1
                tell(f"{source.name}: {error}")
                continue
            asked = (source.name, _digest(data, options))
            if ledger.answered(asked):
                count.already += 1
                continue
            key = ledger.key(asked)
            question = pool.submit(_ask, client, data, options, key, partial(ledger.renew, asked), wait_s)
            running[question] = (source, asked)
            if len(running) >= at_once:
                settle(wait(running, return_when=FIRST_COMPLETED).done)
        while running:
            settle(wait(running, return_when=FIRST_COMPLETED).done)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return count


def _ask(
    client: Client, data: bytes, options: Mapping[str, Any], key: str, renew: Callable[[], str], wait_s: float
) -> Attribution:
    given = cast(dict[str, Any], dict(options))
    try:
        return client.ask(data, wait=wait_s, idempotency_key=key, **given)
    except ProblemError as error:
        if error.status != GONE:
            raise
        # It was asked before and has been erased since.
        return client.ask(data, wait=wait_s, idempotency_key=renew(), **given)


def _digest(data: bytes, options: Mapping[str, Any]) -> str:
    """Of a picture and of what is asked about it: other options are another question."""
    told = json.dumps(dict(options), sort_keys=True, default=str).encode()
    return hashlib.sha256(digest(data).encode() + told).hexdigest()
