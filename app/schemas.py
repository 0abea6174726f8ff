"""What the API takes and gives, as pydantic models. What was not measured is null, never a made-up number."""

import re
from datetime import datetime
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from app.addresses import MAX_URL_LENGTH
from app.described import Described
from app.fields import Candidates, Number, Seed
from app.fields import Moment as Moment  # which others take from here
from app.link_schemas import Links, SummaryLinks
from app.rounding import Rounding
from das import registry
from das.methods import METHODS, SEEDED
from das.rights.values import Tdm

State = Literal["queued", "running", "succeeded", "failed", "cancelled", "erased"]
ScreeningStatus = Literal["loading", "ready", "failed", "none"]
Stage = Literal["received", "screened", "gradients", "scored"]

MAX_TAG_LENGTH = 200
MAX_METHOD_LENGTH = 40
MAX_PROMPT_LENGTH = 4000
CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def _printable(text: str) -> str:
    """Refuse control characters and lone surrogates: databases and logs choke on them."""
    if CONTROL_CHARACTERS.search(text):
        raise PydanticCustomError("unprintable", "has control characters or lone surrogates in it.")
    return text


def _method(name: str) -> str:
    known = [method.name for method in registry.methods()]
    if name not in known:
        raise ValueError(f"is none of {', '.join(known)}.")
    return name


# The pattern is for the API's description; the validator's sentence says more than "doesn't match".
Printable = Annotated[
    str, AfterValidator(_printable), Described(pattern=r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*$")
]
Estimator = Annotated[str, AfterValidator(_method)]


class AttributionRequest(BaseModel):
    """The fields beside the image."""

    model_config = ConfigDict(extra="forbid")

    index: Printable | None = Field(
        default=None,
        max_length=200,
        description="Id of the index to ask (see /v1/indexes); default: the first one.",
    )
    top_k: Number = Field(default=20, ge=1, description="How many works to answer with.")
    candidates: Candidates = Field(
        default="auto",
        description="Which works are scored: `all`, or a number (that many nearest to the picture by CLIP), or "
        "`auto`: all of them where one product over them costs little, else 1000. The answer says which it was.",
        examples=["auto", "all", "1000"],
    )
    method: Estimator | None = Field(
        default=None,
        max_length=MAX_METHOD_LENGTH,
        description="An estimator that the index was built for (see `methods` in /v1/indexes); default: its first.",
        examples=[method.name for method in METHODS],
    )
    client_tag: Printable | None = Field(
        default=None,
        max_length=MAX_TAG_LENGTH,
        description="Your own label; attributions can be listed by it.",
    )
    prompt: Printable | None = Field(
        default=None,
        max_length=MAX_PROMPT_LENGTH,
        description="What the picture was generated from, for indexes of text-conditional models; default: what its"
        " own metadata say (`input.declared`). An empty text is a prompt, too.",
    )
    seed: Seed | None = Field(
        default=None,
        description=f"What it was generated with, for `{SEEDED}`; default: what its own metadata say. Without either"
        " the picture is inverted.",
    )
    webhook_url: str | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_URL_LENGTH,
        description="The address of one of your webhook endpoints, which alone hears of this; default: all of them.",
    )


class ListQuery(BaseModel):
    """Filters and paging of the list. A misspelt filter would silently show everything, so it is an error."""

    model_config = ConfigDict(extra="forbid")

    state: State | None = None
    client_tag: Printable | None = Field(default=None, max_length=MAX_TAG_LENGTH)
    created_after: Moment | None = Field(default=None, description="RFC 3339, with a time zone.")
    cursor: str | None = Field(default=None, max_length=200, description="`next_cursor` of the page before.")
    limit: int = Field(default=20, ge=1, le=100)


class AttributionForm(AttributionRequest):
    """A question as multipart/form-data."""

    image: Annotated[bytes, WithJsonSchema({"type": "string", "format": "binary"})] = Field(
        description="The picture's file."
    )


class AttributionJson(AttributionRequest):
    """A question as JSON."""

    image_base64: Annotated[str, WithJsonSchema({"type": "string", "contentEncoding": "base64"})] = Field(
        description="The picture's bytes in base64 (RFC 4648), without a `data:` prefix."
    )


class DeclaredLora(BaseModel):
    """A LoRA that the picture says was used."""

    name: str
    hash: str | None = Field(description="First hex digits of a SHA-256; null: not said.")
    weight: float | None


class Declared(BaseModel):
    """What the picture's own metadata say of how it was made: a claim, plain text, and no proof. Null: not said."""

    source: str = Field(description="Where in the file it stands, such as `PNG text parameters`.")
    tool: str | None
    prompt: str | None
    negative_prompt: str | None
    seed: int | None
    steps: int | None
    sampler: str | None
    guidance: float | None
    model: str | None
    model_hash: str | None = Field(description="First hex digits of the checkpoint's SHA-256.")
    loras: list[DeclaredLora]
    ai_generated: bool | None = Field(
        description="true: a C2PA manifest says that a trained model made it; null: nothing is said."
    )
    cut: list[str] = Field(description="Fields that were longer than is read.")
    taken: list[Literal["prompt", "seed"]] = Field(
        description="What the question was asked with because the request left it out."
    )
    is_model_of_index: Literal["same", "other", "unknown"] = Field(
        description="Whether the model that it names is the index's, by the hashes of files; unknown: they can't be"
        " compared."
    )
    summary: str | None = Field(
        description="What has to be said of the model that it names, first of the answer's `notes`; null: nothing."
    )


