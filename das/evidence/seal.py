"""A report's seal: a digest of its canonical JSON (RFC 8785) and, with an operator's key, an Ed25519 signature."""

import hashlib
import json
import os
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rfc8785
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from das.errors import EvidenceError

ALGORITHM = "Ed25519"
_DIGEST = "sha256:"
_LARGEST = 2.0**53
"""From here on whole numbers aren't told apart by doubles."""


def canonical(document: Any) -> bytes:
    """The one spelling of a JSON value (RFC 8785).

    Raises:
        EvidenceError: it has no such spelling, as NaN hasn't and whole numbers from 2^53.
    """
    try:
        return rfc8785.dumps(document)
    except (rfc8785.CanonicalizationError, RecursionError) as error:
        raise EvidenceError(f"The report can't be written canonically: {error}.") from error


def parsed(data: bytes) -> Any:
    """What canonical JSON was written of. A JSON number is a double: digits beyond 2^53 aren't a whole number.

    Raises:
        ValueError, RecursionError: it isn't JSON.
    """
    return json.loads(data, parse_int=_number)


def _number(digits: str) -> int | float:
    number = float(digits)
    return number if abs(number) >= _LARGEST else int(digits)


def digest_of(report: Mapping[str, Any]) -> str:
    """`sha256:` and the digest of the report's canonical JSON."""
    return _DIGEST + hashlib.sha256(canonical(report)).hexdigest()


@dataclass(frozen=True)
class PublicKey:
    """The public half of an operator's key."""

    raw: bytes

    @classmethod
    def read(cls, path: Path) -> "PublicKey":
        """From a PEM file, of the public key or of the private one.

        Raises:
            EvidenceError: the file isn't there or holds no Ed25519 key.
        """
        data = _read(path)
        if b"PRIVATE KEY" in data:
            return SigningKey.read(path).public
        try:
            key = load_pem_public_key(data)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise EvidenceError(f"{path} holds no public key in PEM.") from error
        if not isinstance(key, Ed25519PublicKey):
            raise EvidenceError(f"{path} holds a key of another kind; reports are signed with {ALGORITHM}.")
        return cls(key.public_bytes_raw())

    @property
    def id(self) -> str:
        """The first digits of its digest: what people compare."""
        return hashlib.sha256(self.raw).hexdigest()[:16]

    @property
    def pem(self) -> str:
        """As a PEM file's text."""
        key = Ed25519PublicKey.from_public_bytes(self.raw)
        return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def signed(self, message: bytes, signature: bytes) -> bool:
        """Whether the key's holder signed the message."""
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except InvalidSignature:
            return False
        return True


class SigningKey:
    """An operator's private key."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        """Sign with this key."""
        self._key = key
        self.public = PublicKey(key.public_key().public_bytes_raw())

    @classmethod
    def read(cls, path: Path) -> "SigningKey":
        """From a PEM file without a password.

        Raises:
            EvidenceError: the file isn't there or holds no such key.
        """
        try:
            key = load_pem_private_key(_read(path), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise EvidenceError(
                f"{path} holds no private key in PEM without a password; `das report key` makes one."
            ) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise EvidenceError(f"{path} holds a key of another kind; reports are signed with {ALGORITHM}.")
        return cls(key)

    @classmethod
    def create(cls, path: Path) -> "SigningKey":
        """A new key in a new file, which its owner alone may read.

        Raises:
            EvidenceError: there is a file already, or it can't be written.
        """
        key = Ed25519PrivateKey.generate()
        data = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        try:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(data)
        except FileExistsError as error:
            raise EvidenceError(f"{path} is there already; a key isn't written over.") from error
        except OSError as error:
            raise EvidenceError(f"{path} can't be written: {error.strerror}.") from error
        return cls(key)

    def sign(self, message: bytes) -> bytes:
        """The signature of a message, 64 bytes."""
        return self._key.sign(message)


def sealed(report: dict[str, Any], key: SigningKey | None) -> dict[str, Any]:
    """The report with its seal: `{"report", "seal": {"digest", "signature"}}`; no key, no signature."""
    digest = digest_of(report)
    signature = None
    if key is not None:
        signature = {
            "algorithm": ALGORITHM,
            "key_id": key.public.id,
            "public_key": b64encode(key.public.raw).decode(),
            "value": b64encode(key.sign(digest.encode())).decode(),
        }
    return {"report": report, "seal": {"digest": digest, "signature": signature}}


def check_seal(document: Any, trusted: PublicKey | None = None) -> PublicKey | None:
    """Whose key sealed a document; None where none did.

    Args:
        trusted: the operator's key, from the operator; without it the signature is held against the key in the
            document, which says that whoever has that key sealed it, and not who that is.

    Raises:
        EvidenceError: it isn't a sealed report, was changed, or isn't signed by the trusted key.
    """
    match document:
        case {
            "report": dict(report),
            "seal": {"digest": str(digest), "signature": dict() | None as signature},
        }:
            pass
        case _:
            raise EvidenceError("This isn't a sealed report: it should have `report` and `seal`.")
    if digest_of(report) != digest:
        raise EvidenceError("The report was changed after it was sealed: its digest is another.")
    if signature is None:
        if trusted is not None:
            raise EvidenceError("The report isn't signed, so nothing says that the operator made it.")
        return None
    key, value = _public(signature), _decoded(signature.get("value"), "value")
    if trusted is not None and key != trusted:
        raise EvidenceError(f"The report is signed with the key {key.id}; the one you trust is {trusted.id}.")
    if signature.get("algorithm") != ALGORITHM or not key.signed(digest.encode(), value):
        raise EvidenceError("The signature isn't one of this report by the key that it names.")
    return key


def _public(signature: Mapping[str, Any]) -> PublicKey:
    raw = _decoded(signature.get("public_key"), "public_key")
    if len(raw) != 32:
        raise EvidenceError("The signature's public_key isn't 32 bytes.")
    return PublicKey(raw)


def _decoded(value: Any, name: str) -> bytes:
    try:
        return b64decode(value, validate=True)
    except (TypeError, ValueError, NotBase64) as error:
        raise EvidenceError(f"The signature's {name} isn't base64.") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise EvidenceError(f"{path} can't be read: {error.strerror}.") from error
