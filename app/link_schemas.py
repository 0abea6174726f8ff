"""Where what belongs to a question is."""

from pydantic import BaseModel, Field


class Links(BaseModel):
    self: str
    page: str
    image: str | None = Field(description="Null once the picture isn't kept any more.")
    index: str
    report: str | None = Field(default=None, description="The answer as evidence, once it is there.")


class SummaryLinks(BaseModel):
    self: str
    page: str
