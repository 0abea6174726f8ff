"""Secrets of endpoints: made here, sealed in the database.

Unlike an API key, of which a digest is enough, an endpoint's secret is needed in clear for every signature. In the
database, its log and its dumps it stands encrypted (Fernet: AES-128-CBC with HMAC-SHA256), under a key that isn't
there: DAS_WEBHOOK_KEY, or a file in the data directory.
"""

import base64
import hashlib
import secrets
from functools import cached_property
from typing import TYPE_CHECKING

from das.durable import lock, write_bytes
from jobs.errors import JobsError
from jobs.settings import Settings

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

PREFIX = "whsec_"
# Standard Webhooks asks for 24 to 64.
SECRET_BYTES = 32
KEY_FILE = "webhooks.key"
PRIVATE = 0o600


class SecretUnreadable(JobsError):
    """A secret was sealed under another key than this process has."""


def new_secret() -> str:
    """A secret as Standard Webhooks writes it: `whsec_` and base64."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode("ascii")


def key_of(secret: str) -> bytes:
    """What is signed with."""
    return base64.b64decode(secret.removeprefix(PREFIX), validate=True)


class Seal:
    """Seals and opens with the key of `settings`; made at its first use."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def close(self, secret: str) -> str:
        """The secret as it is kept."""
        return self._fernet.encrypt(secret.encode("ascii")).decode("ascii")

    def open(self, sealed: str) -> str:
        """What was sealed.

        Raises:
            SecretUnreadable: under another key.
        """
        from cryptography.fernet import InvalidToken

        try:
            return self._fernet.decrypt(sealed.encode("ascii")).decode("ascii")
        except InvalidToken as error:
            raise SecretUnreadable(
                "the secret of a webhook endpoint was sealed under another key: give every API process and das"
                f" io-worker the same DAS_WEBHOOK_KEY, or the {KEY_FILE} of the data directory back, or rotate the"
                " endpoint's secret"
            ) from error

    @cached_property
    def _fernet(self) -> "Fernet":
        # Where no endpoint was ever made nothing is loaded.
        from cryptography.fernet import Fernet

        given = self._settings.webhook_key
        key = _of_file(self._settings) if given is None else given.get_secret_value().encode()
        digest = hashlib.sha256(b"das webhook endpoints\0" + key).digest()
        return Fernet(base64.urlsafe_b64encode(digest))


def _of_file(settings: Settings) -> bytes:
    path = settings.prepare_data_dir() / KEY_FILE
    with lock(path.with_suffix(".lock")):
        if not path.exists():
            write_bytes(path, secrets.token_bytes(SECRET_BYTES), mode=PRIVATE)
        return path.read_bytes()