class Input(BaseModel):
    """The picture as it was received and normalised."""

    sha256: str = Field(description="Digest of the uploaded bytes.")
    width: int
    height: int
    format: str = Field(description="Format found in the content, e.g. PNG.")
    normalisation: list[str] = Field(description="What had to be done to get plain sRGB pixels.")
    declared: Declared | None = Field(
        None, description="What the picture says of itself; null: nothing that is read here."
    )


class Progress(BaseModel):
    stage: Stage
    done: int = Field(description="Steps of the current stage done.")
    total: int = Field(description="Steps of the current stage; 0 before it has begun.")
    eta_s: float | None = Field(
        default=None, description="Estimated seconds left of this stage; null when unknown."
    )
    attempt: int = Field(description="How often the work was begun; above 1 it is being retried.")
    waiting: int | None = Field(
        default=None, description="Questions in the queue, this one among them; null unless it is queued."
    )


class CandidateSet(BaseModel):
    """Which works an answer is about. Shares are shares of the influence measured among these."""

    mode: Literal["all", "screened", "approximate"]
    count: int = Field(description="How many works there are.")
    scored: int | None = Field(
        None, description="Of an approximate answer, how many of them were scored; null: all were."
    )
    asked: str = Field(description="What the request said: auto, all or a number.")


class CopyMatch(BaseModel):
    """That the picture asked about is nearly the same picture as a work, whatever influence that had."""

    verdict: Literal["copy", "near"] = Field(
        description="copy: nearly the same picture, perhaps re-encoded, resized or mirrored. near: a changed version"
        " of it, or one that is much alike; somebody has to look."
    )
    score: float = Field(
        description="For pdq the part of equal bits of the two hashes, about a half for unrelated pictures; for sscd"
        " the cosine of the two embeddings."
    )
    method: Literal["pdq", "sscd"] = Field(description="By what the two were compared.")
    mirrored: bool = Field(description="Whether they are alike when one is mirrored.")


class Share(BaseModel):
    """One work in an answer."""

    rank: int
    work_id: str
    title: str | None
    creator: str | None
    rights_holder: str | None
    licence: str | None
    source_url: str | None
    tdm: Tdm | None = Field(
        None, description="What is said of text and data mining with it; null: no signal, or not known."
    )
    thumbnail: str | None = Field(
        description="Null, as is all that is told of the work, if the index no longer has it."
    )
    score: float | None = Field(
        description="The attribution score; comparable within one answer only. Null where shares are rounded or"
        " have a floor: it is in exact proportion to them."
    )
    share: float | None = Field(
        description="Part of the measured influence among the candidates, 0 to 1; null: less than `below`."
    )
    below: float | None = Field(None, description="The operator's floor, where the share is below it.")
    low: float | None = Field(default=None, description="Of the share, 95 %; null: not measured.")
    high: float | None = Field(default=None, description="Of the share, 95 %; null: not measured.")
    percentile: float | None = Field(
        description="Where this score lies among the candidates' scores; in an approximate answer estimated from the"
        " sample."
    )
    similarity: float | None = Field(description="CLIP similarity: looks similar, which isn't influence.")
    copied: CopyMatch | None = Field(
        validation_alias=AliasChoices("copy", "copied"),
        serialization_alias="copy",
        description="Null: the picture is no copy of this work, as far as that is told.",
    )


class Group(BaseModel):
    """Works of one creator taken together."""

    name: str
    share: float | None
    below: float | None = Field(None, description="The operator's floor, where the share is below it.")
    low: float | None = Field(
        default=None,
        description="Of the share, 95 %; null: not measured. In an approximate answer the share is an estimate from a"
        " sample of the works, which the interval includes; of a rights holder it is of nothing else.",
    )
    high: float | None = Field(default=None, description="Of the share, 95 %; null: not measured.")
    works: int = Field(description="How many of the candidates are of this group.")
    share_of_index: float | None = Field(
        description="This group's part of the candidates, by number of works."
    )
    factor: float | None = Field(description="share / share_of_index.")


class Lookalike(BaseModel):
    """A work that looks similar (CLIP). It says nothing about influence."""

    work_id: str
    title: str | None
    creator: str | None
    thumbnail: str | None
    similarity: float
    copied: CopyMatch | None = Field(
        validation_alias=AliasChoices("copy", "copied"),
        serialization_alias="copy",
        description="Null: the picture is no copy of this work, as far as that is told.",
    )


