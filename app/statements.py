"""Statements for payers: how the influence in the answers of a period divides among rights holders.

All sums are of whole numbers, so what is printed adds up in its last digit.
"""

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from app.rounding import Rounding
from app.spreadsheets import cell
from app.statement_schemas import HolderShare, LeftOut, Statement, VersionAnswers
from das.errors import DasError
from das.index import AttributionIndex
from das.manifest import QualityRecord
from das.plurals import counted
from das.rights.holders import UNKNOWN_HOLDER, Holders
from jobs.answered import Answered

UNITS = 10**12
"""An answer is divided into so many equal parts."""
DIGITS = 6
"""Decimals of a share that are printed."""
BEYOND = "Beyond those that the answers name"
NO_INFLUENCE = "No influence measured"
NOBODY = (UNKNOWN_HOLDER, BEYOND, NO_INFLUENCE)
"""Rows that are nobody's."""

UNRELIABLE_BELOW = 0.5
"""The part of what a perfect prediction would score that the ranking has to reach, to be called reliable."""

LEFT = {
    "not-likely": "the picture isn't likely the model's (in_model is unlikely or unsure)",
    "not-known": "whether the picture is the model's isn't known: the index has no reference generations",
    "without-holders": "the answer was given by an earlier version, which didn't divide by rights holder",
}
_CURRENCY = re.compile(r"[A-Z]{3}")
_MINOR = {
    **dict.fromkeys(("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI"), 0),
    **dict.fromkeys(("VND", "VUV", "XAF", "XOF", "XPF"), 0),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
}


class StatementRefused(DasError):
    """A statement can't be made of what was asked for."""


@dataclass(frozen=True)
class Period:
    """From a moment on and until another, which isn't part of it."""

    since: datetime
    until: datetime

    @classmethod
    def read(cls, since: str, until: str) -> "Period":
        """From two days (which begin at midnight UTC) or moments in ISO 8601, in UTC where they name no zone.

        Raises:
            StatementRefused: they can't be read, or the second isn't later.
        """
        period = cls(_moment("from", since), _moment("to", until))
        if period.until <= period.since:
            raise StatementRefused("the end of the period (to) has to be later than its beginning (from)")
        return period


class Amount(NamedTuple):
    """A sum of money in the currency's smallest units."""

    units: int
    currency: str

    @classmethod
    def read(cls, amount: str | None, currency: str | None) -> "Amount | None":
        """From `1000` or `1000.50` and a currency's code (ISO 4217); None where there is neither.

        Raises:
            StatementRefused: only one is given, or one can't be read.
        """
        if amount is None and currency is None:
            return None
        if amount is None or currency is None:
            raise StatementRefused("an amount and its currency go together: give both, or neither")
        if not _CURRENCY.fullmatch(currency):
            raise StatementRefused("currency: has to be a code of three capital letters, such as EUR")
        digits = _MINOR.get(currency, 2)
        if not re.fullmatch(rf"[0-9]{{1,15}}(\.[0-9]{{1,{digits}}})?" if digits else r"[0-9]{1,15}", amount):
            decimals = f"with up to {digits} decimals after a point" if digits else "without decimals"
            raise StatementRefused(f"amount: has to be a number below 10^15, {decimals}, for {currency}")
        return cls(int(Decimal(amount).scaleb(digits)), currency)

    def written(self, units: int) -> str:
        """So many of the smallest units, as the currency is written."""
        digits = _MINOR.get(self.currency, 2)
        return f"{Decimal(units).scaleb(-digits):.{digits}f}"


