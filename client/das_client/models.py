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
    """How much of it has been used."""
    remaining: int | None = None
    """How much is left; null: there is no limit."""
    renewed_at: datetime
    """When it is whole again."""


class ApproximateSearch(Model):
    """How an index finds works without scoring all of them, and how many of the highest it found."""

    method: str
    """The estimator that is asked so; others score every work."""
    recall_at_20: float
    """The part of the 20 works that rank highest that it finds, mean over the pictures asked about."""
    queries: int
    """How many pictures it was measured with."""
    measured_with: str
    """Which pictures, in words."""
    sample: int
    """Works that shares of groups, and percentiles, are estimated from. A percentile near 100 may be too
    high by 300 / sample, one in the middle be off by 100 / √sample."""
    bytes_per_work: int
    """Of the search, for each feature set."""
    depth: int
    """Candidates of each sign and feature set that are scored exactly."""


class Attribution(Model):
    """A question and, once it is there, its answer."""

    id: str
    """Its id, which never changes."""
    state: Literal["queued", "running", "succeeded", "failed", "cancelled", "erased"] | str
    """queued and running are open; the others are ends. erased is told by 410 only."""
    created_at: datetime
    """When it was made, in UTC (RFC 3339)."""
    started_at: datetime | None = None
    """When a worker first took it; null: none has."""
    finished_at: datetime | None = None
    """When it ended, whichever way; null: it hasn't."""
    client_tag: str | None = None
    """Your own label; null: none was given."""
    index: str
    """Id of the index that was asked, as in /v1/indexes."""
    method: str
    """The estimator that the scores are by."""
    candidates: CandidateSet | None = None
    """Null until it is known."""
    top_k: int
    """How many works were asked for; `works` has at most so many."""
    prompt: str | None = None
    """What it was asked with, the picture's own perhaps (`input.declared.taken`); null: none."""
    seed: int | None = None
    """The seed it was asked with, the picture's own perhaps; null: none."""
    input: Input
    """The picture as it was received."""
    progress: Progress
    """How far the work is."""
    summary: str | None = None
    """The answer's first sentence, in the language that was asked for; null until scored."""
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
    rounding: Rounding | None = None
    """How shares are told; null: as they were measured."""
    lookalikes: list[Lookalike] | None = None
    """Null if the screening failed; see notes."""
    timings_ms: dict[str, float] | None = None
    """How long each part took."""
    error: Failure | None = None
    """Why it failed; null unless `state` is failed."""
    expires_at: datetime | None = None
    """When it is erased by itself; null until it has ended, or if it is kept until it is deleted."""
    notes: list[str]
    """Sentences on what is missing from this answer and why."""
    links: Links
    """Where it and what belongs to it is, as paths of this service."""


class AttributionEvent(Model):
    """The `data` of an event; its name is `kind`."""

    attribution_id: str
    """The question that this is about."""
    kind: (
        Literal["created", "screened", "started", "retrying", "succeeded", "failed", "cancelled", "erased"]
        | str
    )
    """What happened, also the event's name; see the model for each."""
    at: datetime
    """When it happened, in UTC."""
    attempt: int | None = None
    """Of `started` and `retrying`: how often it was started."""
    reason: str | None = None
    """Of `retrying`: what became of the attempt before."""
    error: Failure | None = None
    """Of `failed`."""


class AttributionList(Model):
    items: list[AttributionSummary]
    """Those of this page, in the order of the list."""
    next_cursor: str | None = None
    """Give it as `cursor` for the next page; null at the end."""


class AttributionSummary(Model):
    """A question in a list; its whole answer is one request further, at `links.self`."""

    id: str
    """Its id, which never changes."""
    state: Literal["queued", "running", "succeeded", "failed", "cancelled", "erased"] | str
    """queued and running are open; the others are ends."""
    created_at: datetime
    """When it was made, in UTC (RFC 3339)."""
    started_at: datetime | None = None
    """When a worker first took it; null: none has."""
    finished_at: datetime | None = None
    """When it ended, whichever way; null: it hasn't."""
    client_tag: str | None = None
    """Your own label; null: none was given."""
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
    """Where it and what belongs to it is, as paths of this service."""


class AuditEntry(Model):
    """Who did what to which object."""

    id: str
    """Its id, which never changes."""
    at: datetime
    """When, in UTC (RFC 3339)."""
    actor: str
    """The public part of a key or link, `local` or `without-key` for who came without one, `operator's
    shell`, or `service`."""
    action: str
    """What was done, such as `key.revoked`; docs/privacy.md lists all."""
    object: str | None = None
    """Id of what it was done to; null: nothing that has one."""
    outcome: str
    """`done`, or `refused`."""
    request_id: str | None = None
    """The request's id, as in the log; null: it came by no request."""
    details: dict[str, Any]
    """What else is known of it, by names; empty: nothing."""


class AuditList(Model):
    items: list[AuditEntry]
    """Those of this page, in the order of the list."""
    next_cursor: str | None = None
    """Give it as `cursor` for the next page; null at the end."""


