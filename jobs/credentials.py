"""The secrets that are handed out: API keys and links for people, how they are written, told apart and compared.

A key is `das_`, its id, and a secret of 256 random bits; a link's is `dasl_`. The id is no secret: lists and the log
name a key by it, and it is what the database is asked for. Of the secret only SHA-256 is kept. A slow hash with a
salt protects what people choose, since that can be guessed; 256 random bits can't, however fast the hash is, and
this one is computed in every request.
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from enum import StrEnum

ID_LENGTH = 12
SECRET_BYTES = 32
# Neither vowels nor characters that look alike: an id is read out on the telephone and spells nothing.
ALPHABET = "23456789bcdfghjkmnpqrstvwxz"
ID = rf"[{ALPHABET}]{{{ID_LENGTH}}}"
TOKEN = re.compile(rf"(dasl?)_({ID})_([A-Za-z0-9_-]{{43}})")


class Kind(StrEnum):
    """What a secret opens: a key everything that its scopes allow, a link the page alone."""

    KEY = "key"
    LINK = "link"


class Scope(StrEnum):
    """What a key may do: ask and erase questions, read answers, decide, or make and revoke keys."""

    ASK = "ask"
    READ = "read"
    DECIDE = "decide"
    ADMIN = "admin"


PREFIXES = {Kind.KEY: "das", Kind.LINK: "dasl"}
KINDS = {prefix: kind for kind, prefix in PREFIXES.items()}


@dataclass(frozen=True)
class Token:
    """What somebody shows. Its `repr` doesn't hold the secret."""

    kind: Kind
    id: str
    digest: str

    @classmethod
    def read(cls, text: str) -> "Token | None":
        """The token that a text is; None if it isn't one."""
        found = TOKEN.fullmatch(text)
        return None if found is None else cls(KINDS[found[1]], found[2], digest_of(text))

    def matches(self, kind: str, digest: str) -> bool:
        """Whether this is the token that is known by its kind and digest; takes as long whatever differs."""
        return hmac.compare_digest(self.digest, digest) and self.kind == kind


def new_id() -> str:
    """A name for a new key."""
    return "".join(secrets.choice(ALPHABET) for _ in range(ID_LENGTH))


def new_token(kind: Kind, key_id: str) -> str:
    """A new secret, as it is shown once."""
    return f"{prefix_of(kind, key_id)}_{secrets.token_urlsafe(SECRET_BYTES)}"


def prefix_of(kind: str, key_id: str) -> str:
    """How a key begins, as lists show it."""
    return f"{PREFIXES[Kind(kind)]}_{key_id}"


def digest_of(token: str) -> str:
    """SHA-256 of a token in hex: what is kept of it."""
    return hashlib.sha256(token.encode()).hexdigest()
