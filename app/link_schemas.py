"""Where what belongs to a question is."""

from pydantic import BaseModel, Field


class Links(BaseModel):
    self: str
    page: str
    image: str
    index: str
    report: str | None = Field(default=None, description="The answer as evidence, once it is there.")


class SummaryLinks(BaseModel):
    self: str
    page: str