class Backtest(Model):
    """A candidate held against the active version or against people, over one page of what is stored."""

    policy: str
    """Id of the policy."""
    version: int
    """The version that was tried, the candidate."""
    against: Literal["active", "reviews"] | str
    """What it was held against: the active version, or people's reviews."""
    baseline_version: int | None = None
    """The active version; null with against=reviews."""
    examined: int
    """How many answers this page looked at. Add the pages up for more."""
    table: dict[str, dict[str, int]]
    """How often the baseline (outer) came to one outcome and the candidate (inner) to another."""
    agreed: int
    """How many of this page's both decide alike."""
    changed: list[Change]
    """All of this page's that differ, newest first."""
    next_cursor: str | None = None
    """Give it as `cursor` for older ones; null at the end."""


class Batch(Model):
    """A batch with its pictures in their order."""

    id: str
    """Its id, which never changes."""
    state: Literal["open", "finished", "cancelled"] | str
    """`finished` once every picture has ended, whichever way."""
    created_at: datetime
    """When it was made, in UTC (RFC 3339)."""
    client_tag: str | None = None
    """Your own label; null: none was given."""
    size: int
    """How many pictures it has."""
    counts: BatchCounts
    """How many of its pictures are in each state."""
    links: BatchLinks
    """Where it and what belongs to it is, as paths of this service."""
    items: list[BatchItem]
    """This page's pictures, in the order in which they were sent."""
    next_cursor: str | None = None
    """Give it as `cursor` for the further items; null at the end."""


class BatchCounts(Model):
    """How many pictures are in each state."""

    waiting: int = 0
    """Pictures that weren't read yet."""
    queued: int = 0
    """Questions that wait for a worker."""
    running: int = 0
    """Questions that a worker is at."""
    succeeded: int = 0
    """Questions with an answer."""
    failed: int = 0
    """Pictures that were refused, and questions that failed."""
    cancelled: int = 0
    """Pictures and questions that were cancelled."""
    erased: int = 0
    """Questions that were erased."""


class BatchItem(Model):
    """A picture of a batch and what became of it. `attribution` is its question in short, once it is one."""

    position: int
    """Its place in the batch, from 1."""
    name: str | None = None
    """What you call it, or its file's name; null: it has none."""
    state: Literal["waiting", "queued", "running", "succeeded", "failed", "cancelled", "erased"] | str
    """`waiting`: it wasn't read yet; from then on that of its question."""
    client_tag: str | None = None
    """Your own label; null: none was given."""
    problem: ItemProblem | None = None
    """Why it failed."""
    attribution: AttributionSummary | None = None
    """Its question in short; null: it isn't one, yet or at all."""


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
    """As for the whole batch; null: the batch's."""
    top_k: int | None = None
    """How many works to answer with; null: as the batch says."""
    candidates: str | int | None = None
    """Which works are scored; null: as the batch says."""
    method: str | None = None
    """The estimator; null: as the batch says."""
    client_tag: str | None = None
    """Your label for this picture; null: the batch's."""
    prompt: str | None = None
    """What this picture was generated from; null: as the batch says."""
    seed: int | None = None
    """What this picture was generated with; null: as the batch says."""


class BatchLinks(Model):
    self: str
    """Where this is read."""
    results: str
    """The answers as lines of JSON, which can be resumed."""


class BatchList(Model):
    items: list[BatchSummary]
    """Those of this page, in the order of the list."""
    next_cursor: str | None = None
    """Give it as `cursor` for the next page; null at the end."""


class BatchResult(Model):
    """A line of `results.jsonl`: a picture of the batch, with its whole answer as far as it is known."""

    position: int
    """The picture's place in the batch, from 1."""
    name: str | None = None
    """What you call it, or its file's name; null: it has none."""
    state: Literal["waiting", "queued", "running", "succeeded", "failed", "cancelled", "erased"] | str
    """`waiting`: it wasn't read yet; from then on that of its question."""
    client_tag: str | None = None
    """Your own label; null: none was given."""
    problem: ItemProblem | None = None
    """Why it has no answer."""
    attribution: Attribution | None = None
    """Null where it isn't a question, yet or at all."""


class BatchSummary(Model):
    """A batch in a list."""

    id: str
    """Its id, which never changes."""
    state: Literal["open", "finished", "cancelled"] | str
    """`finished` once every picture has ended, whichever way."""
    created_at: datetime
    """When it was made, in UTC (RFC 3339)."""
    client_tag: str | None = None
    """Your own label; null: none was given."""
    size: int
    """How many pictures it has."""
    counts: BatchCounts
    """How many of its pictures are in each state."""
    links: BatchLinks
    """Where it and what belongs to it is, as paths of this service."""


class CandidateSet(Model):
    """Which works an answer is about. Shares are shares of the influence measured among these."""

    mode: Literal["all", "screened", "approximate"] | str
    """all: every work of the index. screened: those most alike by CLIP. approximate: every work, too, but
    the highest were searched for and not all were scored, so that some of them may be missing."""
    count: int
    """How many works there are."""
    scored: int | None = None
    """Of an approximate answer, how many of them were scored; null: all were."""
    asked: str
    """What the request said: auto, all or a number."""


class Certainty(Model):
    """How far the first work is ahead."""

    stands_out: bool
    """Whether it holds at least three times the mean share."""
    percentile: float | None = None
    """How many percent of the model's own pictures have a first work with a smaller share; null where not
    all works were candidates, or shares are rounded."""
    clearly_first: bool | None = None
    """Whether it leads the second by more than other timesteps would change; null: not measured."""