@dataclass
class Tally:
    """What the answers of a period come to."""

    rounding: Rounding | None = None
    units: Counter[str] = field(default_factory=Counter)
    questions: Counter[str] = field(default_factory=Counter)
    counted: int = 0
    left: Counter[str] = field(default_factory=Counter)
    methods: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    screened: int = 0
    estimated: int = 0

    def add(self, answer: Answered) -> None:
        """Count an answer, or say why it isn't."""
        why = _left_out(answer)
        if why is not None:
            self.left[why] += 1
            return
        named = [(str(group["name"]), self._told(group["share"])) for group in answer.holders or ()]
        rest = 1.0 - math.fsum(share for _, share in named)
        if not any(group["share"] > 0 for group in answer.holders or ()):
            parts = [(NO_INFLUENCE, 1.0)]
        elif not any(share > 0 for _, share in named):
            # Influence was measured, all of it of holders whose shares aren't told.
            parts = [(BEYOND, 1.0)]
        else:
            # Below this it is the noise of adding floats up, and not somebody's.
            parts = [*named, (BEYOND, rest)] if rest > 1e-9 else named
        for (name, _), units in zip(parts, divided(UNITS, [share for _, share in parts]), strict=True):
            self.units[name] += units
            self.questions[name] += units > 0
        self.counted += 1
        self.methods[answer.method] += 1
        self.versions[answer.index_id] += 1
        self.screened += answer.mode not in ("all", "approximate")
        self.estimated += answer.mode == "approximate"

    def _told(self, share: float) -> float:
        # What isn't told is nobody's, among those beyond.
        return float(share) if self.rounding is None else self.rounding.of_group(share) or 0.0


def _left_out(answer: Answered) -> str | None:
    if answer.in_model is None:
        return "not-known"
    if answer.in_model != "likely":
        return "not-likely"
    return "without-holders" if answer.holders is None else None


def divided(whole: int, parts: Sequence[float | int | Fraction]) -> list[int]:
    """A whole number divided as the parts are, by the largest remainder; the first of equals gets more."""
    exact = [Fraction(part) for part in parts]
    total = sum(exact)
    if total <= 0:
        raise ValueError("nothing to divide by")
    quotas = [whole * part / total for part in exact]
    found = [int(quota) for quota in quotas]
    order = sorted(range(len(found)), key=lambda place: (found[place] - quotas[place], place))
    for place in order[: whole - sum(found)]:
        found[place] += 1
    return found


def reliable(index: AttributionIndex, tally: Tally) -> tuple[bool, str]:
    """Whether the index's ranking bears these shares, and why."""
    if not tally.counted:
        return False, "No question was counted."
    if tally.screened:
        return (
            False,
            f"{tally.screened:,} answers ranked look-alikes only, and what that loses wasn't measured.",
        )
    if tally.estimated:
        return (
            False,
            f"In {counted(tally.estimated, 'answer')} shares are estimated from a sample of the works, and how far"
            " their sum may be off isn't known.",
        )
    others = tally.counted - tally.versions[index.id]
    if others:
        return (
            False,
            f"{counted(others, 'answer')} came from other versions of the index, and what their rankings are worth"
            f" isn't known to {index.id}.",
        )
    records = {method: index.quality_of(method) for method in tally.methods}
    missing = sorted(method for method, record in records.items() if record is None)
    if missing:
        return False, f"The ranking of {', '.join(missing)} wasn't measured (das evaluate index)."
    worst: QualityRecord = min((record for record in records.values() if record), key=lambda one: one.low)
    best = 100.0 if worst.perfect is None else worst.perfect
    told = (
        f"The lower end of its linear datamodelling score is {worst.low:.1f} %, and a perfect prediction would score"
        f" about {best:.1f} %; reliable takes half of that."
    )
    return worst.low >= UNRELIABLE_BELOW * best, told


