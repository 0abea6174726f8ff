"""Signatures by Standard Webhooks 1.0.0 (symmetric): base64 of HMAC-SHA256 over `id.timestamp.body`."""

import base64
import hashlib
import hmac
from collections.abc import Iterable

from jobs.webhooks.sealing import key_of

VERSION = "v1"


def signed_headers(
    delivery_id: str, timestamp: int, body: str, secrets: Iterable[str]
) -> list[tuple[str, str]]:
    """The three headers of one attempt; a signature for each secret, one of which the receiver knows.

    Args:
        timestamp: seconds since 1970, of this attempt.
    """
    signed = f"{delivery_id}.{timestamp}.{body}".encode()
    signatures = (
        base64.b64encode(hmac.digest(key_of(secret), signed, hashlib.sha256)).decode("ascii")
        for secret in secrets
    )
    return [
        ("webhook-id", delivery_id),
        ("webhook-timestamp", str(timestamp)),
        ("webhook-signature", " ".join(f"{VERSION},{signature}" for signature in signatures)),
    ]
