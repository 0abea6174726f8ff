"""What the API tells of indexes and their works."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from app.schemas import Quality, ScreeningStatus
from das.rights.values import Tdm


class ComingVersion(BaseModel):
    id: str
    state: Literal["opening", "waiting", "refused"] = Field(
        description="Being checked and opened, waiting for a worker to load it, or refused; `/readyz` says why."
    )


class IndexSummary(BaseModel):
    id: str
    name: str
    works: int
    creators: int | None
    model: dict[str, Any] = Field(description="Identity of the model, from the manifest.")
    methods: list[str]
    dimension: int | None
    timesteps: int | None
    created_at: str | None
    status: ScreeningStatus = Field(
        description="Of its screening, in this process; none: it was built without."
    )
    next: ComingVersion | None = Field(
        description="The version that is to take its place; null: this is the newest."
    )


class IndexList(BaseModel):
    items: list[IndexSummary]


class ApproximateSearch(BaseModel):
    """How an index finds works without scoring all of them, and how many of the highest it found."""

    method: str = Field(description="The estimator that is asked so; others score every work.")
    recall_at_20: float = Field(
        description="The part of the 20 works that rank highest that it finds, mean over the pictures asked about."
    )
    queries: int = Field(description="How many pictures it was measured with.")
    measured_with: str = Field(description="Which pictures, in words.")
    sample: int = Field(
        description="Works that shares of groups, and percentiles, are estimated from. A percentile near 100 may be"
        " too high by 300 / sample, one in the middle be off by 100 / √sample."
    )
    bytes_per_work: int = Field(description="Of the search, for each feature set.")
    depth: int = Field(description="Candidates of each sign and feature set that are scored exactly.")


class IndexCard(IndexSummary):
    approximate: ApproximateSearch | None = Field(
        None, description="Null: every question scores all works, or a selection."
    )
    card: str | None = Field(description="The index card, in Markdown.")
    quality: Quality | None = Field(description="Null: not measured for this index.")


class Work(BaseModel):
    """One training work, with every column that the index keeps about it."""

    work_id: str
    index: str
    title: str | None
    creator: str | None
    rights_holder: str | None
    licence: str | None
    source_url: str | None
    tdm: Tdm | None = Field(
        description="The strictest signal on text and data mining in its file (XMP, C2PA) or metadata; null: none, or"
        " the index was built before they were read."
    )
    thumbnail: str | None = Field(description="Path of its small picture; null: it is withheld.")
    exposure: float | None = Field(
        None, description="Percent of the works with less leverage; null: not known."
    )
    metadata: dict[str, Any] = Field(description="Further columns of the works' table.")
    withheld: str | None = Field(
        default=None,
        description="Why nothing is told of it now, in a sentence; all else is null then, and `work_id` good in this"
        " answer only unless it was asked for. Null: it is told.",
    )


class WorkList(BaseModel):
    items: list[Work]
    next_cursor: str | None = Field(description="Give it as `cursor` for the next page; null at the end.")
