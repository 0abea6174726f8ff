"""What the API takes and gives about policies and decisions."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema

from app.moderation.policy import SLUG
from app.numbers import WHOLE
from app.schemas import AttributionRequest, Moment, Printable

Decided = Literal["clear", "review", "block", "indeterminate"]
PolicyId = Annotated[str, StringConstraints(pattern=SLUG)]
MAX_NOTE = 2000
MAX_VERSION = 1_000_000
MAX_EXAMINED = 500


class PolicyForm(BaseModel):
    """A policy as multipart/form-data: as one sends a file."""

    model_config = ConfigDict(extra="forbid")

    policy: Annotated[bytes, WithJsonSchema({"type": "string", "format": "binary"})] = Field(
        description="The policy's file, YAML or JSON."
    )
    dry_run: bool = Field(
        default=False, description="Try it beside the active version instead of letting it decide."
    )


class PolicyJson(BaseModel):
    """A policy as JSON."""

    model_config = ConfigDict(extra="forbid")

    policy: dict[str, Any] | str = Field(
        description="The policy as an object, or its text in YAML; see docs/moderation.md for the language.",
    )
    dry_run: bool = Field(default=False, strict=True, description="Try it beside the active version.")


class PolicyLinks(BaseModel):
    self: str
    backtest: str


class PolicySummary(BaseModel):
    """A policy in a list."""

    id: str
    title: str | None = Field(description="Of the version that decides, or else of the newest.")
    active_version: int | None = Field(description="The version that decides; null: none does.")
    dry_run_version: int | None = Field(description="The version that is tried beside it; null: none is.")
    newest_version: int
    created_at: datetime
    updated_at: datetime
    links: PolicyLinks


class PolicyList(BaseModel):
    items: list[PolicySummary]


class PolicyVersionInfo(BaseModel):
    version: int
    digest: str = Field(description="SHA-256 of what it says.")
    created_at: datetime


class PolicyCard(PolicySummary):
    """A policy with one version's rules, and the numbers of all its versions."""

    version: int = Field(description="The version that is shown.")
    document: dict[str, Any] = Field(description="Its rules, as JSON written in full.")
    in_words: list[str] = Field(description="What each rule does, and what holds for every policy.")
    remarks: list[str] = Field(description="What may not be meant, though it is allowed.")
    versions: list[PolicyVersionInfo] = Field(description="All of them, newest first. None ever changes.")


class Activation(BaseModel):
    """Which version decides."""

    model_config = ConfigDict(extra="forbid")

    version: Annotated[int, Field(ge=1, le=MAX_VERSION, strict=True), WHOLE] | None = Field(
        default=None, description="Null, with dry_run: try none any more."
    )
    dry_run: bool = Field(default=False, strict=True, description="Try it beside the active one instead.")


class DecisionRequest(AttributionRequest):
    """The fields beside the picture, or the question that has been asked already."""

    policy: PolicyId = Field(description="Id of the policy that decides.")
    attribution: Annotated[str, StringConstraints(max_length=64)] | None = Field(
        default=None,
        description="A question that was asked already, to decide about without a picture. Its options stand.",
    )


class DecisionForm(DecisionRequest):
    """A decision as multipart/form-data."""

    image: Annotated[bytes, WithJsonSchema({"type": "string", "format": "binary"})] | None = Field(
        default=None, description="The picture's file; left out where `attribution` says which question."
    )


class DecisionJson(DecisionRequest):
    """A decision as JSON."""

    image_base64: Annotated[str, WithJsonSchema({"type": "string", "contentEncoding": "base64"})] | None = (
        Field(
            default=None,
            description="The picture's bytes in base64; left out where `attribution` says which question.",
        )
    )


class Comparison(BaseModel):
    """One comparison that a rule made."""

    field: str
    value: bool | float | str | None = Field(description="Null: the answer doesn't have it.")
    asked: dict[str, Any] = Field(description="The rule's operators with what they compare with.")
    text: str


class Reason(BaseModel):
    """Why: one rule that fired or couldn't be decided, or one of the service's own reasons."""

    code: str = Field(
        description="The rule's code, or one of no-rule-fired, not-answered, further-pictures, model-unlikely,"
        " model-unsure, model-unknown, policy-unusable."
    )
    outcome: Decided
    fired: bool = Field(description="false: the rule couldn't be decided for want of something.")
    text: str
    because: str | None = Field(description="The policy's own words.")
    compared: list[Comparison]
    works: list[str] = Field(description="Ids of the works that caused it, ten at most.")
    creators: list[str] = Field(description="The creators that caused it, ten at most.")


