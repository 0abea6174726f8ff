"""What answers hold. Made by client/generate.py of docs/openapi.json; don't edit."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, TypedDict

from pydantic import Field

from das_client.model import Model


class Allowance(Model):
    """How much of one limit is used up."""

    limit: int | None = None
    """null: there is none."""
    used: int
    remaining: int | None = None
    renewed_at: datetime
    """When it is whole again."""


class Attribution(Model):
    """A question and, once it is there, its answer."""

    id: str
    state: Literal["queued", "running", "succeeded", "failed", "cancelled", "erased"] | str
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    client_tag: str | None = None
    index: str
    method: str
    candidates: CandidateSet | None = None
    """Null until it is known."""
    top_k: int
    prompt: str | None = None
    seed: int | None = None
    input: Input
    progress: Progress
    summary: str | None = None
    in_model: InModel | None = None
    """Null: not known, because the index was built without reference generations."""
    certainty: Certainty | None = None
    """Null as for in_model."""
    copied: Copy | None = Field(default=None, alias="copy")
    """Null until scored, or if the index was built before its works were hashed."""
    quality: Quality | None = None
    """Null: not measured for this index and method."""
    works: list[Share] | None = None
    """Ranked works; null until scored."""
    groups: dict[str, list[Group]] | None = None
    """By creator and rights_holder; null until scored."""
    lookalikes: list[Lookalike] | None = None
    """Null if the screening failed; see notes."""
    timings_ms: dict[str, float] | None = None
    """How long each part took."""
    error: Failure | None = None
    expires_at: datetime | None = None
    """When it is erased by itself; null until it has ended, or if it is kept until it is deleted."""
    notes: list[str]
    """Sentences on what is missing from this answer and why."""
    links: Links


class AttributionEvent(Model):
    """The `data` of an event; its name is `kind`."""

    attribution_id: str
    kind: (
        Literal["created", "screened", "started", "retrying", "succeeded", "failed", "cancelled", "erased"]
        | str
    )
    at: datetime
    attempt: int | None = None
    """Of `started` and `retrying`: how often it was started."""
    reason: str | None = None
    """Of `retrying`: what became of the attempt before."""
    error: Failure | None = None
    """Of `failed`."""


class AttributionList(Model):
    items: list[AttributionSummary]
    next_cursor: str | None = None
    """Give it as `cursor` for the next page; null at the end."""


class AttributionSummary(Model):
    """A question in a list; its whole answer is one request further, at `links.self`."""

    id: str
    state: Literal["queued", "running", "succeeded", "failed", "cancelled", "erased"] | str
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    client_tag: str | None = None
    index: str | None = None
    """Null once it was erased."""
    method: str | None = None
    """Null once it was erased."""
    summary: str | None = None
    """The answer's first sentence; null until scored."""
    in_model: Literal["likely", "unlikely", "unsure"] | str | None = None
    """The verdict of in_model."""
    copied: Literal["copy", "near", "none", "unclear"] | str | None = Field(default=None, alias="copy")
    """The verdict of copy."""
    links: SummaryLinks


class AuditEntry(Model):
    """Who did what to which object."""

    id: str
    at: datetime
    actor: str
    """The public part of a key or link, `local` or `without-key` for who came without one, `operator's
    shell`, or `service`."""
    action: str
    object: str | None = None
    outcome: str
    request_id: str | None = None
    details: dict[str, Any]


class AuditList(Model):
    items: list[AuditEntry]
    next_cursor: str | None = None
    """Give it as `cursor` for the next page; null at the end."""


class Backtest(Model):
    """A candidate held against the active version or against people, over one page of what is stored."""

    policy: str
    version: int
    against: Literal["active", "reviews"] | str
    baseline_version: int | None = None
    """The active version; null with against=reviews."""
    examined: int
    """How many answers this page looked at. Add the pages up for more."""
    table: dict[str, dict[str, int]]
    """How often the baseline (outer) came to one outcome and the candidate (inner) to another."""
    agreed: int
    changed: list[Change]
    """All of this page's that differ, newest first."""
    next_cursor: str | None = None
    """Give it as `cursor` for older ones; null at the end."""


