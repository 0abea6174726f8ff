"""What a page says of a form that was refused: in short on top, and beside each field that is meant."""

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.requests import Request

from app.language import ENGLISH, Language, language_of
from app.problems import FieldProblem, Problem

# Problems about the picture itself, whichever field it came in.
ABOUT_THE_PICTURE = ("unsupported-image", "image-refused", "too-large", "address-refused")


@dataclass(frozen=True)
class Mistake:
    """What is wrong with one field."""

    field: str
    """The id of the field on the page; empty for one that the page doesn't have."""
    sentence: str
    english: bool = False
    """Whether it is in English on a page of another language, which has no words for it."""


@dataclass(frozen=True)
class Refusal:
    """What was wrong, as a page says it: at its fields where those are known; else `title` in the page's language,
    with `detail` in English, or `detail` alone."""

    title: str | None
    detail: str
    mistakes: tuple[Mistake, ...] = ()

    @property
    def first(self) -> str:
        """The id of the first field that is wrong; empty where none is."""
        return next((one.field for one in self.mistakes if one.field), "")

    def at(self, field: str) -> Mistake | None:
        """What is wrong with the field of this id."""
        return next((one for one in self.mistakes if one.field == field), None)


def mistaken(field: str, sentence: str) -> Refusal:
    """A refusal about one field, in the page's language."""
    return Refusal(None, sentence, (Mistake(field, sentence),))


def refusal(
    request: Request, problem: Problem, fields: Mapping[str, str] | None = None, picture: str = ""
) -> Refusal:
    """A problem for a page.

    Args:
        fields: names of the request's fields with the ids that they have on the page, in the page's order.
        picture: the id of the field that the picture came in.
    """
    language = language_of(request)
    title = None if language is ENGLISH else problem.title(language) + "."
    return Refusal(title, problem.detail, _mistakes(problem, language, fields or {}, picture))


def _mistakes(
    problem: Problem, language: Language, fields: Mapping[str, str], picture: str
) -> tuple[Mistake, ...]:
    if picture and not problem.errors and problem.code in ABOUT_THE_PICTURE:
        words = f"refused.{problem.reason or problem.code}"
        known = words in language
        sentence = language(words) if known else problem.detail
        return (Mistake(picture, sentence, not known and language is not ENGLISH),)
    found: dict[str, Mistake] = {}
    elsewhere: list[Mistake] = []
    for error in problem.errors or []:
        name = (error.pointer or "").partition("/")[2].partition("/")[0]
        mistake = _mistake(error, name, fields.get(name, ""), language)
        if not mistake.field:
            elsewhere.append(mistake)
        elif mistake.field not in found:
            found[mistake.field] = mistake
    if not found:
        # What isn't about a field of the page is told as a whole.
        return ()
    return (*(found[field] for field in dict.fromkeys(fields.values()) if field in found), *elsewhere)


def _mistake(error: FieldProblem, name: str, field: str, language: Language) -> Mistake:
    words = error.in_words(language)
    if words is not None:
        return Mistake(field, words)
    # Beside its field a sentence needs no name before it.
    detail = error.detail if field or not name else f"{name}: {error.detail}"
    return Mistake(field, detail, language is not ENGLISH)