class Change(Model):
    """An answer that the candidate decides otherwise."""

    attribution: str
    """Id of the question."""
    decision: str | None = None
    """The decision that was reviewed, with against=reviews."""
    baseline: Literal["clear", "review", "block", "indeterminate"] | str
    """What the active version, or a person, came to."""
    candidate: Literal["clear", "review", "block", "indeterminate"] | str
    """What the candidate comes to."""
    codes: list[str]
    """Codes of the candidate's reasons."""
    summary: str
    """The candidate's outcome in one sentence, in the language that was asked for."""
    link: str
    """Where the answer is."""


class Check(Model):
    ok: bool
    """Whether this part is well."""
    detail: str
    """What was found, in a sentence."""


class ComingVersion(Model):
    id: str
    """Its id, which never changes."""
    state: Literal["opening", "waiting", "refused"] | str
    """Being checked and opened, waiting for a worker to load it, or refused; `/readyz` says why."""


class Comparison(Model):
    """One comparison that a rule made."""

    field: str
    """The answer's field, as policies name it, with `works.` or `creators.` before those of one."""
    value: bool | float | str | None = None
    """Null: the answer doesn't have it."""
    asked: dict[str, Any]
    """The rule's operators with what they compare with."""
    text: str
    """The same in a sentence, in the language that was asked for."""


class Copy(Model):
    """Whether the picture is a copy of one of all works of the index, told apart from influence."""

    verdict: Literal["copy", "near", "none", "unclear"] | str
    """Of the best match. none: it is like no work. unclear: it has too little structure to be compared."""
    score: float | None = None
    """The highest of all works; null where the verdict is unclear."""
    method: Literal["pdq", "sscd"] | str
    """By what it was compared."""
    mirrored: bool
    """Whether they are alike when one is mirrored."""
    work_id: str | None = None
    """The best match; null where there is none."""
    title: str | None = None
    """The work's title; null: not recorded, or not to be shown."""
    creator: str | None = None
    """Who made the work; null: not recorded, or not to be shown."""
    thumbnail: str | None = None
    """Path of the work's small picture; null: there is no match, or it isn't to be shown."""
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
    """Its id, which never changes."""
    state: Literal["pending", "decided", "erased"] | str
    """pending: its question has no answer yet. erased: it went with its question."""
    created_at: datetime
    """When it was made, in UTC (RFC 3339)."""
    decided_at: datetime | None = None
    """When the policy decided; null while pending."""
    attribution: str
    """The question that it is about."""
    policy: str
    """Id of the policy that decides."""
    policy_version: int
    """The version that was active when it was asked; it doesn't change."""
    outcome: Literal["clear", "review", "block", "indeterminate"] | str | None = None
    """Null while pending."""
    final: Literal["clear", "review", "block", "indeterminate"] | str | None = None
    """The person's outcome where somebody has looked, else the policy's."""
    summary: str | None = None
    """The outcome in one sentence, with the codes of its reasons; null while pending."""
    reasons: list[Reason] | None = None
    """Why, those that brought the outcome about first; null while pending."""
    notes: list[str] | None = None
    """What has to be told whatever the outcome, such as a copy."""
    dry_run: Verdict | None = None
    """What the version that is being tried says; it decides nothing."""
    review: Review | None = None
    """The newest of `reviews`, which counts; null: nobody has looked."""
    reviews: list[Review]
    """All that people said of it, newest first."""
    links: DecisionLinks
    """Where it and what belongs to it is, as paths of this service."""


class DecisionLinks(Model):
    self: str
    """Where this is read."""
    attribution: str
    """The question that it is about."""
    policy: str
    """The policy with the version that decided."""
    page: str
    """The page for people."""


class DecisionList(Model):
    items: list[Decision]
    """Those of this page, in the order of the list."""
    next_cursor: str | None = None
    """Give it as `cursor` for the next page; null at the end."""


class Declared(Model):
    """What the picture's own metadata say of how it was made: a claim, plain text, and no proof. Null: not
    said."""

    source: str
    """Where in the file it stands, such as `PNG text parameters`."""
    tool: str | None = None
    """The program that made it."""
    prompt: str | None = None
    """The prompt. An empty text is one, too."""
    negative_prompt: str | None = None
    """The negative prompt."""
    seed: int | None = None
    """The seed."""
    steps: int | None = None
    """Steps of the sampler."""
    sampler: str | None = None
    """The sampler's name."""
    guidance: float | None = None
    """The scale of classifier-free guidance."""
    model: str | None = None
    """The model's name, as the program calls it."""
    model_hash: str | None = None
    """First hex digits of the checkpoint's SHA-256."""
    loras: list[DeclaredLora]
    """The LoRAs that were used; empty: none is named."""
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
    """The LoRA's name, as the program calls it."""
    hash: str | None = None
    """First hex digits of a SHA-256; null: not said."""
    weight: float | None = None
    """The weight that it was used with; null: not said."""