class Batch(Model):
    """A batch with its pictures in their order."""

    id: str
    state: Literal["open", "finished", "cancelled"] | str
    """`finished` once every picture has ended, whichever way."""
    created_at: datetime
    client_tag: str | None = None
    size: int
    """How many pictures it has."""
    counts: BatchCounts
    links: BatchLinks
    items: list[BatchItem]
    next_cursor: str | None = None
    """Give it as `cursor` for the further items; null at the end."""


class BatchCounts(Model):
    """How many pictures are in each state."""

    waiting: int = 0
    queued: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    erased: int = 0


class BatchItem(Model):
    """A picture of a batch and what became of it. `attribution` is its question in short, once it is one."""

    position: int
    """Its place in the batch, from 1."""
    name: str | None = None
    state: Literal["waiting", "queued", "running", "succeeded", "failed", "cancelled", "erased"] | str
    """`waiting`: it wasn't read yet; from then on that of its question."""
    client_tag: str | None = None
    problem: ItemProblem | None = None
    """Why it failed."""
    attribution: AttributionSummary | None = None


class BatchItemJson(Model):
    """A picture of a batch as JSON: its bytes or its address, and what is asked of it unlike of the
    others."""

    name: str | None = None
    """What you call it, such as its file's name."""
    image_base64: str | None = None
    """The picture's bytes in base64 (RFC 4648)."""
    image_url: str | None = None
    """Where the picture is; exactly one of the two."""
    index: str | None = None
    top_k: int | None = None
    candidates: str | int | None = None
    method: str | None = None
    client_tag: str | None = None
    prompt: str | None = None
    seed: int | None = None


class BatchLinks(Model):
    self: str
    results: str


class BatchList(Model):
    items: list[BatchSummary]
    next_cursor: str | None = None
    """Give it as `cursor` for the next page; null at the end."""


class BatchResult(Model):
    """A line of `results.jsonl`: a picture of the batch, with its whole answer as far as it is known."""

    position: int
    name: str | None = None
    state: Literal["waiting", "queued", "running", "succeeded", "failed", "cancelled", "erased"] | str
    client_tag: str | None = None
    problem: ItemProblem | None = None
    """Why it has no answer."""
    attribution: Attribution | None = None
    """Null where it isn't a question, yet or at all."""


class BatchSummary(Model):
    """A batch in a list."""

    id: str
    state: Literal["open", "finished", "cancelled"] | str
    """`finished` once every picture has ended, whichever way."""
    created_at: datetime
    client_tag: str | None = None
    size: int
    """How many pictures it has."""
    counts: BatchCounts
    links: BatchLinks


class CandidateSet(Model):
    """Which works were scored. Shares are shares of the influence measured among these."""

    mode: Literal["all", "screened"] | str
    count: int
    """How many works were scored."""
    asked: str
    """What the request said: auto, all or a number."""


class Certainty(Model):
    """How far the first work is ahead."""

    stands_out: bool
    """Whether it holds at least three times the mean share."""
    percentile: float | None = None
    """How many percent of the model's own pictures have a first work with a smaller share; null where not
    all works were candidates."""
    clearly_first: bool | None = None
    """Whether it leads the second by more than other timesteps would change; null: not measured."""


class Change(Model):
    """An answer that the candidate decides otherwise."""

    attribution: str
    decision: str | None = None
    """The decision that was reviewed, with against=reviews."""
    baseline: Literal["clear", "review", "block", "indeterminate"] | str
    candidate: Literal["clear", "review", "block", "indeterminate"] | str
    codes: list[str]
    """Codes of the candidate's reasons."""
    summary: str
    link: str


class Check(Model):
    ok: bool
    detail: str


class Comparison(Model):
    """One comparison that a rule made."""

    field: str
    value: bool | float | str | None = None
    """Null: the answer doesn't have it."""
    asked: dict[str, Any]
    """The rule's operators with what they compare with."""
    text: str


