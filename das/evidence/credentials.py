"""C2PA in the PDF of a report: all its bytes signed with an operator's certificate, and what it says read back.

The library that does it is large: import this where a PDF is signed or checked, and not in the API's process.
"""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import c2pa

from das.errors import EvidenceError
from das.evidence.certificate import Certificate

ASSERTION = "das.evidence.report"
"""The label of what is asserted: `{"digest"}` of the report that the PDF is drawn from."""
_MEDIA_TYPE = "application/pdf"
_DRAWN = "http://cv.iptc.org/newscodes/digitalsourcetype/dataDrivenMedia"


def signed(pdf: bytes, title: str, digest: str, made_by: tuple[str, str], certificate: Certificate) -> bytes:
    """The PDF with a signed C2PA manifest in it.

    Args:
        digest: of the sealed report inside.
        made_by: program and version.

    Raises:
        EvidenceError: C2PA doesn't take the certificate.
    """
    name, version = made_by
    created = {"action": "c2pa.created", "digitalSourceType": _DRAWN}
    definition = {
        "claim_generator_info": [{"name": name, "version": version}],
        "title": title,
        "format": _MEDIA_TYPE,
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": [created]}},
            {"label": ASSERTION, "data": {"digest": digest}},
        ],
    }
    out = io.BytesIO()
    try:
        info = c2pa.C2paSignerInfo(certificate.algorithm.encode(), certificate.chain, certificate.key, None)
        builder = c2pa.Builder(json.dumps(definition))
        builder.sign(c2pa.Signer.from_info(info), _MEDIA_TYPE, io.BytesIO(pdf), out)
    except c2pa.C2paError as error:
        raise EvidenceError(f"C2PA can't sign with this certificate: {_shortened(error)}.") from error
    return out.getvalue()


@dataclass(frozen=True)
class Credentials:
    """What a PDF's manifest says.

    Attributes:
        signer: the common name in the certificate, as its issuer put it there.
        issuer: the organisation in it.
        digest: of the report that it was drawn from, as asserted.
        trusted: whether the certificate leads to one of those that are trusted; None: none were given.
    """

    signer: str
    issuer: str
    digest: str | None
    trusted: bool | None


def credentials_of(pdf: bytes, anchors: Path | None = None) -> Credentials | None:
    """What the manifest in a PDF says, checked against every byte of it; None where it has none.

    Args:
        anchors: a PEM file of the certificates that are trusted to name signers.

    Raises:
        EvidenceError: a byte was changed since it was signed, or the manifest or `anchors` can't be read.
    """
    try:
        context = _context(anchors)
        reader = c2pa.Reader.try_create(_MEDIA_TYPE, io.BytesIO(pdf), context=context)
        if reader is None:
            return None
        told: dict[str, Any] = json.loads(reader.json())
    except (c2pa.C2paError, ValueError) as error:
        raise EvidenceError(f"The PDF's C2PA manifest can't be read: {_shortened(error)}.") from error
    state = told.get("validation_state")
    if state not in ("Valid", "Trusted"):
        failures = told.get("validation_results", {}).get("activeManifest", {}).get("failure", [])
        codes = ", ".join(str(one.get("code")) for one in failures) or "no reason given"
        raise EvidenceError(f"The PDF isn't as it was signed with C2PA: {codes}.")
    manifest = told["manifests"][told["active_manifest"]]
    signature = manifest.get("signature_info") or {}
    asserted = [one["data"] for one in manifest.get("assertions", ()) if one["label"] == ASSERTION]
    return Credentials(
        signer=str(signature.get("common_name") or "an unnamed signer"),
        issuer=str(signature.get("issuer") or "an unnamed issuer"),
        digest=asserted[0].get("digest") if len(asserted) == 1 else None,
        trusted=None if anchors is None else state == "Trusted",
    )


def _context(anchors: Path | None) -> "c2pa.Context":
    # Nothing is fetched: a check must not tell a stranger's server that it took place.
    settings: dict[str, Any] = {
        "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_trust": anchors is not None},
        "core": {"allowed_network_hosts": []},
    }
    if anchors is not None:
        try:
            settings["trust"] = {"trust_anchors": anchors.read_text("ascii")}
        except OSError as error:
            raise EvidenceError(f"{anchors} can't be read: {error.strerror}.") from error
        except UnicodeDecodeError as error:
            raise EvidenceError(f"{anchors} holds no certificates in PEM.") from error
    return c2pa.Context(c2pa.Settings.from_dict(settings))


def _shortened(error: Exception) -> str:
    return str(error).strip().rstrip(".")[:300] or type(error).__name__