class Delivery(Model):
    """An event for an endpoint. Its id is the `webhook-id` of every attempt."""

    id: str
    """The event's id, the `webhook-id` of every attempt."""
    type: WebhookEvent
    """What happened."""
    state: Literal["pending", "delivered", "failed"] | str
    """pending: it will be tried again. failed: it won't."""
    created_at: datetime
    """When it was made, in UTC (RFC 3339)."""
    delivered_at: datetime | None = None
    """When the receiver took it; null: it hasn't."""
    next_attempt_at: datetime | None = None
    """null: none will be made. While its endpoint is disabled it waits beyond this."""
    attempts: list[DeliveryAttempt]
    """The last twenty."""
    body: str
    """What is sent, to the byte."""
    links: DeliveryLinks
    """Where it and what belongs to it is, as paths of this service."""


class DeliveryAttempt(Model):
    """One attempt."""

    at: datetime
    """When, in UTC (RFC 3339)."""
    seconds: float
    """How many seconds it took."""
    status_code: int | None = None
    """What the receiver answered; null: nothing."""
    error: str | None = None
    """Why it wasn't taken, in words; null: it was."""
    response: str | None = None
    """The first 1,000 characters of what the receiver answered."""


class DeliveryLinks(Model):
    endpoint: str
    """The endpoint that it is for."""


class DeliveryList(Model):
    """A page of an endpoint's deliveries, newest first."""

    items: list[Delivery]
    """Those of this page, in the order of the list."""
    next_cursor: str | None = None
    """Give it as `cursor` for the next page; null at the end."""


class Endpoint(Model):
    """An address that hears of events, without its secret."""

    id: str
    """Its id, which never changes."""
    url: str
    """Where events are sent."""
    description: str | None = None
    """What it is for, in your words; null: nothing was said."""
    events: list[WebhookEvent] | None = None
    """null: everything."""
    enabled: bool
    """false: it hears of nothing until it is enabled again."""
    created_at: datetime
    """When it was made, in UTC (RFC 3339)."""
    failing_since: datetime | None = None
    """Since when nothing was taken, with no pause of a day between attempts; null: the last attempt was.
    After three days it is disabled."""
    disabled_at: datetime | None = None
    """When it was disabled; null: it wasn't."""
    disabled_because: str | None = None
    """Why it isn't enabled, in words."""
    previous_secret_until: datetime | None = None
    """Until when deliveries are signed with the secret before this one as well."""
    links: EndpointLinks
    """Where it and what belongs to it is, as paths of this service."""


class EndpointLinks(Model):
    self: str
    """Where this is read."""
    deliveries: str
    """What was sent to it, and is to be."""


class EndpointList(Model):
    """Your endpoints, the oldest first."""

    items: list[Endpoint]
    """Those of this page, in the order of the list."""


class EndpointWithSecret(Model):
    """An endpoint with its secret, which can't be read again."""

    id: str
    """Its id, which never changes."""
    url: str
    """Where events are sent."""
    description: str | None = None
    """What it is for, in your words; null: nothing was said."""
    events: list[WebhookEvent] | None = None
    """null: everything."""
    enabled: bool
    """false: it hears of nothing until it is enabled again."""
    created_at: datetime
    """When it was made, in UTC (RFC 3339)."""
    failing_since: datetime | None = None
    """Since when nothing was taken, with no pause of a day between attempts; null: the last attempt was.
    After three days it is disabled."""
    disabled_at: datetime | None = None
    """When it was disabled; null: it wasn't."""
    disabled_because: str | None = None
    """Why it isn't enabled, in words."""
    previous_secret_until: datetime | None = None
    """Until when deliveries are signed with the secret before this one as well."""
    links: EndpointLinks
    """Where it and what belongs to it is, as paths of this service."""
    secret: str
    """What deliveries are signed with. It is shown here only."""


class Failure(Model):
    code: str
    """Stable slug of what went wrong."""
    message: str
    """What went wrong, in a sentence (English)."""


class FieldProblem(Model):
    """What is wrong with one part of a request; exactly one of pointer, parameter, header says where."""

    detail: str
    """What is wrong with it, in a sentence (English)."""
    pointer: str | None = None
    """JSON pointer (RFC 6901) into the body, or to a form field."""
    parameter: str | None = None
    """Name of the query or path parameter."""
    header: str | None = None
    """Name of the header."""


class Group(Model):
    """Works of one creator taken together."""

    name: str
    """Who it is, as the works have it."""
    share: float | None = None
    """Part of the measured influence that the group's works have, 0 to 1; null: less than `below`."""
    below: float | None = None
    """The operator's floor, where the share is below it."""
    low: float | None = None
    """Of the share, 95 %; null: not measured. In an approximate answer the share is an estimate from a
    sample of the works, which the interval includes; of a rights holder it is of nothing else."""
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
    """The process answers."""


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
    """Name and version of the index: another build is another id."""
    name: str
    """The index's name, which stays when it is built again."""
    works: int
    """How many training works it has."""
    creators: int | None = None
    """How many creators are recorded; null: none is."""
    model: dict[str, Any]
    """Identity of the model, from the manifest."""
    methods: list[str]
    """The estimators that it can be asked with; the first is taken where none is named."""
    dimension: int | None = None
    """Numbers that are kept for each work and probe, after the sketch; null: not told."""
    timesteps: int | None = None
    """How many of the model's noise levels are looked at; null: not told."""
    created_at: str | None = None
    """When it was built (RFC 3339); null: not told."""
    status: Literal["loading", "ready", "failed", "none"] | str
    """Of its screening, in this process; none: it was built without."""
    next: ComingVersion | None = None
    """The version that is to take its place; null: this is the newest."""
    approximate: ApproximateSearch | None = None
    """Null: every question scores all works, or a selection."""
    card: str | None = None
    """The index card, in Markdown."""
    quality: Quality | None = None
    """Null: not measured for this index."""