class Copy(Model):
    """Whether the picture is a copy of one of all works of the index, told apart from influence."""

    verdict: Literal["copy", "near", "none", "unclear"] | str
    """Of the best match. none: it is like no work. unclear: it has too little structure to be compared."""
    score: float | None = None
    """The highest of all works; null where the verdict is unclear."""
    method: Literal["pdq", "sscd"] | str
    """By what it was compared."""
    mirrored: bool
    work_id: str | None = None
    """The best match; null where there is none."""
    title: str | None = None
    creator: str | None = None
    thumbnail: str | None = None
    summary: str | None = None
    """The verdict in words, with what it is no proof of; null where it is none."""


class CopyMatch(Model):
    """That the picture asked about is nearly the same picture as a work, whatever influence that had."""

    verdict: Literal["copy", "near"] | str
    """copy: nearly the same picture, perhaps re-encoded, resized or mirrored. near: a changed version of
    it, or one that is much alike; somebody has to look."""
    score: float
    """For pdq the part of equal bits of the two hashes, about a half for unrelated pictures; for sscd the
    cosine of the two embeddings."""
    method: Literal["pdq", "sscd"] | str
    """By what the two were compared."""
    mirrored: bool
    """Whether they are alike when one is mirrored."""


class Decision(Model):
    """What a policy says of a picture."""

    id: str
    state: Literal["pending", "decided", "erased"] | str
    created_at: datetime
    decided_at: datetime | None = None
    attribution: str
    """The question that it is about."""
    policy: str
    policy_version: int
    """The version that was active when it was asked; it doesn't change."""
    outcome: Literal["clear", "review", "block", "indeterminate"] | str | None = None
    """Null while pending."""
    final: Literal["clear", "review", "block", "indeterminate"] | str | None = None
    """The person's outcome where somebody has looked, else the policy's."""
    summary: str | None = None
    reasons: list[Reason] | None = None
    notes: list[str] | None = None
    """What has to be told whatever the outcome, such as a copy."""
    dry_run: Verdict | None = None
    """What the version that is being tried says; it decides nothing."""
    review: Review | None = None
    links: DecisionLinks


class DecisionLinks(Model):
    self: str
    attribution: str
    policy: str
    page: str


class DecisionList(Model):
    items: list[Decision]
    next_cursor: str | None = None
    """Give it as `cursor` for the next page; null at the end."""


class Declared(Model):
    """What the picture's own metadata say of how it was made: a claim, plain text, and no proof. Null: not
    said."""

    source: str
    """Where in the file it stands, such as `PNG text parameters`."""
    tool: str | None = None
    prompt: str | None = None
    negative_prompt: str | None = None
    seed: int | None = None
    steps: int | None = None
    sampler: str | None = None
    guidance: float | None = None
    model: str | None = None
    model_hash: str | None = None
    """First hex digits of the checkpoint's SHA-256."""
    loras: list[DeclaredLora]
    ai_generated: bool | None = None
    """true: a C2PA manifest says that a trained model made it; null: nothing is said."""
    cut: list[str]
    """Fields that were longer than is read."""
    taken: list[Literal["prompt", "seed"] | str]
    """What the question was asked with because the request left it out."""
    is_model_of_index: Literal["same", "other", "unknown"] | str
    """Whether the model that it names is the index's, by the hashes of files; unknown: they can't be
    compared."""
    summary: str | None = None
    """What has to be said of the model that it names, first of the answer's `notes`; null: nothing."""


class DeclaredLora(Model):
    """A LoRA that the picture says was used."""

    name: str
    hash: str | None = None
    """First hex digits of a SHA-256; null: not said."""
    weight: float | None = None


class Delivery(Model):
    """An event for an endpoint. Its id is the `webhook-id` of every attempt."""

    id: str
    type: WebhookEvent
    state: Literal["pending", "delivered", "failed"] | str
    created_at: datetime
    delivered_at: datetime | None = None
    next_attempt_at: datetime | None = None
    """null: none will be made. While its endpoint is disabled it waits beyond this."""
    attempts: list[DeliveryAttempt]
    """The last twenty."""
    body: str
    """What is sent, to the byte."""
    links: DeliveryLinks


class DeliveryAttempt(Model):
    """One attempt."""

    at: datetime
    seconds: float
    status_code: int | None = None
    """What the receiver answered; null: nothing."""
    error: str | None = None
    """Why it wasn't taken, in words; null: it was."""
    response: str | None = None
    """The first 1,000 characters of what the receiver answered."""


