"""What the API takes and gives about opt-outs."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from app.described import Described
from app.schemas import Moment, Printable
from jobs.models import utc_now
from jobs.opt_outs import MAX_CONTACT, MAX_REASON, MAX_STATEMENT, MOST_WORKS

MAX_CREATOR = 1000
State = Literal["received", "verified", "applied", "rejected", "withdrawn"]
EXAMPLE_ID = "opt_0193a6c1f3d07e52b3a1c5d4e6f70819"


def _says_something(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank", "has nothing but blanks in it.")
    return text.strip()


def _past(moment: datetime) -> datetime:
    if moment > utc_now():
        raise PydanticCustomError("future", "lies in the future: say when it was done, once it is.")
    return moment


# As with Printable the pattern is for the description alone: text with something in it that is no blank.
_CHARACTER = r"[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"
Said = Annotated[
    Printable,
    AfterValidator(_says_something),
    Described(pattern=rf"^{_CHARACTER}*[^\s\x00-\x1f\x7f]{_CHARACTER}*$"),
]
WorkId = Annotated[Printable, Field(min_length=1, max_length=64)]
Done = Annotated[Moment, AfterValidator(_past)]


class OptOutRequest(BaseModel):
    """Which works shall be left out, and who asks."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"creator": "Ada Example", "contact": "ada@example.org"},
                {"index": "photographs", "works": ["w_2c26b46b68ffc68f"], "contact": "ada@example.org"},
            ]
        },
    )

    index: Printable | None = Field(
        default=None, max_length=200, description="Id or name of the index; default: the first one."
    )
    works: list[WorkId] | None = Field(
        default=None,
        min_length=1,
        max_length=MOST_WORKS,
        description="Ids of the works, as answers have them.",
    )
    creator: Said | None = Field(
        default=None,
        max_length=MAX_CREATOR,
        description="Instead: all works of this creator, whose name is compared without regard to case and space.",
    )
    contact: Said = Field(
        max_length=MAX_CONTACT, description="How the operator reaches you. Kept until you erase it."
    )
    statement: Printable | None = Field(
        default=None,
        max_length=MAX_STATEMENT,
        description="What shows that the works are yours. Kept until you erase it.",
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> "OptOutRequest":
        if (self.works is None) == (self.creator is None):
            raise ValueError("Name either works or a creator.")
        return self


class OptOutQuery(BaseModel):
    """Filters and paging of the list. A misspelt filter would silently show everything, so it is an error."""

    model_config = ConfigDict(extra="forbid")

    state: State | None = None
    cursor: str | None = Field(default=None, max_length=200, description="`next_cursor` of the page before.")
    limit: int = Field(default=20, ge=1, le=100)


class Rejection(BaseModel):
    """Why an opt-out is refused."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"reason": "The works are another's."}]}
    )

    reason: Said = Field(max_length=MAX_REASON, description="For whoever asked to read.")


class Application(BaseModel):
    """What was done about an opt-out. Said again, the later counts; what isn't said stays."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"left_out_at": "2026-02-03T18:00:00Z"}]}
    )

    left_out_at: Done | None = Field(
        default=None, description="When an index was built without these works, with a time zone."
    )
    removed_at: Done | None = Field(
        default=None, description="When a model that wasn't trained on them took the old one's place."
    )


class OptOutLinks(BaseModel):
    self: str


class OptOut(BaseModel):
    """A request to be left out. That works are hidden, left out of an index and gone from the model are three things,
    each with its date; null: it hasn't been done."""

    id: str
    state: State
    hidden: bool = Field(description="Whether the works are hidden from answers now.")
    index: str = Field(description="The index's name, which stays when it is built again.")
    works: list[str] | None
    creator: str | None
    matches: int | None = Field(
        description="How many works of the index that is served now it is about; null: none of this name is."
    )
    contact: str | None = Field(description="Null once erased.")
    statement: str | None
    reason: str | None = Field(description="Why it was rejected.")
    created_at: datetime
    verified_at: datetime | None
    hidden_at: datetime | None
    shown_again_at: datetime | None = Field(
        description="When the works were shown again, where they were hidden."
    )
    left_out_at: datetime | None = Field(description="When an index was built without them.")
    removed_at: datetime | None = Field(
        description="When a model that wasn't trained on them replaced the old one."
    )
    closed_at: datetime | None = Field(description="When it was rejected or withdrawn.")
    erased_at: datetime | None = Field(description="When contact and statement were erased.")
    links: OptOutLinks


class NewlyReceivedOptOut(OptOut):
    """An opt-out as it was received, with the token of who asked without a key."""

    token: str | None = Field(
        description="Lets you look at your opt-out, withdraw it and erase contact and statement: send it as"
        " `Opt-Out-Token`. It is in this answer only; null where your key does that."
    )


class OptOutList(BaseModel):
    items: list[OptOut]
    next_cursor: str | None = Field(description="Give it as `cursor` for the next page; null at the end.")