class IndexList(Model):
    items: list[IndexSummary]
    """Those of this page, in the order of the list."""


class IndexSummary(Model):
    id: str
    """Name and version of the index: another build is another id."""
    name: str
    """The index's name, which stays when it is built again."""
    works: int
    """How many training works it has."""
    creators: int | None = None
    """How many creators are recorded; null: none is."""
    model: dict[str, Any]
    """Identity of the model, from the manifest."""
    methods: list[str]
    """The estimators that it can be asked with; the first is taken where none is named."""
    dimension: int | None = None
    """Numbers that are kept for each work and probe, after the sketch; null: not told."""
    timesteps: int | None = None
    """How many of the model's noise levels are looked at; null: not told."""
    created_at: str | None = None
    """When it was built (RFC 3339); null: not told."""
    status: Literal["loading", "ready", "failed", "none"] | str
    """Of its screening, in this process; none: it was built without."""
    next: ComingVersion | None = None
    """The version that is to take its place; null: this is the newest."""


class Input(Model):
    """The picture as it was received and normalised."""

    sha256: str
    """Digest of the uploaded bytes."""
    width: int
    """Pixels across, as it was decoded and turned upright."""
    height: int
    """Pixels down, as it was decoded and turned upright."""
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
    """The kind of error in a few words."""
    status: int | None = None
    """What the picture alone would have been answered with."""
    detail: str
    """What is wrong and what to do, in a sentence (English)."""
    reason: str | None = None
    """For refused images and addresses: a stable slug."""


class Key(Model):
    """A key or link, without its secret."""

    id: str
    """Its id, which never changes."""
    prefix: str
    """How it begins; the log names it so."""
    kind: Literal["key", "link"] | str
    """A link opens the page alone."""
    name: str
    """Whose it is or what it is for."""
    state: Literal["active", "expired", "revoked"] | str
    """Whether it lets anybody in now."""
    scopes: list[Scope]
    """What it may do."""
    indexes: list[str] | None = None
    """Ids or names of the indexes that it may see and ask; null: all."""
    daily_quota: int | None = None
    """Questions a day; null: the service's own limit."""
    daily_works: int | None = None
    """Different works that it may be shown in a day; null: the service's own limit."""
    rights_holders: list[str]
    """Whom it speaks for."""
    keep_uploads: int | None = None
    """Seconds; null: as the service does."""
    keep_results: int | None = None
    """Seconds; null: as the service does."""
    replaces: str | None = None
    """Id of the key whose questions it took over."""
    created_at: datetime
    """When it was made, in UTC (RFC 3339)."""
    expires_at: datetime | None = None
    """When it ends by itself; null: it doesn't."""
    revoked_at: datetime | None = None
    """When it was revoked; null: it wasn't."""
    last_used_at: datetime | None = None
    """To the hour."""


class KeyList(Model):
    items: list[Key]
    """Those of this page, in the order of the list."""
    next_cursor: str | None = None
    """Give it as `cursor` for the next page; null at the end."""


class LeftOut(Model):
    """Questions that weren't counted, and why."""

    reason: Literal["not-likely", "not-known", "without-holders"] | str
    """not-likely: the picture isn't likely the model's. not-known: that isn't known. without-holders: the
    answer is of an earlier version, which didn't divide by rights holder."""
    questions: int
    """How many questions were left out for this."""
    note: str
    """The reason in a sentence."""


class Links(Model):
    self: str
    """Where this is read."""
    page: str
    """The page for people."""
    image: str | None = None
    """Null once the picture isn't kept any more."""
    index: str
    """The index that was asked."""
    report: str | None = None
    """The answer as evidence, once it is there."""


class Lookalike(Model):
    """A work that looks similar (CLIP). It says nothing about influence."""

    work_id: str
    """The work's id in its index."""
    title: str | None = None
    """The work's title; null: not recorded, or not to be shown."""
    creator: str | None = None
    """Who made the work; null: not recorded, or not to be shown."""
    thumbnail: str | None = None
    """Path of its small picture; null: the index no longer has it."""
    similarity: float
    """Cosine of the CLIP embeddings, -1 to 1."""
    copied: CopyMatch | None = Field(default=None, alias="copy")
    """Null: the picture is no copy of this work, as far as that is told."""