class DeliveryLinks(Model):
    endpoint: str


class DeliveryList(Model):
    """A page of an endpoint's deliveries, newest first."""

    items: list[Delivery]
    next_cursor: str | None = None
    """Give it as `cursor` for the next page; null at the end."""


class Endpoint(Model):
    """An address that hears of events, without its secret."""

    id: str
    url: str
    description: str | None = None
    events: list[WebhookEvent] | None = None
    """null: everything."""
    enabled: bool
    """false: it hears of nothing until it is enabled again."""
    created_at: datetime
    failing_since: datetime | None = None
    """Since when nothing was taken; null: the last attempt was. After three days it is disabled."""
    disabled_at: datetime | None = None
    disabled_because: str | None = None
    """Why it isn't enabled, in words."""
    previous_secret_until: datetime | None = None
    """Until when deliveries are signed with the secret before this one as well."""
    links: EndpointLinks


class EndpointLinks(Model):
    self: str
    deliveries: str


class EndpointList(Model):
    """Your endpoints, the oldest first."""

    items: list[Endpoint]


class EndpointWithSecret(Model):
    """An endpoint with its secret, which can't be read again."""

    id: str
    url: str
    description: str | None = None
    events: list[WebhookEvent] | None = None
    """null: everything."""
    enabled: bool
    """false: it hears of nothing until it is enabled again."""
    created_at: datetime
    failing_since: datetime | None = None
    """Since when nothing was taken; null: the last attempt was. After three days it is disabled."""
    disabled_at: datetime | None = None
    disabled_because: str | None = None
    """Why it isn't enabled, in words."""
    previous_secret_until: datetime | None = None
    """Until when deliveries are signed with the secret before this one as well."""
    links: EndpointLinks
    secret: str
    """What deliveries are signed with. It is shown here only."""


class Failure(Model):
    code: str
    message: str


class FieldProblem(Model):
    """What is wrong with one part of a request; exactly one of pointer, parameter, header says where."""

    detail: str
    pointer: str | None = None
    """JSON pointer (RFC 6901) into the body, or to a form field."""
    parameter: str | None = None
    """Name of the query or path parameter."""
    header: str | None = None
    """Name of the header."""


class Group(Model):
    """Works of one creator taken together."""

    name: str
    share: float
    low: float | None = None
    """Of the share, 95 %; null: not measured."""
    high: float | None = None
    """Of the share, 95 %; null: not measured."""
    works: int
    """How many of the candidates are of this group."""
    share_of_index: float | None = None
    """This group's part of the candidates, by number of works."""
    factor: float | None = None
    """share / share_of_index."""


class Health(Model):
    status: Literal["ok"] | str


class HolderShare(Model):
    """A rights holder's part. Decimals are text, so that they add up."""

    rights_holder: str
    """Or `Rights holder not recorded`, `Beyond those that the answers name`, `No influence measured`."""
    share: str | None = None
    """Mean of the holder's shares over the questions counted, a part of one; null: none was counted."""
    works: int
    """Works of the index that the holder has a part in."""
    questions: int
    """Questions counted in which the holder has a share."""
    reliable: bool
    """Whether the ranking bears this share; see `reliable_because`."""
    training_use: str
    """The holder's part of the works by how often they were trained on, a part of one."""
    amount: str | None = None
    """Of `amount`, by `share`."""
    amount_by_training_use: str | None = None
    """Of `amount`, by `training_use`."""


class InModel(Model):
    """Whether the index's model made the picture, held against pictures that it did make."""

    verdict: Literal["likely", "unlikely", "unsure"] | str
    """unsure: not as the model makes pictures, or like ones it was not trained on; but one of its own that
    was re-encoded could look so."""
    p_value: float
    """Part of the model's own pictures that look as little like it; conformal."""
    p_value_re_encoded: float
    """The same, were the picture re-encoded or resized on its way; the largest of several."""
    p_value_held_out: float | None = None
    """Part of the model's own pictures that look as much like pictures it was not trained on; null: the
    index was built without such."""
    references: int
    """How many of the model's own pictures it was held against."""


