"""The certificate that PDFs of reports are signed with, for C2PA: read and checked when a service starts."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from das.errors import EvidenceError

_CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
_LEAST_RSA_BITS = 2048


@dataclass(frozen=True, repr=False)
class Certificate:
    """A chain of certificates (PEM, the signer's first), its private key (PEM), and C2PA's name of the algorithm."""

    chain: bytes
    key: bytes
    algorithm: str

    @classmethod
    def read(cls, chain: Path, key: Path) -> "Certificate":
        """From two PEM files, the key without a password.

        Raises:
            EvidenceError: a file isn't there or holds something else, the key isn't the certificate's, or that can't
                sign or has expired.
        """
        try:
            certificates = x509.load_pem_x509_certificates(_read(chain))
        except ValueError as error:
            raise EvidenceError(f"{chain} holds no certificates in PEM.") from error
        try:
            private = load_pem_private_key(_read(key), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise EvidenceError(f"{key} holds no private key in PEM without a password.") from error
        match private:
            case ec.EllipticCurvePrivateKey() if private.curve.name in _CURVES:
                algorithm = _CURVES[private.curve.name]
            case rsa.RSAPrivateKey() if private.key_size >= _LEAST_RSA_BITS:
                algorithm = "ps256"
            case ed25519.Ed25519PrivateKey():
                algorithm = "ed25519"
            case _:
                raise EvidenceError(
                    f"{key} holds a key that C2PA doesn't sign with; it takes P-256, P-384, P-521, Ed25519, and RSA"
                    f" from {_LEAST_RSA_BITS} bits."
                )
        own = certificates[0]
        form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if own.public_key().public_bytes(*form) != private.public_key().public_bytes(*form):
            raise EvidenceError(
                f"{key} isn't the key of the first certificate in {chain}; the signer's has to come first."
            )
        now = datetime.now(UTC)
        if not own.not_valid_before_utc <= now <= own.not_valid_after_utc:
            raise EvidenceError(
                f"The certificate in {chain} is valid from {own.not_valid_before_utc:%-d %B %Y} to"
                f" {own.not_valid_after_utc:%-d %B %Y}, and not now."
            )
        return cls(
            b"".join(each.public_bytes(Encoding.PEM) for each in certificates),
            private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            algorithm,
        )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise EvidenceError(f"{path} can't be read: {error.strerror}.") from error