class NewlyMadeKey(Model):
    """A key with its secret, which can't be read again."""

    id: str
    """Its id, which never changes."""
    prefix: str
    """How it begins; the log names it so."""
    kind: Literal["key", "link"] | str
    """A link opens the page alone."""
    name: str
    """Whose it is or what it is for."""
    state: Literal["active", "expired", "revoked"] | str
    """Whether it lets anybody in now."""
    scopes: list[Scope]
    """What it may do."""
    indexes: list[str] | None = None
    """Ids or names of the indexes that it may see and ask; null: all."""
    daily_quota: int | None = None
    """Questions a day; null: the service's own limit."""
    daily_works: int | None = None
    """Different works that it may be shown in a day; null: the service's own limit."""
    rights_holders: list[str]
    """Whom it speaks for."""
    keep_uploads: int | None = None
    """Seconds; null: as the service does."""
    keep_results: int | None = None
    """Seconds; null: as the service does."""
    replaces: str | None = None
    """Id of the key whose questions it took over."""
    created_at: datetime
    """When it was made, in UTC (RFC 3339)."""
    expires_at: datetime | None = None
    """When it ends by itself; null: it doesn't."""
    revoked_at: datetime | None = None
    """When it was revoked; null: it wasn't."""
    last_used_at: datetime | None = None
    """To the hour."""
    secret: str
    """Send it as `Authorization: Bearer`. It is shown here only."""


class NewlyMadeShareLink(Model):
    """A link with its token, which can't be read again."""

    id: str
    """Its id, which never changes."""
    state: Literal["open", "expired", "revoked"] | str
    """open, or why it isn't any more."""
    label: str | None = None
    """Your own word for it; null: none."""
    leave_out: list[str]
    """All that is left out, with what would give it away."""
    works: int | None = None
    """How many of the first works are told; null: all."""
    created_at: datetime
    """When it was made, in UTC (RFC 3339)."""
    expires_at: datetime
    """When it is open no more, in UTC."""
    revoked_at: datetime | None = None
    """When you closed it; null: you didn't."""
    views: int
    """How often its page was opened or a report taken from it."""
    last_viewed_at: datetime | None = None
    """When it was last opened; null: it wasn't."""
    url: str
    """The link. Whoever has it sees the answer; it is shown here only."""


class NewlyReceivedOptOut(Model):
    """An opt-out as it was received, with the token of who asked without a key."""

    id: str
    """Its id, which never changes."""
    state: Literal["received", "verified", "applied", "rejected", "withdrawn"] | str
    """received: nobody has looked. verified: found right. applied: carried out. The others are ends."""
    hidden: bool
    """Whether the works are hidden from answers now."""
    index: str
    """The index's name, which stays when it is built again."""
    works: list[str] | None = None
    """Ids of the works that it is about; null: it is about a creator."""
    creator: str | None = None
    """All works of this creator; null: it is about `works`."""
    matches: int | None = None
    """How many works of the index that is served now it is about; null: none of this name is."""
    contact: str | None = None
    """Null once erased."""
    statement: str | None = None
    """What shows that the works are theirs; null: nothing was said, or it was erased."""
    reason: str | None = None
    """Why it was rejected."""
    created_at: datetime
    """When it was made, in UTC (RFC 3339)."""
    verified_at: datetime | None = None
    """When the operator found it right; null: not yet."""
    hidden_at: datetime | None = None
    """When the works were hidden from answers; null: they weren't."""
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
    """Where it and what belongs to it is, as paths of this service."""
    token: str | None = None
    """Lets you look at your opt-out, withdraw it and erase contact and statement: send it as `Opt-Out-
    Token`. It is in this answer only; null where your key does that."""


class OptOut(Model):
    """A request to be left out. That works are hidden, left out of an index and gone from the model are
    three things, each with its date; null: it hasn't been done."""

    id: str
    """Its id, which never changes."""
    state: Literal["received", "verified", "applied", "rejected", "withdrawn"] | str
    """received: nobody has looked. verified: found right. applied: carried out. The others are ends."""
    hidden: bool
    """Whether the works are hidden from answers now."""
    index: str
    """The index's name, which stays when it is built again."""
    works: list[str] | None = None
    """Ids of the works that it is about; null: it is about a creator."""
    creator: str | None = None
    """All works of this creator; null: it is about `works`."""
    matches: int | None = None
    """How many works of the index that is served now it is about; null: none of this name is."""
    contact: str | None = None
    """Null once erased."""
    statement: str | None = None
    """What shows that the works are theirs; null: nothing was said, or it was erased."""
    reason: str | None = None
    """Why it was rejected."""
    created_at: datetime
    """When it was made, in UTC (RFC 3339)."""
    verified_at: datetime | None = None
    """When the operator found it right; null: not yet."""
    hidden_at: datetime | None = None
    """When the works were hidden from answers; null: they weren't."""
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
    """Where it and what belongs to it is, as paths of this service."""


class OptOutLinks(Model):
    self: str
    """Where this is read."""


class OptOutList(Model):
    items: list[OptOut]
    """Those of this page, in the order of the list."""
    next_cursor: str | None = None
    """Give it as `cursor` for the next page; null at the end."""


class PolicyCard(Model):
    """A policy with one version's rules, and the numbers of all its versions."""

    id: str
    """The policy's own id, as its file says."""
    title: str | None = None
    """Of the version that decides, or else of the newest."""
    active_version: int | None = None
    """The version that decides; null: none does."""
    dry_run_version: int | None = None
    """The version that is tried beside it; null: none is."""
    newest_version: int
    """The number of the newest version, from 1."""
    created_at: datetime
    """When it was made, in UTC (RFC 3339)."""
    updated_at: datetime
    """When a version was last kept or activated."""
    links: PolicyLinks
    """Where it and what belongs to it is, as paths of this service."""
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
    """Where this is read."""
    backtest: str
    """Where a version is tried on stored answers."""