class IndexCard(Model):
    id: str
    name: str
    works: int
    creators: int | None = None
    model: dict[str, Any]
    """Identity of the model, from the manifest."""
    methods: list[str]
    dimension: int | None = None
    timesteps: int | None = None
    created_at: str | None = None
    status: Literal["loading", "ready", "failed", "none"] | str
    """Of its screening, in this process; none: it was built without."""
    card: str | None = None
    """The index card, in Markdown."""
    quality: Quality | None = None
    """Null: not measured for this index."""


class IndexList(Model):
    items: list[IndexSummary]


class IndexSummary(Model):
    id: str
    name: str
    works: int
    creators: int | None = None
    model: dict[str, Any]
    """Identity of the model, from the manifest."""
    methods: list[str]
    dimension: int | None = None
    timesteps: int | None = None
    created_at: str | None = None
    status: Literal["loading", "ready", "failed", "none"] | str
    """Of its screening, in this process; none: it was built without."""


class Input(Model):
    """The picture as it was received and normalised."""

    sha256: str
    """Digest of the uploaded bytes."""
    width: int
    height: int
    format: str
    """Format found in the content, e.g. PNG."""
    normalisation: list[str]
    """What had to be done to get plain sRGB pixels."""
    declared: Declared | None = None
    """What the picture says of itself; null: nothing that is read here."""


class ItemProblem(Model):
    """Why a picture has no answer, in the form of a problem document (RFC 9457)."""

    type: str
    """`about:blank` where the question itself failed."""
    code: str
    """Stable slug of the kind of error."""
    title: str
    status: int | None = None
    """What the picture alone would have been answered with."""
    detail: str
    reason: str | None = None
    """For refused images and addresses: a stable slug."""


class Key(Model):
    """A key or link, without its secret."""

    id: str
    prefix: str
    """How it begins; the log names it so."""
    kind: Literal["key", "link"] | str
    """A link opens the page alone."""
    name: str
    state: Literal["active", "expired", "revoked"] | str
    scopes: list[Scope]
    indexes: list[str] | None = None
    daily_quota: int | None = None
    rights_holders: list[str]
    keep_uploads: int | None = None
    """Seconds; null: as the service does."""
    keep_results: int | None = None
    """Seconds; null: as the service does."""
    replaces: str | None = None
    """Id of the key whose questions it took over."""
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    """To the hour."""


class KeyList(Model):
    """Every key and link, the newest first."""

    items: list[Key]


class LeftOut(Model):
    """Questions that weren't counted, and why."""

    reason: Literal["not-likely", "not-known", "without-holders"] | str
    questions: int
    note: str


class Links(Model):
    self: str
    page: str
    image: str | None = None
    """Null once the picture isn't kept any more."""
    index: str
    report: str | None = None
    """The answer as evidence, once it is there."""


class Lookalike(Model):
    """A work that looks similar (CLIP). It says nothing about influence."""

    work_id: str
    title: str | None = None
    creator: str | None = None
    thumbnail: str | None = None
    similarity: float
    copied: CopyMatch | None = Field(default=None, alias="copy")
    """Null: the picture is no copy of this work, as far as that is told."""


class NewlyMadeKey(Model):
    """A key with its secret, which can't be read again."""

    id: str
    prefix: str
    """How it begins; the log names it so."""
    kind: Literal["key", "link"] | str
    """A link opens the page alone."""
    name: str
    state: Literal["active", "expired", "revoked"] | str
    scopes: list[Scope]
    indexes: list[str] | None = None
    daily_quota: int | None = None
    rights_holders: list[str]
    keep_uploads: int | None = None
    """Seconds; null: as the service does."""
    keep_results: int | None = None
    """Seconds; null: as the service does."""
    replaces: str | None = None
    """Id of the key whose questions it took over."""
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    """To the hour."""
    secret: str
    """Send it as `Authorization: Bearer`. It is shown here only."""


class NewlyMadeShareLink(Model):
    """A link with its token, which can't be read again."""

    id: str
    state: Literal["open", "expired", "revoked"] | str
    label: str | None = None
    leave_out: list[str]
    """All that is left out, with what would give it away."""
    works: int | None = None
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None
    views: int
    """How often its page was opened or a report taken from it."""
    last_viewed_at: datetime | None = None
    url: str
    """The link. Whoever has it sees the answer; it is shown here only."""


