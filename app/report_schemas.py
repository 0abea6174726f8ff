"""What the routes of reports answer with."""

from typing import Any, Literal

from pydantic import BaseModel, Field


class Signature(BaseModel):
    """An Ed25519 signature of the digest's text."""

    algorithm: Literal["Ed25519"]
    key_id: str = Field(description="The first digits of the public key's SHA-256.")
    public_key: str = Field(description="32 bytes in base64.")
    value: str = Field(description="64 bytes in base64.")


class Seal(BaseModel):
    """What shows that a report wasn't changed."""

    digest: str = Field(description="`sha256:` and the digest of `report` in its canonical JSON (RFC 8785).")
    signature: Signature | None = Field(description="Null where the operator has no key.")


class Report(BaseModel):
    """A sealed report."""

    report: dict[str, Any] = Field(
        description="Question, the picture's digests, index and model, the answer with each work's digest, its"
        " quality, and what all of it doesn't prove; `format` and `version` say how it is laid out."
    )
    seal: Seal


class ReportKey(BaseModel):
    """The public half of the operator's key."""

    algorithm: Literal["Ed25519"] = "Ed25519"
    key_id: str
    pem: str