class PolicyList(Model):
    items: list[PolicySummary]
    """Those of this page, in the order of the list."""


class PolicySummary(Model):
    """A policy in a list."""

    id: str
    """The policy's own id, as its file says."""
    title: str | None = None
    """Of the version that decides, or else of the newest."""
    active_version: int | None = None
    """The version that decides; null: none does."""
    dry_run_version: int | None = None
    """The version that is tried beside it; null: none is."""
    newest_version: int
    """The number of the newest version, from 1."""
    created_at: datetime
    """When it was made, in UTC (RFC 3339)."""
    updated_at: datetime
    """When a version was last kept or activated."""
    links: PolicyLinks
    """Where it and what belongs to it is, as paths of this service."""


class PolicyVersionInfo(Model):
    version: int
    """Its number, from 1."""
    digest: str
    """SHA-256 of what it says."""
    created_at: datetime
    """When it was kept."""


class Problem(Model):
    """An error (RFC 9457)."""

    type: str
    """Where this kind of error is described, as a path of this service."""
    code: str
    """Stable slug of the kind of error; the anchor of `type`."""
    title: str
    """The kind of error in a few words, in the language that was asked for."""
    status: int
    """The HTTP status."""
    detail: str
    """What is wrong and what to do, in a sentence (English)."""
    instance: str
    """The path that was asked for."""
    request_id: str
    """The request's id, as in the log and in `X-Request-Id`."""
    reason: str | None = None
    """For refused images and addresses: a stable slug such as `truncated`."""
    errors: list[FieldProblem] | None = None
    """What is wrong with each part of the request, twenty at most; absent: with none."""


class Progress(Model):
    stage: Literal["received", "screened", "gradients", "scored"] | str
    """received, screened (look-alikes were found), gradients (a worker measures), scored."""
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
    """The question that this is about."""
    progress: Progress
    """How far the work is."""


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
    """Upper end of its 95 % interval."""
    ceiling: float | None = None
    """What a second real retraining scores; null: not measured."""
    perfect: float | None = None
    """About what a perfect prediction scores; null: not measured."""
    subsets: int
    """How many models were trained again, each on a part of the works."""
    queries: int
    """How many pictures were asked about."""
    truth: str
    """The ground truth it was held against."""
    measured_at: datetime
    """When it was measured, in UTC."""
    note: str | None = None
    """What has to be known about it, in a sentence; null: nothing."""


class Quota(Model):
    """What a caller may still do."""

    requests: Allowance
    """Requests of any kind, in a minute or what DAS_RATE_LIMIT says."""
    questions: Allowance
    """Pictures asked about in a day (UTC)."""
    works: Allowance
    """Different works that were shown to you in the last 24 hours; each is free again after those."""
    counting: bool
    """Whether requests are counted now; while that isn't possible they are let through."""


class Readiness(Model):
    ready: bool
    """Whether all checks are well, so that questions are answered."""
    checks: dict[str, Check]
    """database, broker, index, worker"""


class Reason(Model):
    """Why: one rule that fired or couldn't be decided, or one of the service's own reasons."""

    code: str
    """The rule's code, or one of no-rule-fired, not-answered, further-pictures, model-unlikely, model-
    unsure, model-unknown, policy-unusable."""
    outcome: Literal["clear", "review", "block", "indeterminate"] | str
    """What this reason asks for; indeterminate: it couldn't be decided."""
    fired: bool
    """false: the rule couldn't be decided for want of something."""
    text: str
    """The same in a sentence, in the language that was asked for."""
    because: str | None = None
    """The policy's own words."""
    compared: list[Comparison]
    """The comparisons that it hangs on, twenty at most."""
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
    """Its digest, signed where the operator has a key."""


class ReportKey(Model):
    """The public half of the operator's key."""

    algorithm: Literal["Ed25519"] | str = "Ed25519"
    """The kind of key."""
    key_id: str
    """The first digits of its SHA-256, as signatures name it."""
    pem: str
    """The key as PEM."""


class Review(Model):
    """What a person said."""

    outcome: Literal["clear", "block"] | str
    """What the person decided."""
    note: str | None = None
    """Why, in their words; null: nothing was said."""
    by: str
    """Whose key it was said with."""
    at: datetime
    """When they said it, in UTC."""