class NewlyReceivedOptOut(Model):
    """An opt-out as it was received, with the token of who asked without a key."""

    id: str
    state: Literal["received", "verified", "applied", "rejected", "withdrawn"] | str
    hidden: bool
    """Whether the works are hidden from answers now."""
    index: str
    """The index's name, which stays when it is built again."""
    works: list[str] | None = None
    creator: str | None = None
    matches: int | None = None
    """How many works of the index that is served now it is about; null: none of this name is."""
    contact: str | None = None
    """Null once erased."""
    statement: str | None = None
    reason: str | None = None
    """Why it was rejected."""
    created_at: datetime
    verified_at: datetime | None = None
    hidden_at: datetime | None = None
    shown_again_at: datetime | None = None
    """When the works were shown again, where they were hidden."""
    left_out_at: datetime | None = None
    """When an index was built without them."""
    removed_at: datetime | None = None
    """When a model that wasn't trained on them replaced the old one."""
    closed_at: datetime | None = None
    """When it was rejected or withdrawn."""
    erased_at: datetime | None = None
    """When contact and statement were erased."""
    links: OptOutLinks
    token: str | None = None
    """Lets you look at your opt-out, withdraw it and erase contact and statement: send it as `Opt-Out-
    Token`. It is in this answer only; null where your key does that."""


class OptOut(Model):
    """A request to be left out. That works are hidden, left out of an index and gone from the model are
    three things, each with its date; null: it hasn't been done."""

    id: str
    state: Literal["received", "verified", "applied", "rejected", "withdrawn"] | str
    hidden: bool
    """Whether the works are hidden from answers now."""
    index: str
    """The index's name, which stays when it is built again."""
    works: list[str] | None = None
    creator: str | None = None
    matches: int | None = None
    """How many works of the index that is served now it is about; null: none of this name is."""
    contact: str | None = None
    """Null once erased."""
    statement: str | None = None
    reason: str | None = None
    """Why it was rejected."""
    created_at: datetime
    verified_at: datetime | None = None
    hidden_at: datetime | None = None
    shown_again_at: datetime | None = None
    """When the works were shown again, where they were hidden."""
    left_out_at: datetime | None = None
    """When an index was built without them."""
    removed_at: datetime | None = None
    """When a model that wasn't trained on them replaced the old one."""
    closed_at: datetime | None = None
    """When it was rejected or withdrawn."""
    erased_at: datetime | None = None
    """When contact and statement were erased."""
    links: OptOutLinks


class OptOutLinks(Model):
    self: str


class OptOutList(Model):
    items: list[OptOut]
    next_cursor: str | None = None
    """Give it as `cursor` for the next page; null at the end."""


class PolicyCard(Model):
    """A policy with one version's rules, and the numbers of all its versions."""

    id: str
    title: str | None = None
    """Of the version that decides, or else of the newest."""
    active_version: int | None = None
    """The version that decides; null: none does."""
    dry_run_version: int | None = None
    """The version that is tried beside it; null: none is."""
    newest_version: int
    created_at: datetime
    updated_at: datetime
    links: PolicyLinks
    version: int
    """The version that is shown."""
    document: dict[str, Any]
    """Its rules, as JSON written in full."""
    in_words: list[str]
    """What each rule does, and what holds for every policy."""
    remarks: list[str]
    """What may not be meant, though it is allowed."""
    versions: list[PolicyVersionInfo]
    """All of them, newest first. None ever changes."""


class PolicyLinks(Model):
    self: str
    backtest: str


class PolicyList(Model):
    items: list[PolicySummary]


class PolicySummary(Model):
    """A policy in a list."""

    id: str
    title: str | None = None
    """Of the version that decides, or else of the newest."""
    active_version: int | None = None
    """The version that decides; null: none does."""
    dry_run_version: int | None = None
    """The version that is tried beside it; null: none is."""
    newest_version: int
    created_at: datetime
    updated_at: datetime
    links: PolicyLinks


class PolicyVersionInfo(Model):
    version: int
    digest: str
    """SHA-256 of what it says."""
    created_at: datetime


