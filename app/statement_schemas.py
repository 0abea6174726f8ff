"""What the route of statements answers with."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from app.rounding import Rounding


class HolderShare(BaseModel):
    """A rights holder's part. Decimals are text, so that they add up."""

    rights_holder: str = Field(
        description="Or `Rights holder not recorded`, `Beyond those that the answers name`, `No influence measured`."
    )
    share: str | None = Field(
        description="Mean of the holder's shares over the questions counted, a part of one; null: none was counted."
    )
    works: int = Field(description="Works of the index that the holder has a part in.")
    questions: int = Field(description="Questions counted in which the holder has a share.")
    reliable: bool = Field(description="Whether the ranking bears this share; see `reliable_because`.")
    training_use: str = Field(
        description="The holder's part of the works by how often they were trained on, a part of one."
    )
    amount: str | None = Field(description="Of `amount`, by `share`.")
    amount_by_training_use: str | None = Field(description="Of `amount`, by `training_use`.")


class LeftOut(BaseModel):
    """Questions that weren't counted, and why."""

    reason: Literal["not-likely", "not-known", "without-holders"]
    questions: int
    note: str


class VersionAnswers(BaseModel):
    """Questions counted that one version of the index answered."""

    index: str = Field(description="The version's id.")
    questions: int = Field(description="Questions counted that it answered.")


class Statement(BaseModel):
    """Shares by rights holder over the answers of a period; they add up to one, and amounts to the amount."""

    index: str
    since: datetime = Field(description="Answers from here on…")
    until: datetime = Field(description="…and before this.")
    questions: int = Field(description="Questions counted.")
    versions: list[VersionAnswers] = Field(
        description="Which versions of the index answered them, and how many."
    )
    left_out: list[LeftOut]
    reliable: bool
    reliable_because: str
    currency: str | None
    rounding: Rounding | None = Field(
        None,
        description="How the shares of each answer were rounded before they were counted; null: they weren't.",
    )
    shares: list[HolderShare]