class Rounding(Model):
    """How the shares of an answer are told."""

    step: float | None = None
    """Works' shares are multiples of this, intervals widened to such; null: they aren't rounded."""
    groups: float
    """Groups' shares are multiples of this, which isn't below `floor`: the share of a work that isn't told
    can't be had by taking the others from its group's."""
    floor: float
    """A share below this is null; 0.01 is 1 %."""


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
    """Its place, from 1 for the highest score."""
    work_id: str
    """The work's id; `hidden_…` for one that isn't to be shown, good in this answer only."""
    title: str | None = None
    """The work's title; null: not recorded, or not to be shown."""
    creator: str | None = None
    """Who made the work; null: not recorded, or not to be shown."""
    rights_holder: str | None = None
    """Who holds the rights in it; null: not recorded, or not to be shown."""
    licence: str | None = None
    """Its licence, as the training set has it; null: not recorded."""
    source_url: str | None = None
    """Where it was taken from; null: not recorded."""
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
    score: float | None = None
    """The attribution score; comparable within one answer only. Null where shares are rounded or have a
    floor: it is in exact proportion to them."""
    share: float | None = None
    """Part of the measured influence among the candidates, 0 to 1; null: less than `below`."""
    below: float | None = None
    """The operator's floor, where the share is below it."""
    low: float | None = None
    """Of the share, 95 %; null: not measured."""
    high: float | None = None
    """Of the share, 95 %; null: not measured."""
    percentile: float | None = None
    """Where this score lies among the candidates' scores; in an approximate answer estimated from the
    sample."""
    similarity: float | None = None
    """CLIP similarity: looks similar, which isn't influence."""
    copied: CopyMatch | None = Field(default=None, alias="copy")
    """Null: the picture is no copy of this work, as far as that is told."""


class ShareLink(Model):
    """A link, without its token."""

    id: str
    """Its id, which never changes."""
    state: Literal["open", "expired", "revoked"] | str
    """open, or why it isn't any more."""
    label: str | None = None
    """Your own word for it; null: none."""
    leave_out: list[str]
    """All that is left out, with what would give it away."""
    works: int | None = None
    """How many of the first works are told; null: all."""
    created_at: datetime
    """When it was made, in UTC (RFC 3339)."""
    expires_at: datetime
    """When it is open no more, in UTC."""
    revoked_at: datetime | None = None
    """When you closed it; null: you didn't."""
    views: int
    """How often its page was opened or a report taken from it."""
    last_viewed_at: datetime | None = None
    """When it was last opened; null: it wasn't."""


class ShareLinkList(Model):
    """Every share of a question, the newest first."""

    items: list[ShareLink]
    """Those of this page, in the order of the list."""


class Signature(Model):
    """An Ed25519 signature of the digest's text."""

    algorithm: Literal["Ed25519"] | str
    """The kind of signature."""
    key_id: str
    """The first digits of the public key's SHA-256."""
    public_key: str
    """32 bytes in base64."""
    value: str
    """64 bytes in base64."""


class Statement(Model):
    """Shares by rights holder over the answers of a period; they add up to one, and amounts to the amount."""

    index: str
    """Id of the version whose works and training use are told."""
    since: datetime
    """Answers from here on…"""
    until: datetime
    """…and before this."""
    questions: int
    """Questions counted."""
    versions: list[VersionAnswers]
    """Which versions of the index answered them, and how many."""
    left_out: list[LeftOut]
    """Questions of the period that weren't counted, by reason; empty: all were."""
    reliable: bool
    """Whether the ranking bears the shares as a whole."""
    reliable_because: str
    """Why it does or doesn't, in a sentence."""
    currency: str | None = None
    """What the amounts are in, as it was asked; null: none was named."""
    rounding: Rounding | None = None
    """How the shares of each answer were rounded before they were counted; null: they weren't."""
    shares: list[HolderShare]
    """A row for each rights holder, the largest share first."""


class SummaryLinks(Model):
    self: str
    """Where this is read."""
    page: str
    """The page for people."""


class Verdict(Model):
    """What one version of the policy says."""

    policy_version: int
    """The version that says this."""
    outcome: Literal["clear", "review", "block", "indeterminate"] | str
    """What it comes to."""
    summary: str
    """It in one sentence, in the language that was asked for."""
    reasons: list[Reason]
    """Those that brought the outcome about come first."""


class Version(Model):
    name: str
    """The distribution's name."""
    version: str
    """The service's version."""
    python: str
    """The version of Python that it runs on."""
    libraries: dict[str, str]
    """Versions of the libraries that results depend on, by name."""


class VersionAnswers(Model):
    """Questions counted that one version of the index answered."""

    index: str
    """The version's id."""
    questions: int
    """Questions counted that it answered."""


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
    """The work's id in its index."""
    index: str
    """Id of the index, as in /v1/indexes."""
    title: str | None = None
    """The work's title; null: not recorded, or not to be shown."""
    creator: str | None = None
    """Who made the work; null: not recorded, or not to be shown."""
    rights_holder: str | None = None
    """Who holds the rights in it; null: not recorded, or not to be shown."""
    licence: str | None = None
    """Its licence, as the training set has it; null: not recorded."""
    source_url: str | None = None
    """Where it was taken from; null: not recorded."""
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
    thumbnail: str | None = None
    """Path of its small picture; null: it is withheld."""
    exposure: float | None = None
    """Percent of the works with less leverage; null: not known."""
    metadata: dict[str, Any]
    """Further columns of the works' table."""
    withheld: str | None = None
    """Why nothing is told of it now, in a sentence; all else is null then, and `work_id` good in this
    answer only unless it was asked for. Null: it is told."""


class WorkList(Model):
    items: list[Work]
    """Those of this page, in the order of the list."""
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
    daily_works: int | None
    expires_in: int | None
    rights_holders: list[str]
    keep_uploads: int | None
    keep_results: int | None


class WebhookChanges(TypedDict, total=False):
    """What shall be different about a webhook's endpoint."""

    enabled: bool | None
    events: list[WebhookEvent] | None
    description: str | None
