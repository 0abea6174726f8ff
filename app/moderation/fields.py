"""Every field of an answer that a rule may use: its name, where the answer has it, and what it can be.

This is the one naming: the policy language, the evaluation, the words and the documentation read it, and a test holds
each entry against the answer's schema.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from app.schemas import Attribution, Group, Share
from das.answer import UNKNOWN_CREATOR
from das.rights.values import VALUES

Kind = Literal["number", "choice", "text", "flag"]
Range = tuple[float, float]

PART: Range = (0.0, 1.0)
PERCENT: Range = (0.0, 100.0)
COUNT: Range = (0.0, 1e9)


@dataclass(frozen=True)
class Field:
    """One field that a rule may use.

    `path` are the attributes that lead to it from the answer, or from one work or creator. `influence`: it is a
    measurement of influence, which a picture that the model didn't make has none of. `undecided` is the choice
    that says that it couldn't be told. `about` is what it is called in a sentence.
    """

    name: str
    kind: Kind
    path: tuple[str, ...]
    about: str
    range: Range | None = None
    choices: tuple[str, ...] = ()
    undecided: str | None = None
    influence: bool = False

    def read(self, source: Attribution | Share | Group) -> Any:
        """Its value; None where the answer doesn't have it."""
        value: Any = source
        for step in self.path:
            value = value[0] if step == "0" and value else getattr(value, step, None)
            if value is None:
                return None
        return None if self.path[-1] in _CREATORS and value == UNKNOWN_CREATOR else value


# A group's name is a creator's; works without one are taken together under a name that is none.
_CREATORS = ("name", "creator")


def _number(name: str, path: str, about: str, range: Range, *, influence: bool = False) -> Field:
    return Field(name, "number", tuple(path.split(".")), about, range, influence=influence)


def _text(name: str, path: str, about: str, *, influence: bool = False) -> Field:
    return Field(name, "text", tuple(path.split(".")), about, influence=influence)


def _flag(name: str, path: str, about: str, *, influence: bool = False) -> Field:
    return Field(name, "flag", tuple(path.split(".")), about, influence=influence)


def _choice(
    name: str,
    path: str,
    about: str,
    choices: tuple[str, ...],
    *,
    undecided: str | None = None,
    influence: bool = False,
) -> Field:
    return Field(
        name,
        "choice",
        tuple(path.split(".")),
        about,
        choices=choices,
        undecided=undecided,
        influence=influence,
    )


_ABOUT_MODEL = ("same", "other", "unknown")

ANSWER_FIELDS: tuple[Field, ...] = (
    _choice(
        "in_model.verdict",
        "in_model.verdict",
        "the verdict whether the model made the picture",
        ("likely", "unlikely", "unsure"),
    ),
    _number("in_model.p_value", "in_model.p_value", "the p-value among the model's pictures", PART),
    _number(
        "in_model.p_value_re_encoded",
        "in_model.p_value_re_encoded",
        "the p-value among the model's re-encoded pictures",
        PART,
    ),
    _choice(
        "copy.verdict",
        "copied.verdict",
        "the copy verdict",
        ("copy", "near", "none", "unclear"),
        undecided="unclear",
    ),
    _number("copy.score", "copied.score", "the likeness to the work most like it", (-1.0, 1.0)),
    _choice("copy.method", "copied.method", "the method that looked for copies", ("pdq", "sscd")),
    _flag("copy.mirrored", "copied.mirrored", "the copy's being mirrored"),
    _text("copy.creator", "copied.creator", "the creator of the copied work"),
    _text("copy.work_id", "copied.work_id", "the copied work"),
    _flag("certainty.stands_out", "certainty.stands_out", "the first work's standing out", influence=True),
    _number(
        "certainty.percentile",
        "certainty.percentile",
        "the first work's standing out among the model's pictures (percentile)",
        PERCENT,
        influence=True,
    ),
    _flag(
        "certainty.clearly_first",
        "certainty.clearly_first",
        "the first work's being clearly first",
        influence=True,
    ),
    _number("quality.lds", "quality.lds", "the measured quality of the ranking, in percent", (-100.0, 100.0)),
    _number("quality.low", "quality.low", "the lower end of the quality of the ranking", (-100.0, 100.0)),
    _choice(
        "candidates.mode", "candidates.mode", "the choice of candidates", ("all", "screened", "approximate")
    ),
    _number("top.share", "works.0.share", "the first work's share", PART, influence=True),
    _number("top.low", "works.0.low", "the lower end of the first work's share", PART, influence=True),
    _number("top.high", "works.0.high", "the upper end of the first work's share", PART, influence=True),
    _number("top.percentile", "works.0.percentile", "the first work's percentile", PERCENT, influence=True),
    _number(
        "top.similarity",
        "works.0.similarity",
        "the first work's likeness (CLIP)",
        (-1.0, 1.0),
        influence=True,
    ),
    _text("top.work_id", "works.0.work_id", "the first work", influence=True),
    _text("top.creator", "works.0.creator", "the first work's creator", influence=True),
    _text("top.rights_holder", "works.0.rights_holder", "the first work's rights holder", influence=True),
    _text("top.licence", "works.0.licence", "the first work's licence", influence=True),
    _choice("top.tdm", "works.0.tdm", "the first work's rights signal", VALUES, influence=True),
    _text("declared.tool", "input.declared.tool", "the tool that the picture names"),
    _text("declared.model", "input.declared.model", "the model that the picture names"),
    _text("declared.model_hash", "input.declared.model_hash", "the hash of the model that the picture names"),
    _choice(
        "declared.is_model_of_index",
        "input.declared.is_model_of_index",
        "the verdict whether the model that the picture names is the index's",
        _ABOUT_MODEL,
        undecided="unknown",
    ),
    _flag(
        "declared.ai_generated",
        "input.declared.ai_generated",
        "the picture's claim to be made by a model",
    ),
    _text("index", "index", "the index"),
    _text("method", "method", "the method"),
)

WORK_FIELDS: tuple[Field, ...] = (
    _number("rank", "rank", "its rank", COUNT, influence=True),
    _number("share", "share", "its share", PART, influence=True),
    _number("low", "low", "the lower end of its share", PART, influence=True),
    _number("high", "high", "the upper end of its share", PART, influence=True),
    _number("percentile", "percentile", "its percentile", PERCENT, influence=True),
    _number("similarity", "similarity", "its likeness (CLIP)", (-1.0, 1.0), influence=True),
    _text("work_id", "work_id", "its id", influence=True),
    _text("creator", "creator", "its creator", influence=True),
    _text("rights_holder", "rights_holder", "its rights holder", influence=True),
    _text("licence", "licence", "its licence", influence=True),
    _choice("tdm", "tdm", "its rights signal", VALUES, influence=True),
)

CREATOR_FIELDS: tuple[Field, ...] = (
    _text("name", "name", "the name", influence=True),
    _number("share", "share", "the share of their works", PART, influence=True),
    _number("low", "low", "the lower end of that share", PART, influence=True),
    _number("high", "high", "the upper end of that share", PART, influence=True),
    _number("works", "works", "the number of their works", COUNT, influence=True),
    _number("share_of_index", "share_of_index", "their part of the works", PART, influence=True),
    _number("factor", "factor", "how many times their share exceeds their part", (0.0, 1e12), influence=True),
)

Place = Literal["answer", "works", "creators"]
FIELDS: dict[Place, dict[str, Field]] = {
    place: {field.name: field for field in fields}
    for place, fields in zip(get_args(Place), (ANSWER_FIELDS, WORK_FIELDS, CREATOR_FIELDS), strict=True)
}