class Problem(Model):
    """An error (RFC 9457)."""

    type: str
    code: str
    """Stable slug of the kind of error; the anchor of `type`."""
    title: str
    status: int
    detail: str
    instance: str
    """The path that was asked for."""
    request_id: str
    reason: str | None = None
    """For refused images and addresses: a stable slug such as `truncated`."""
    errors: list[FieldProblem] | None = None


class Progress(Model):
    stage: Literal["received", "screened", "gradients", "scored"] | str
    done: int
    """Steps of the current stage done."""
    total: int
    """Steps of the current stage; 0 before it has begun."""
    eta_s: float | None = None
    """Estimated seconds left of this stage; null when unknown."""
    attempt: int
    """How often the work was begun; above 1 it is being retried."""
    waiting: int | None = None
    """Questions in the queue, this one among them; null unless it is queued."""


class ProgressEvent(Model):
    """The `data` of an event named `progress`, which has no id."""

    attribution_id: str
    progress: Progress


class Quality(Model):
    """How good this index's ranking was measured to be, against models that were trained again; in
    percent."""

    method: str
    """The method that was measured: the index's first."""
    lds: float
    """Linear datamodelling score, mean over the queries."""
    low: float
    """Lower end of its 95 % interval, by resampling the subsets."""
    high: float
    ceiling: float | None = None
    """What a second real retraining scores; null: not measured."""
    perfect: float | None = None
    """About what a perfect prediction scores; null: not measured."""
    subsets: int
    queries: int
    truth: str
    """The ground truth it was held against."""
    measured_at: datetime
    note: str | None = None


class Quota(Model):
    """What a caller may still do."""

    requests: Allowance
    """Requests of any kind, in a minute or what DAS_RATE_LIMIT says."""
    questions: Allowance
    """Pictures asked about in a day (UTC)."""
    counting: bool
    """Whether requests are counted now; while that isn't possible they are let through."""


class Readiness(Model):
    ready: bool
    checks: dict[str, Check]
    """database, broker, index, worker"""


class Reason(Model):
    """Why: one rule that fired or couldn't be decided, or one of the service's own reasons."""

    code: str
    """The rule's code, or one of no-rule-fired, not-answered, further-pictures, model-unlikely, model-
    unsure, model-unknown, policy-unusable."""
    outcome: Literal["clear", "review", "block", "indeterminate"] | str
    fired: bool
    """false: the rule couldn't be decided for want of something."""
    text: str
    because: str | None = None
    """The policy's own words."""
    compared: list[Comparison]
    works: list[str]
    """Ids of the works that caused it, ten at most."""
    creators: list[str]
    """The creators that caused it, ten at most."""


class Report(Model):
    """A sealed report."""

    report: dict[str, Any]
    """Question, the picture's digests, index and model, the answer with each work's digest, its quality,
    and what all of it doesn't prove; `format` and `version` say how it is laid out."""
    seal: Seal


class ReportKey(Model):
    """The public half of the operator's key."""

    algorithm: Literal["Ed25519"] | str = "Ed25519"
    key_id: str
    pem: str


class Review(Model):
    """What a person said."""

    outcome: Literal["clear", "block"] | str
    note: str | None = None
    by: str
    """Whose key it was said with."""
    at: datetime


Scope = Literal["ask", "read", "decide", "admin"] | str


class Seal(Model):
    """What shows that a report wasn't changed."""

    digest: str
    """`sha256:` and the digest of `report` in its canonical JSON (RFC 8785)."""
    signature: Signature | None = None
    """Null where the operator has no key."""