class Verdict(BaseModel):
    """What one version of the policy says."""

    policy_version: int
    outcome: Decided
    summary: str
    reasons: list[Reason] = Field(description="Those that brought the outcome about come first.")


class Review(BaseModel):
    """What a person said."""

    outcome: Literal["clear", "block"]
    note: str | None
    by: str = Field(description="Whose key it was said with.")
    at: datetime


class ReviewRequest(BaseModel):
    """A person's word on a decision."""

    model_config = ConfigDict(extra="forbid")

    outcome: Literal["clear", "block"]
    note: Printable | None = Field(default=None, max_length=MAX_NOTE)


class DecisionLinks(BaseModel):
    self: str
    attribution: str
    policy: str
    page: str


class Decision(BaseModel):
    """What a policy says of a picture."""

    id: str
    state: Literal["pending", "decided", "erased"]
    created_at: datetime
    decided_at: datetime | None
    attribution: str = Field(description="The question that it is about.")
    policy: str
    policy_version: int = Field(
        description="The version that was active when it was asked; it doesn't change."
    )
    outcome: Decided | None = Field(description="Null while pending.")
    final: Decided | None = Field(
        description="The person's outcome where somebody has looked, else the policy's."
    )
    summary: str | None
    reasons: list[Reason] | None
    notes: list[str] | None = Field(description="What has to be told whatever the outcome, such as a copy.")
    dry_run: Verdict | None = Field(
        description="What the version that is being tried says; it decides nothing."
    )
    review: Review | None = Field(
        description="The newest of `reviews`, which counts; null: nobody has looked."
    )
    reviews: list[Review] = Field(description="All that people said of it, newest first.")
    links: DecisionLinks


class DecisionList(BaseModel):
    items: list[Decision]
    next_cursor: str | None = Field(description="Give it as `cursor` for the next page; null at the end.")


class DecisionQuery(BaseModel):
    """Filters and paging of the list of decisions."""

    model_config = ConfigDict(extra="forbid")

    policy: PolicyId | None = None
    outcome: Decided | None = Field(default=None, description="The policy's own outcome, before any review.")
    reviewed: bool | None = Field(default=None, description="Whether a person has looked.")
    state: Literal["pending", "decided", "erased"] | None = None
    attribution: Annotated[str, StringConstraints(pattern=r"^att_[0-9a-f]{32}$")] | None = None
    cursor: str | None = Field(default=None, max_length=200, description="`next_cursor` of the page before.")
    limit: int = Field(default=20, ge=1, le=100)


class BacktestRequest(BaseModel):
    """Which version is held against what, over which stored answers."""

    model_config = ConfigDict(extra="forbid")

    version: Annotated[int, Field(ge=1, le=MAX_VERSION, strict=True), WHOLE] | None = Field(
        default=None,
        description="The candidate; default: the one that is being tried, or else the newest.",
    )
    against: Literal["active", "reviews"] = Field(
        default="active",
        description="active: the version that decides, over stored answers. reviews: what people said of decisions by"
        " this policy.",
    )
    index: Printable | None = Field(
        default=None, max_length=200, description="Only answers of this index: its name, or a version's id."
    )
    created_after: Moment | None = Field(default=None, description="Only questions asked after this.")
    limit: Annotated[int, Field(ge=1, le=MAX_EXAMINED, strict=True), WHOLE] = Field(
        default=200, description="How many to look at, newest first."
    )
    cursor: str | None = Field(default=None, max_length=200, description="`next_cursor` of the page before.")


class Change(BaseModel):
    """An answer that the candidate decides otherwise."""

    attribution: str
    decision: str | None = Field(description="The decision that was reviewed, with against=reviews.")
    baseline: Decided
    candidate: Decided
    codes: list[str] = Field(description="Codes of the candidate's reasons.")
    summary: str
    link: str


class Backtest(BaseModel):
    """A candidate held against the active version or against people, over one page of what is stored."""

    policy: str
    version: int
    against: Literal["active", "reviews"]
    baseline_version: int | None = Field(description="The active version; null with against=reviews.")
    examined: int = Field(description="How many answers this page looked at. Add the pages up for more.")
    table: dict[str, dict[str, int]] = Field(
        description="How often the baseline (outer) came to one outcome and the candidate (inner) to another."
    )
    agreed: int
    changed: list[Change] = Field(description="All of this page's that differ, newest first.")
    next_cursor: str | None = Field(description="Give it as `cursor` for older ones; null at the end.")
