"""What the API takes and gives about batches of pictures."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from app.addresses import MAX_URL_LENGTH
from app.fields import Candidates, Seed, TopK
from app.schemas import (
    MAX_METHOD_LENGTH,
    MAX_PROMPT_LENGTH,
    MAX_TAG_LENGTH,
    Attribution,
    AttributionRequest,
    AttributionSummary,
    Moment,
    Printable,
)
from jobs.batch_rows import MAX_NAME

MAX_ITEMS = 100
ItemState = Literal["waiting", "queued", "running", "succeeded", "failed", "cancelled", "erased"]
Binary = Annotated[bytes, WithJsonSchema({"type": "string", "format": "binary"})]
Base64 = Annotated[str, WithJsonSchema({"type": "string", "contentEncoding": "base64"})]


class BatchItemJson(BaseModel):
    """A picture of a batch as JSON: its bytes or its address, and what is asked of it unlike of the others."""

    model_config = ConfigDict(extra="forbid")

    name: Printable | None = Field(
        default=None, max_length=MAX_NAME, description="What you call it, such as its file's name."
    )
    image_base64: Base64 | None = Field(default=None, description="The picture's bytes in base64 (RFC 4648).")
    image_url: str | None = Field(
        default=None, max_length=MAX_URL_LENGTH, description="Where the picture is; exactly one of the two."
    )
    index: Printable | None = Field(default=None, max_length=200)
    top_k: TopK | None = None
    candidates: Candidates | None = None
    method: str | None = Field(default=None, max_length=MAX_METHOD_LENGTH)
    client_tag: Printable | None = Field(default=None, max_length=MAX_TAG_LENGTH)
    prompt: Printable | None = Field(default=None, max_length=MAX_PROMPT_LENGTH)
    seed: Seed | None = None


class BatchJson(AttributionRequest):
    """Many questions as JSON: what they have in common, and the pictures."""

    items: list[BatchItemJson] = Field(min_length=1, max_length=MAX_ITEMS)


class BatchForm(AttributionRequest):
    """Many questions as multipart/form-data: their pictures, or a zip of them, and what they have in common."""

    image: list[Binary] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_ITEMS,
        description="The pictures' files, each in a part of its own.",
    )
    archive: Binary | None = Field(
        default=None,
        description="In their place a zip of up to 100 files, with `manifest.jsonl` or `manifest.csv` in it or not:"
        " for each `file`, what is asked of it, such as `prompt` and `client_tag`.",
    )


class BatchListQuery(BaseModel):
    """Filters and paging of the list. A misspelt filter would silently show everything, so it is an error."""

    model_config = ConfigDict(extra="forbid")

    client_tag: Printable | None = Field(default=None, max_length=MAX_TAG_LENGTH)
    created_after: Moment | None = Field(default=None, description="RFC 3339, with a time zone.")
    cursor: str | None = Field(default=None, max_length=200, description="`next_cursor` of the page before.")
    limit: int = Field(default=20, ge=1, le=100)


class ItemProblem(BaseModel):
    """Why a picture has no answer, in the form of a problem document (RFC 9457)."""

    type: str = Field(description="`about:blank` where the question itself failed.")
    code: str = Field(description="Stable slug of the kind of error.")
    title: str
    status: int | None = Field(description="What the picture alone would have been answered with.")
    detail: str
    reason: str | None = Field(description="For refused images and addresses: a stable slug.")


class BatchItem(BaseModel):
    """A picture of a batch and what became of it. `attribution` is its question in short, once it is one."""

    position: int = Field(description="Its place in the batch, from 1.")
    name: str | None
    state: ItemState = Field(description="`waiting`: it wasn't read yet; from then on that of its question.")
    client_tag: str | None
    problem: ItemProblem | None = Field(description="Why it failed.")
    attribution: AttributionSummary | None


class BatchCounts(BaseModel):
    """How many pictures are in each state."""

    waiting: int = 0
    queued: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    erased: int = 0


class BatchLinks(BaseModel):
    self: str
    results: str


class BatchSummary(BaseModel):
    """A batch in a list."""

    id: str
    state: Literal["open", "finished", "cancelled"] = Field(
        description="`finished` once every picture has ended, whichever way."
    )
    created_at: datetime
    client_tag: str | None
    size: int = Field(description="How many pictures it has.")
    counts: BatchCounts
    links: BatchLinks


class Batch(BatchSummary):
    """A batch with its pictures in their order."""

    items: list[BatchItem]
    next_cursor: str | None = Field(description="Give it as `cursor` for the further items; null at the end.")


class BatchList(BaseModel):
    items: list[BatchSummary]
    next_cursor: str | None = Field(description="Give it as `cursor` for the next page; null at the end.")


class BatchResult(BaseModel):
    """A line of `results.jsonl`: a picture of the batch, with its whole answer as far as it is known."""

    position: int
    name: str | None
    state: ItemState
    client_tag: str | None
    problem: ItemProblem | None = Field(description="Why it has no answer.")
    attribution: Attribution | None = Field(description="Null where it isn't a question, yet or at all.")