class Copy(BaseModel):
    """Whether the picture is a copy of one of all works of the index, told apart from influence."""

    verdict: Literal["copy", "near", "none", "unclear"] = Field(
        description="Of the best match. none: it is like no work. unclear: it has too little structure to be"
        " compared."
    )
    score: float | None = Field(description="The highest of all works; null where the verdict is unclear.")
    method: Literal["pdq", "sscd"] = Field(description="By what it was compared.")
    mirrored: bool
    work_id: str | None = Field(description="The best match; null where there is none.")
    title: str | None
    creator: str | None
    thumbnail: str | None
    summary: str | None = Field(
        description="The verdict in words, with what it is no proof of; null where it is none."
    )


class InModel(BaseModel):
    """Whether the index's model made the picture, held against pictures that it did make."""

    verdict: Literal["likely", "unlikely", "unsure"] = Field(
        description="unsure: not as the model makes pictures, or like ones it was not trained on; but one of its own"
        " that was re-encoded could look so."
    )
    p_value: float = Field(
        description="Part of the model's own pictures that look as little like it; conformal."
    )
    p_value_re_encoded: float = Field(
        description="The same, were the picture re-encoded or resized on its way; the largest of several."
    )
    p_value_held_out: float | None = Field(
        None,
        description="Part of the model's own pictures that look as much like pictures it was not trained on; null:"
        " the index was built without such.",
    )
    references: int = Field(description="How many of the model's own pictures it was held against.")


class Certainty(BaseModel):
    """How far the first work is ahead."""

    stands_out: bool = Field(description="Whether it holds at least three times the mean share.")
    percentile: float | None = Field(
        description="How many percent of the model's own pictures have a first work with a smaller share; null where"
        " not all works were candidates, or shares are rounded."
    )
    clearly_first: bool | None = Field(
        None,
        description="Whether it leads the second by more than other timesteps would change; null: not measured.",
    )


class Quality(BaseModel):
    """How good this index's ranking was measured to be, against models that were trained again; in percent."""

    method: str = Field(description="The method that was measured: the index's first.")
    lds: float = Field(description="Linear datamodelling score, mean over the queries.")
    low: float = Field(description="Lower end of its 95 % interval, by resampling the subsets.")
    high: float
    ceiling: float | None = Field(description="What a second real retraining scores; null: not measured.")
    perfect: float | None = Field(description="About what a perfect prediction scores; null: not measured.")
    subsets: int
    queries: int
    truth: str = Field(description="The ground truth it was held against.")
    measured_at: datetime
    note: str | None


class Failure(BaseModel):
    code: str
    message: str


class Attribution(BaseModel):
    """A question and, once it is there, its answer."""

    id: str
    state: State
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    client_tag: str | None
    index: str
    method: str
    candidates: CandidateSet | None = Field(description="Null until it is known.")
    top_k: int
    prompt: str | None
    seed: int | None
    input: Input
    progress: Progress
    summary: str | None
    in_model: InModel | None = Field(
        description="Null: not known, because the index was built without reference generations."
    )
    certainty: Certainty | None = Field(description="Null as for in_model.")
    copied: Copy | None = Field(
        validation_alias=AliasChoices("copy", "copied"),
        serialization_alias="copy",
        description="Null until scored, or if the index was built before its works were hashed.",
    )
    quality: Quality | None = Field(description="Null: not measured for this index and method.")
    works: list[Share] | None = Field(description="Ranked works; null until scored.")
    groups: dict[str, list[Group]] | None = Field(
        description="By creator and rights_holder; null until scored."
    )
    rounding: Rounding | None = Field(None, description="How shares are told; null: as they were measured.")
    lookalikes: list[Lookalike] | None = Field(description="Null if the screening failed; see notes.")
    timings_ms: dict[str, float] | None = Field(description="How long each part took.")
    error: Failure | None
    expires_at: datetime | None = Field(
        default=None,
        description="When it is erased by itself; null until it has ended, or if it is kept until it is deleted.",
    )
    notes: list[str] = Field(description="Sentences on what is missing from this answer and why.")
    links: Links


class AttributionSummary(BaseModel):
    """A question in a list; its whole answer is one request further, at `links.self`."""

    id: str
    state: State
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    client_tag: str | None
    index: str | None = Field(description="Null once it was erased.")
    method: str | None = Field(description="Null once it was erased.")
    summary: str | None = Field(description="The answer's first sentence; null until scored.")
    in_model: Literal["likely", "unlikely", "unsure"] | None = Field(description="The verdict of in_model.")
    copied: Literal["copy", "near", "none", "unclear"] | None = Field(
        serialization_alias="copy", description="The verdict of copy."
    )
    links: SummaryLinks


class AttributionList(BaseModel):
    items: list[AttributionSummary]
    next_cursor: str | None = Field(description="Give it as `cursor` for the next page; null at the end.")


class Health(BaseModel):
    status: Literal["ok"]


class Check(BaseModel):
    ok: bool
    detail: str


class Readiness(BaseModel):
    ready: bool
    checks: dict[str, Check] = Field(description="database, broker, index, worker")


class Version(BaseModel):
    name: str
    version: str
    python: str
    libraries: dict[str, str]