def statement(
    index: AttributionIndex,
    period: Period,
    answers: Iterable[Answered],
    amount: Amount | None = None,
    rounding: Rounding | None = None,
) -> Statement:
    """The statement of a period's answers about an index.

    Args:
        answers: of this version and of others of the same name.
        rounding: how each answer's shares are told to whom this is for; None: as they were measured.
    """
    tally = Tally(rounding)
    for answer in answers:
        tally.add(answer)
    bears, why = reliable(index, tally)
    uses, works = _training_use(index)
    # By name last: the same answers give the same statement, whatever their order was.
    names = sorted(
        {*uses, *tally.units}, key=lambda name: (name in NOBODY, -tally.units[name], -uses.get(name, 0), name)
    )
    # Without a question there is nothing to divide by.
    shares = divided(10**DIGITS, [tally.units[name] for name in names]) if tally.counted else None
    used = divided(10**DIGITS, [uses.get(name, 0) for name in names])
    pay = cents = None
    if amount is not None and tally.counted:
        pay = divided(amount.units, [tally.units[name] for name in names])
    if amount is not None:
        cents = divided(amount.units, [uses.get(name, 0) for name in names])
    rows = [
        HolderShare(
            rights_holder=name,
            share=None if shares is None else _decimal(shares[place]),
            works=works.get(name, 0),
            questions=tally.questions[name],
            reliable=bears and name not in NOBODY,
            training_use=_decimal(used[place]),
            amount=None if pay is None or amount is None else amount.written(pay[place]),
            amount_by_training_use=None if cents is None or amount is None else amount.written(cents[place]),
        )
        for place, name in enumerate(names)
    ]
    return Statement(
        index=index.id,
        since=period.since,
        until=period.until,
        questions=tally.counted,
        versions=[
            VersionAnswers(index=one, questions=questions)
            for one, questions in sorted(tally.versions.items())
        ],
        left_out=[LeftOut(reason=code, questions=tally.left[code], note=LEFT[code]) for code in LEFT],  # type: ignore[arg-type]
        reliable=bears,
        reliable_because=why,
        currency=None if amount is None else amount.currency,
        rounding=rounding,
        shares=rows,
    )


def _training_use(index: AttributionIndex) -> tuple[dict[str, Fraction], dict[str, int]]:
    """Of each holder, their part of the works by how often they were trained on, and how many works that are."""
    grouping = index.works.grouping("rights_holder")
    repeats = np.maximum(np.asarray(index.works.table["repeats"].fill_null(1)), 1)
    # Whole numbers, which doubles hold exactly.
    used, counted = np.bincount(grouping.codes, repeats).astype(int), np.bincount(grouping.codes)
    holders = Holders.of(grouping.names())
    uses: Counter[str] = Counter()
    works: Counter[str] = Counter()
    for text, code, part in zip(holders.texts.tolist(), holders.codes.tolist(), holders.parts, strict=True):
        uses[holders.names[code]] += part * int(used[text])  # type: ignore[assignment]
        works[holders.names[code]] += int(counted[text])
    return dict(uses), dict(works)  # type: ignore[arg-type]


def _decimal(units: int) -> str:
    return f"{Decimal(units).scaleb(-DIGITS):.{DIGITS}f}"


COLUMNS = (
    "rights_holder",
    "share",
    "works",
    "questions",
    "reliable",
    "training_use",
    "amount",
    "amount_by_training_use",
    "currency",
    "note",
)


def as_csv(made: Statement) -> str:
    """The statement as a table for spreadsheets; below the shares a row for each kind of answer that didn't count."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    for one in made.shares:
        figures = (one.share, one.works, one.questions, "yes" if one.reliable else "no", one.training_use)
        money = (one.amount, one.amount_by_training_use, made.currency)
        writer.writerow([cell(one.rights_holder), *figures, *money, ""])
    period = f"{made.since:%Y-%m-%dT%H:%M:%SZ} to {made.until:%Y-%m-%dT%H:%M:%SZ}"
    notes = [
        (made.questions, f"counted, of {made.index}, {period}. {made.reliable_because}"),
        *(
            (one.questions, f"of them answered by {one.index}")
            for one in made.versions
            if len(made.versions) > 1
        ),
        *((made.questions, one.note()) for one in [made.rounding] if one is not None),
        *((left.questions, f"not counted: {left.note}") for left in made.left_out),
    ]
    for count, note in notes:
        writer.writerow(["", "", "", count, "", "", "", "", "", note])
    return out.getvalue()


def _moment(name: str, text: str) -> datetime:
    try:
        # A day alone is its midnight.
        found = datetime.fromisoformat(text)
        moment = found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise StatementRefused(f"{name}: has to be a day or a moment, such as 2026-10-01") from error
    if not datetime(1970, 1, 1, tzinfo=UTC) <= moment <= datetime(9000, 1, 1, tzinfo=UTC):
        raise StatementRefused(f"{name}: has to be a day or a moment after 1970, such as 2026-10-01")
    return moment
