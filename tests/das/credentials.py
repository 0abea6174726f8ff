"""Pictures with C2PA manifests, signed by a chain of certificates that is made here."""

import datetime
import io
import json
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

TRAINED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
_MIME = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}


def created(source_type: str, agent: str | dict[str, str] | None = None) -> dict[str, Any]:
    """The assertion that the picture was created in this way."""
    action: dict[str, Any] = {"action": "c2pa.created", "digitalSourceType": source_type}
    if agent is not None:
        action["softwareAgent"] = agent
    return {"label": "c2pa.actions.v2", "data": {"actions": [action]}}


def signed(
    data: bytes,
    format: str,
    *assertions: dict[str, Any],
    generator: str = "A Generator",
    remote: str | None = None,
) -> bytes:
    """The file with a signed manifest of these assertions; with `remote`, only the address of one."""
    import c2pa

    definition = {
        "claim_generator_info": [{"name": generator, "version": "1.0"}],
        "title": "a picture",
        "assertions": list(assertions),
    }
    builder = c2pa.Builder(json.dumps(definition))
    if remote is not None:
        builder.set_no_embed()
        builder.set_remote_url(remote)
    info = c2pa.C2paSignerInfo(b"es256", *chain(), None)
    signed = io.BytesIO()
    builder.sign(c2pa.Signer.from_info(info), _MIME[format], io.BytesIO(data), signed)
    return signed.getvalue()


@cache
def chain() -> tuple[bytes, bytes]:
    """A chain of certificates, the signer's first and the root last, and the signer's private key, as PEM."""
    now = datetime.datetime.now(datetime.UTC)

    def certificate(
        name: str,
        key: ec.EllipticCurvePrivateKey,
        issuer: str,
        issuer_key: ec.EllipticCurvePrivateKey,
        *,
        authority: bool,
    ) -> x509.Certificate:
        def subject(common: str) -> x509.Name:
            return x509.Name(
                [
                    x509.NameAttribute(NameOID.ORGANIZATION_NAME, "DAS tests"),
                    x509.NameAttribute(NameOID.COMMON_NAME, common),
                ]
            )

        builder = (
            x509.CertificateBuilder()
            .subject_name(subject(name))
            .issuer_name(subject(issuer))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=not authority,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    key_cert_sign=authority,
                    crl_sign=authority,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
            )
        )
        if not authority:
            builder = builder.add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False
            )
        return builder.sign(issuer_key, hashes.SHA256())

    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root = certificate("root", root_key, "root", root_key, authority=True)
    own = certificate("signer", key, "root", root_key, authority=False)
    pem = serialization.Encoding.PEM
    certificates = own.public_bytes(pem) + root.public_bytes(pem)
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificates, private
