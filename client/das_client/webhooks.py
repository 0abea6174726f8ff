"""Webhooks of a DAS Attribution service: are they authentic? (Standard Webhooks 1.0.0, symmetric signatures.)

event = das_client.webhooks.verify(request.headers, request.body, [secret])
"""

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Iterable, Mapping
from typing import Any

from das_client.errors import UsageError, WebhookRefused

ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"
PREFIX = "whsec_"
TOLERANCE_S = 300.0
# A timestamp is ten digits until the year 2286; anything much longer is no moment.
LONGEST_TIMESTAMP = 12


def verify(
    headers: Mapping[str, str],
    body: bytes | str,
    secrets: str | Iterable[str],
    *,
    tolerance_s: float = TOLERANCE_S,
    now_s: float | None = None,
) -> dict[str, Any]:
    """The event in a webhook's body, if it was signed with one of the secrets a short while ago.

    The same `webhook-id` may come more than once: keep the ids of what you have worked on.

    Args:
        headers: of the request; their names in any case.
        body: exactly as it was received. JSON that was parsed and written again has another signature.
        secrets: those of the endpoint, `whsec_…`; two while one replaces the other.
        tolerance_s: how far the timestamp may be from now, either way.
        now_s: seconds since 1970; default: the clock's.

    Raises:
        WebhookRefused: it isn't authentic, or isn't a webhook.
        UsageError: there is no secret, or one that isn't a secret.
    """
    keys = [_key(secret) for secret in ([secrets] if isinstance(secrets, str) else secrets)]
    if not keys:
        raise UsageError("no secret was given: pass that of the webhook endpoint, whsec_…")
    named = {name.lower(): value for name, value in headers.items()}
    missing = [name for name in (ID, TIMESTAMP, SIGNATURE) if not named.get(name)]
    if missing:
        raise WebhookRefused(f"the request isn't a signed webhook: it lacks {', '.join(missing)}")
    _check_moment(named[TIMESTAMP], time.time() if now_s is None else now_s, tolerance_s)
    content = body.encode() if isinstance(body, str) else bytes(body)
    signed = b".".join((named[ID].encode(), named[TIMESTAMP].encode(), content))
    shown = [given for given in map(_signature, named[SIGNATURE].split()) if given is not None]
    # Every pair is compared, in constant time each: how long it takes tells nothing of the secrets.
    matches = [
        hmac.compare_digest(hmac.digest(key, signed, hashlib.sha256), given)
        for key in keys
        for given in shown
    ]
    if not any(matches):
        raise WebhookRefused("the signature matches none of the secrets")
    try:
        event = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise WebhookRefused("the body is signed and isn't JSON") from error
    if not isinstance(event, dict):
        raise WebhookRefused("the body is signed and isn't a JSON object")
    return event


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.strip().removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError) as error:
        raise UsageError("a webhook's secret is whsec_ and base64; this one isn't") from error
    if not key:
        raise UsageError("a webhook's secret is whsec_ and base64; this one is empty")
    return key


def _check_moment(text: str, now_s: float, tolerance_s: float) -> None:
    if not (text.isascii() and text.isdigit() and len(text) <= LONGEST_TIMESTAMP):
        raise WebhookRefused("webhook-timestamp isn't a number of seconds since 1970")
    apart = now_s - int(text)
    if abs(apart) > tolerance_s:
        when = "old" if apart > 0 else "ahead of this machine's clock"
        raise WebhookRefused(f"it is {abs(apart):.0f} seconds {when}; {tolerance_s:g} are allowed")


def _signature(text: str) -> bytes | None:
    """The bytes of a signature of the version that is known; None for another one."""
    version, _, value = text.partition(",")
    if version != "v1":
        return None
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None