class Share(Model):
    """One work in an answer."""

    rank: int
    work_id: str
    title: str | None = None
    creator: str | None = None
    rights_holder: str | None = None
    licence: str | None = None
    source_url: str | None = None
    tdm: (
        Literal[
            "prohibited",
            "prohibited-except-search",
            "prohibited-ai",
            "prohibited-generative-ai",
            "constrained",
            "allowed",
            "unspecified",
        ]
        | str
        | None
    ) = None
    """What is said of text and data mining with it; null: no signal, or not known."""
    thumbnail: str | None = None
    """Null, as is all that is told of the work, if the index no longer has it."""
    score: float
    """The attribution score; comparable within one answer only."""
    share: float
    """Part of the measured influence among the candidates, 0 to 1."""
    low: float | None = None
    """Of the share, 95 %; null: not measured."""
    high: float | None = None
    """Of the share, 95 %; null: not measured."""
    percentile: float | None = None
    """Where this score lies among the candidates' scores."""
    similarity: float | None = None
    """CLIP similarity: looks similar, which isn't influence."""
    copied: CopyMatch | None = Field(default=None, alias="copy")
    """Null: the picture is no copy of this work, as far as that is told."""


class ShareLink(Model):
    """A link, without its token."""

    id: str
    state: Literal["open", "expired", "revoked"] | str
    label: str | None = None
    leave_out: list[str]
    """All that is left out, with what would give it away."""
    works: int | None = None
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None
    views: int
    """How often its page was opened or a report taken from it."""
    last_viewed_at: datetime | None = None


class ShareLinkList(Model):
    """Every share of a question, the newest first."""

    items: list[ShareLink]


class Signature(Model):
    """An Ed25519 signature of the digest's text."""

    algorithm: Literal["Ed25519"] | str
    key_id: str
    """The first digits of the public key's SHA-256."""
    public_key: str
    """32 bytes in base64."""
    value: str
    """64 bytes in base64."""


class Statement(Model):
    """Shares by rights holder over the answers of a period; they add up to one, and amounts to the amount."""

    index: str
    since: datetime
    """Answers from here on…"""
    until: datetime
    """…and before this."""
    questions: int
    """Questions counted."""
    left_out: list[LeftOut]
    reliable: bool
    reliable_because: str
    currency: str | None = None
    shares: list[HolderShare]


class SummaryLinks(Model):
    self: str
    page: str


class Verdict(Model):
    """What one version of the policy says."""

    policy_version: int
    outcome: Literal["clear", "review", "block", "indeterminate"] | str
    summary: str
    reasons: list[Reason]
    """Those that brought the outcome about come first."""


class Version(Model):
    name: str
    version: str
    python: str
    libraries: dict[str, str]


WebhookEvent = (
    Literal[
        "attribution.succeeded",
        "attribution.failed",
        "attribution.cancelled",
        "decision.made",
        "batch.finished",
        "webhook.test",
    ]
    | str
)


class Work(Model):
    """One training work, with every column that the index keeps about it."""

    work_id: str
    index: str
    title: str | None = None
    creator: str | None = None
    rights_holder: str | None = None
    licence: str | None = None
    source_url: str | None = None
    tdm: (
        Literal[
            "prohibited",
            "prohibited-except-search",
            "prohibited-ai",
            "prohibited-generative-ai",
            "constrained",
            "allowed",
            "unspecified",
        ]
        | str
        | None
    ) = None
    """The strictest signal on text and data mining in its file (XMP, C2PA) or metadata; null: none, or the
    index was built before they were read."""
    thumbnail: str
    metadata: dict[str, Any]
    """Further columns of the works' table."""


class WorkList(Model):
    items: list[Work]
    next_cursor: str | None = None
    """Give it as `cursor` for the next page; null at the end."""


class AskOptions(TypedDict, total=False):
    """The API's fields beside a picture."""

    index: str
    top_k: int
    candidates: str | int
    method: str
    client_tag: str
    prompt: str
    seed: int
    webhook_url: str


class BacktestOptions(TypedDict, total=False):
    """What a backtest looks at."""

    version: int | None
    against: Literal["active", "reviews"] | str
    index: str | None
    created_after: datetime | None
    limit: int


class ShareOptions(TypedDict, total=False):
    """What a link leaves out, and for how long it is open."""

    leave_out: list[Literal["picture", "settings", "creators", "thumbnails"] | str]
    works: int | None
    expires_in: int | None
    expires_at: datetime | None
    label: str | None


class KeyOptions(TypedDict, total=False):
    """What else may be said of a new key."""

    indexes: list[str] | None
    daily_quota: int | None
    expires_in: int | None
    rights_holders: list[str]
    keep_uploads: int | None
    keep_results: int | None
