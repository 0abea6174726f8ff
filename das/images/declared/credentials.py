"""C2PA manifests (content credentials): whether they say that a trained model made the picture, and with what tool.

Read by the library `c2pa`, imported only for a file that carries a manifest, and only in a decoder process. Nothing
is fetched: neither a manifest that the file names by an address nor whether a certificate was revoked. Whether a
signer can be trusted isn't asked; a manifest is a claim here like any other.
"""

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from das.images.declared.record import Declared, declared

TRAINED = "trainedAlgorithmicMedia"
"""IPTC's word for media that a trained model made; what stands before it is its address."""

_MIME = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "AVIF": "image/avif",
    "GIF": "image/gif",
    "TIFF": "image/tiff",
}
_SETTINGS: dict[str, Any] = {
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_trust": False},
    "core": {"allowed_network_hosts": []},
}
_MAX_REPORT = 4_000_000
"""Characters of the library's report; a longer one isn't taken apart."""
_MAX_MANIFESTS = 20
_MAX_ACTIONS = 200


def carries_manifest(data: bytes) -> bool:
    """Whether a file may carry a manifest: its box is named in it. Costs a search through the bytes."""
    return b"c2pa" in data and b"jumb" in data


def with_credentials(found: Declared | None, data: bytes, format: str) -> Declared | None:
    """What the file's manifest says added to what else was found: fields that are filled already stay."""
    report = read_report(data, format)
    said = None if report is None else declared_of(report)
    if said is None or found is None:
        return said or found
    return replace(
        found,
        source=f"{found.source}; {said.source}",
        tool=found.tool or said.tool,
        ai_generated=said.ai_generated,
    )


def read_report(data: bytes, format: str) -> dict[str, Any] | None:
    """The library's report on the manifests of a file; None if there are none that can be read."""
    try:
        import c2pa

        with (
            c2pa.Context.from_dict(_SETTINGS) as context,
            c2pa.Reader(_MIME[format], io.BytesIO(data), context=context) as reader,
        ):
            text = reader.json()
        report = json.loads(text) if len(text) <= _MAX_REPORT else None
    except Exception:  # noqa: BLE001 (hostile manifests; the library raises many kinds)
        return None
    return report if isinstance(report, dict) else None


def declared_of(report: Mapping[str, Any]) -> Declared | None:
    """What the manifests say of how the picture was made: the active one, and those of what it was edited from."""
    trained, agent, generator = False, None, None
    for manifest in lineage(report):
        generator = generator or next(map(_name, _dicts(manifest.get("claim_generator_info"))), None)
        for action in _actions(manifest):
            if str(action.get("digitalSourceType", "")).rpartition("/")[2] == TRAINED:
                trained, agent = True, agent or _name(action.get("softwareAgent"))
    holds = report.get("validation_state") in ("Valid", "Trusted")
    source = "C2PA manifest" if holds else "C2PA manifest that doesn't fit the file or its signature"
    return declared(source, tool=agent or generator, ai_generated=trained)


def lineage(report: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The active manifest, and those of the pictures that it was edited from, the nearest first."""
    manifests = report.get("manifests")
    label, seen = report.get("active_manifest"), set[str]()
    while isinstance(manifests, dict) and isinstance(label, str) and label not in seen:
        manifest = manifests.get(label)
        if not isinstance(manifest, dict) or len(seen) >= _MAX_MANIFESTS:
            return
        seen.add(label)
        yield manifest
        parents = [
            one for one in _dicts(manifest.get("ingredients")) if one.get("relationship") == "parentOf"
        ]
        label = parents[0].get("active_manifest") if parents else None


def assertions(manifest: Mapping[str, Any], *labels: str) -> Iterator[dict[str, Any]]:
    """The data of a manifest's assertions with one of these labels, or a numbered one of them (`…__1`)."""
    for assertion in _dicts(manifest.get("assertions")):
        label, data = assertion.get("label"), assertion.get("data")
        if isinstance(label, str) and label.partition("__")[0] in labels and isinstance(data, dict):
            yield data


def _actions(manifest: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for data in assertions(manifest, "c2pa.actions", "c2pa.actions.v2"):
        yield from _dicts(data.get("actions"))


def _dicts(value: object) -> Iterator[dict[str, Any]]:
    for one in value[:_MAX_ACTIONS] if isinstance(value, list) else []:
        if isinstance(one, dict):
            yield one


def _name(said: object) -> str | None:
    """A tool's name, from the text or the object that manifests have for it."""
    if isinstance(said, dict):
        said = said.get("name")
    return said if isinstance(said, str) and said.strip() else None
