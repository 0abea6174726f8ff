"""Which works may be shown to whom: by the column `visibility` of their metadata, and by opt-outs.

What is known of opt-outs is looked at every second, and at once where this process changes it, so that no request
waits for the database. How an answer is told without what is hidden is the business of `app.redaction`.
"""

import asyncio
import logging
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import NamedTuple, get_args
from zlib import crc32

import numpy as np
from starlette.concurrency import run_in_threadpool

from app.budgets import Allows, Budget, Budgets, Granted
from app.callers import Caller
from app.catalogue import Catalogue, ServedIndex
from app.rounding import Rounding
from das.answer import UNKNOWN_CREATOR
from das.lookups import Grouping
from das.names import folded
from das.rights.holders import Holders
from das.works import stem_of
from jobs.errors import StorageError
from jobs.opt_outs import Hiding, OptOuts
from jobs.outages import OUTAGE
from jobs.record_settings import WorkVisibility
from jobs.settings import Settings

logger = logging.getLogger(__name__)

COLUMN = "visibility"
# From who may see most to nobody: a work is shown to those at its level or above.
PUBLIC, SIGNED_IN, RIGHTS_HOLDER, NEVER = range(4)
LEVELS: dict[str, int] = {name: level for level, name in enumerate(get_args(WorkVisibility))}
LOOK_EVERY_S = 1.0
# Of an index that has nothing for everybody, so many percent of the works are for their rights holders at most.
PRIVATE_HIDES = 1.0


class Viewer(NamedTuple):
    """To whom something is shown: whether they show a key, and the rights holders that it speaks for, folded."""

    signed_in: bool
    rights_holders: frozenset[str]

    @property
    def limit(self) -> int:
        """The highest level of works that are shown to them whoever's they are."""
        return SIGNED_IN if self.signed_in else PUBLIC


class Levels:
    """The level that each work of an index takes to be seen, as its metadata and the settings say.

    Args:
        hide_exposed: how many percent of the works are for their rights holders at most, the most exposed; None: 1 in
            an index that has nothing for everybody.
    """

    def __init__(
        self, served: ServedIndex, default: WorkVisibility, hide_exposed: float | None = 0.0
    ) -> None:
        self.served = served
        works = served.index.works
        self.by_row = np.full(len(works), LEVELS[default], np.uint8)
        if COLUMN in works.table.column_names:
            self._read(works.grouping(COLUMN))
        if hide_exposed is None:
            hide_exposed = PRIVATE_HIDES if len(works) and self.by_row.min() > PUBLIC else 0.0
        if hide_exposed > 0 and served.exposure is not None:
            exposed = served.exposure >= 100.0 - hide_exposed
            self.by_row[exposed] = np.maximum(self.by_row[exposed], RIGHTS_HOLDER)
        self.removed = max(LEVELS[default], RIGHTS_HOLDER if hide_exposed > 0 else PUBLIC)
        """The level that a work may have had that isn't in this version any more: no more is known of it."""
        if COLUMN in works.table.column_names:
            self.removed = NEVER

    def _read(self, said: Grouping) -> None:
        unknown, default = set(), int(self.by_row[0]) if len(self.by_row) else PUBLIC
        levels = np.full(len(said), default, np.uint8)
        for code, text in enumerate(said.names()):
            word = str(text or "").strip().casefold().replace("_", "-")
            if not word:
                continue
            levels[code] = LEVELS.get(word, NEVER)
            if word not in LEVELS:
                unknown.add(word[:40])
        self.by_row = levels[said.codes]
        if unknown:
            logger.error(
                "%s: nobody is shown works whose visibility is %s; there is %s",
                self.served.id,
                ", ".join(sorted(unknown)[:5]),
                ", ".join(LEVELS),
            )

    @cached_property
    def creators(self) -> tuple[np.ndarray, list[str]]:
        """A code for each work's creator, and the names by code, as groups have them."""
        grouping = self.served.index.works.grouping("creator")
        return grouping.codes, [name or UNKNOWN_CREATOR for name in grouping.names()]

    @cached_property
    def folded_creators(self) -> dict[str, list[int]]:
        """The codes of creators by their folded names: several may be spelled alike."""
        found: dict[str, list[int]] = {}
        for code, name in enumerate(self.creators[1]):
            found.setdefault(folded(name), []).append(code)
        return found

    @cached_property
    def holders(self) -> tuple[np.ndarray, list[str]]:
        """The same of rights holders; a work without one is its creator's."""
        holders = self.served.index.works.grouping("rights_holder")
        codes, names = self.creators
        texts = holders.names()
        unnamed = np.array([text is None for text in texts], bool)[holders.codes]
        # Codes of creators come behind those of holders.
        of_works = np.where(unnamed, codes + len(texts), holders.codes)
        return of_works, [folded(name) for name in (*(text or UNKNOWN_CREATOR for text in texts), *names)]

    def with_hidden(self, hidden: Iterable[Hiding]) -> np.ndarray:
        """The levels by row, where what is opted out is shown to nobody."""
        by_row = self.by_row.copy()
        for one in hidden:
            by_row[self.rows_of(one)] = NEVER
        return by_row

    def rows_of(self, one: Hiding) -> np.ndarray:
        """The rows of the works that an opt-out is about, files of the same bytes among them; none for one about
        another index."""
        if one.index_name not in (self.served.name, self.served.id):
            return np.empty(0, np.int64)
        if one.creator is not None:
            codes = self.folded_creators.get(folded(one.creator), [])
            return np.flatnonzero(np.isin(self.creators[0], codes))
        copies_of = self.served.index.works.copies_of
        return np.asarray(sorted({row for work_id in one.works for row in copies_of(work_id)}), np.int64)


@dataclass(frozen=True)
class Gone:
    """What was opted out of an index and isn't in it any more, as answers of an earlier version still name it."""

    works: frozenset[str] = frozenset()
    creators: frozenset[str] = frozenset()
    """Folded."""
    stems: frozenset[str] = frozenset()
    """Of all works that are opted out (`das.works.stem_of`)."""
    by_creator: bool = False
    """Whether a creator is opted out: any work that the index doesn't have may have been theirs."""

    @classmethod
    def of(cls, served: ServedIndex, levels: Levels, hidden: Iterable[Hiding]) -> "Gone":
        """What these opt-outs hide that the index doesn't have."""
        find, works, stems, creators, by_creator = served.index.works.find, set(), set(), set(), False
        for one in hidden:
            if one.index_name not in (served.name, served.id):
                continue
            works |= {work_id for work_id in one.works if find(work_id) is None}
            stems |= {*map(stem_of, one.works)}
            if one.creator is not None:
                by_creator = True
                if folded(one.creator) not in levels.folded_creators:
                    creators.add(folded(one.creator))
        return cls(frozenset(works), frozenset(creators), frozenset(stems), by_creator)

    def work(self, work_id: str) -> bool:
        """Whether a work that the index doesn't have was opted out, or may have been."""
        return self.by_creator or stem_of(work_id) in self.stems

    @property
    def anything(self) -> bool:
        return bool(self.stems) or self.by_creator

    def withholds(self, creator: str, levels: Levels) -> bool:
        """Whether a creator isn't named: who is opted out, or may be, since nothing of them is left."""
        name = folded(creator)
        return name in self.creators or (bool(self.works) and name not in levels.folded_creators)


@dataclass
class Shade:
    """What of one index a viewer isn't shown."""

    served: ServedIndex
    hidden: np.ndarray
    levels: Levels
    gone: "Gone"
    removed: bool = False
    """Whether works and creators that aren't in this version any more are hidden: they may have been before."""
    only: frozenset[str] | None = None
    """The ids of the only works that are shown, where these are said; the others are hidden, in the index or not."""

    @cached_property
    def anything(self) -> bool:
        return bool(self.hidden.any()) or self.gone.anything or self.narrow

    @property
    def narrow(self) -> bool:
        """Whether creators are withheld of whom the index knows nothing (any more)."""
        return self.removed or self.only is not None

    def row(self, row: int) -> bool:
        """Whether the work in this row is hidden."""
        return bool(self.hidden[row])

    def work(self, work_id: str) -> bool:
        """Whether the work of this id is hidden. One that isn't in the index (any more) is if it was opted out or may
        have been hidden by its level."""
        row = self.served.index.works.find(work_id)
        if row is not None:
            return self.row(row)
        left_out = self.only is not None and work_id not in self.only
        return left_out or self.removed or self.gone.work(work_id)

    @cached_property
    def creators(self) -> frozenset[str]:
        """The creators none of whose works is shown, as groups name them."""
        codes, names = self.levels.creators
        every, hidden = (np.bincount(some, minlength=len(names)) for some in (codes, codes[self.hidden]))
        return frozenset(names[code] for code in np.flatnonzero((every == hidden) & (every > 0)))

    @cached_property
    def shown_holders(self) -> frozenset[str]:
        """Whose the works are that are shown, as groups name them, folded: their rights holders, those of one without
        being not recorded, and its creator."""
        works, shown = self.served.index.works, ~self.hidden
        holders, creators = (works.grouping(column) for column in ("rights_holder", "creator"))
        texts = [holders[code] for code in np.unique(holders.codes[shown])]
        unnamed = [code for code, text in enumerate(holders.names()) if text is None]
        made = np.unique(creators.codes[shown & np.isin(holders.codes, unnamed)])
        names = [*Holders.of(texts).names, *filter(None, (creators[code] for code in made))]
        return frozenset(name.casefold() for name in names)

    def withholds(self, kind: str, name: str) -> bool:
        """Whether a group of this kind has no work that is shown."""
        if kind == "creator":
            unknown = self.narrow and folded(name) not in self.levels.folded_creators
            return unknown or name in self.creators or self.gone.withholds(name, self.levels)
        return name in self.creators or name.casefold() not in self.shown_holders

    def named_in(self, text: str) -> bool:
        """Whether a text names a creator none of whose works is shown."""
        if any(name in text for name in self.creators):
            return True
        return any(name in folded(text) for name in self.gone.creators)


class Unserved:
    """What of an index isn't shown of which no version is served: all of it, since nobody knows who may see what."""

    def work(self, _work_id: str) -> bool:
        """Whether the work of this id is hidden."""
        return True

    def withholds(self, _kind: str, _name: str) -> bool:
        """Whether a group isn't named."""
        return True


@dataclass
class View:
    """What one viewer may be shown, as it is known at one moment. `tag` tells it from others, in an ETag."""

    viewer: Viewer
    tag: str
    shades: dict[str, Shade]
    rounding: Rounding | None = None
    """How shares are told; None: as they were measured."""
    budget: Allows | None = None
    """Says which works may be shown of those that aren't hidden; None: all of them."""

    @cached_property
    def anything(self) -> bool:
        """Whether anything may be hidden of what is served."""
        return any(shade.anything for shade in self.shades.values())

    def of(self, served: ServedIndex | None) -> Shade | None:
        """What is hidden of an index; None where nothing is, or there is no index."""
        if served is None:
            return None
        shade = self._shade(served)
        return shade if shade.anything else None

    def narrowed(self, served: ServedIndex, work_ids: Iterable[str]) -> Shade:
        """What of an index is hidden where these works are shown at most."""
        shade, only = self._shade(served), frozenset(work_ids)
        rows = [row for work_id in only if (row := served.index.works.find(work_id)) is not None]
        hidden = np.ones(len(served), bool)
        hidden[rows] = shade.hidden[rows]
        return replace(shade, hidden=hidden, only=only)

    def _shade(self, served: ServedIndex) -> Shade:
        shade = self.shades.get(served.id)
        if shade is not None:
            return shade
        # It is served since this view was made, or was until then: nothing is known of it, so nothing is shown.
        return Shade(served, np.ones(len(served), bool), Levels(served, "never"), Gone(), removed=True)

    def shows(self, served: ServedIndex, row: int) -> bool:
        """Whether the work in this row isn't hidden."""
        shade = self.of(served)
        return shade is None or not shade.row(row)

    def allowed(self, work_ids: Sequence[str]) -> frozenset[str]:
        """Which of these works, none of them hidden, may be shown: all of them, or those that the viewer's budget has
        room for, which they take from it. Blocks for a moment where there is one."""
        return frozenset(work_ids) if self.budget is None else self.budget.reveal(work_ids)

    def granting(self, work_ids: frozenset[str]) -> "View":
        """The same where a budget has said already that these works may be shown and no others."""
        return self if self.budget is None else replace(self, budget=Granted(work_ids))


@dataclass
class _Known:
    """What was known of opt-outs at one look, with the views that were made of it."""

    revision: int
    hidden: Sequence[Hiding]
    levels: dict[str, Levels]
    by_row: dict[str, np.ndarray]
    gone: dict[str, Gone]
    served: str
    """Tells which versions are served, what was measured of them, and by which rules works are shown and answers
    kept."""
    views: dict[Viewer, View] = field(default_factory=dict)


VIEWS_KEPT = 200


class Visibility:
    """Makes views. Its methods may be called from any thread."""

    def __init__(self, settings: Settings, catalogue: Catalogue, opt_outs: OptOuts, budgets: Budgets) -> None:
        self._opt_outs = opt_outs
        self._budgets = budgets
        self._levels_of = partial(
            Levels, default=settings.work_visibility, hide_exposed=settings.hide_exposed
        )
        self._rounding = Rounding.of(settings)
        kept = settings.keep_results_seconds
        self._rules = f"{settings.work_visibility} {settings.hide_exposed} {kept}"
        levels = {served.id: self._levels_of(served) for served in catalogue}
        # From the start: what a client keeps may have been told before a restart, of other versions by other rules.
        self._known = _known(-1, (), levels, self._served(catalogue))
        self._turn = threading.Lock()
        self.refresh()

    @property
    def levels(self) -> dict[str, Levels]:
        """The levels of each index's works, by its id."""
        return self._known.levels

    def refresh(self) -> None:
        """Look at the opt-outs. Blocks for a moment; costs a number where nothing has changed.

        Raises:
            StorageError: the database can't be read; what was known goes on to count.
        """
        # One after another: else who looked first could be done last, and put back what was known before.
        with self._turn:
            known = self._known
            if self._opt_outs.revision() == known.revision:
                return
            revision, hidden = self._opt_outs.hiding()
            self._known = _known(revision, hidden, known.levels, known.served)

    def begin(self, served: ServedIndex) -> None:
        """Know of a version's works, before anything of it is shown."""
        levels = self._levels_of(served)
        with self._turn:
            known = self._known
            together = {**known.levels, served.id: levels}
            self._known = _known(known.revision, known.hidden, together, known.served)

    def end(self, index_id: str) -> None:
        """Forget a version that nobody is shown any more."""
        with self._turn:
            known = self._known
            left = {one: levels for one, levels in known.levels.items() if one != index_id}
            self._known = _known(known.revision, known.hidden, left, known.served)

    def switched(self, catalogue: Catalogue) -> None:
        """Tell what is told from now on from what was told before a version was replaced."""
        served = self._served(catalogue)
        with self._turn:
            known = self._known
            self._known = _known(known.revision, known.hidden, known.levels, served)

    def _served(self, catalogue: Catalogue) -> str:
        # What is measured of an index after it was built is no part of its id, and is told with every answer.
        measured = (f"{one.id} {one.index.manifest.quality!r}" for one in catalogue)
        told = " ".join([self._rules, *sorted(measured)])
        return f"{crc32(told.encode()):08x}"

    async def keep_looking(self) -> None:
        """Look every second, for as long as the service runs."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await run_in_threadpool(self.refresh)
                OUTAGE.worked("visibility")
            except StorageError as error:
                OUTAGE.failed("visibility", error)
            except Exception:
                # If this ended, what other processes hide would be shown here from then on.
                logger.exception("what is hidden can't be looked at; it is tried again")

    def to(self, caller: Caller) -> View:
        """What may be shown to a caller."""
        return self._within(caller, self._budgets.of(caller))

    def to_reader(self, caller: Caller, sender: str) -> View:
        """What may be shown to a caller who reads what an owner hands on, by that owner's budget. Blocks for a
        moment."""
        return self._within(caller, self._budgets.of_sender(sender, caller))

    def _within(self, caller: Caller, budget: Budget | None) -> View:
        view = self.to_viewer(Viewer(caller.key is not None, caller.rights_holders))
        return view if budget is None else replace(view, budget=budget, tag=view.tag + budget.tag)

    def to_viewer(self, viewer: Viewer) -> View:
        """What may be shown to somebody; `Viewer(False, frozenset())` is anybody."""
        known = self._known
        view = known.views.get(viewer)
        if view is None:
            if len(known.views) >= VIEWS_KEPT:
                known.views = {}
            view = known.views[viewer] = self._view(known, viewer)
        return view

    def rows_of(self, served: ServedIndex, one: Hiding) -> np.ndarray:
        """The rows of the works that an opt-out is about."""
        return self.levels[served.id].rows_of(one)

    def known_to(self, caller: Caller, served: ServedIndex) -> np.ndarray:
        """Which works (N,) their own visibility lets a caller know of, whatever was opted out since."""
        levels = self.levels[served.id]
        return ~_hidden(levels, levels.by_row, Viewer(caller.key is not None, caller.rights_holders))

    def restricted(self, served: ServedIndex, row: int) -> bool:
        """Whether a work is for some to see only."""
        return bool(self.levels[served.id].by_row[row] != PUBLIC)

    def _view(self, known: _Known, viewer: Viewer) -> View:
        shades = {
            index_id: Shade(
                levels.served,
                _hidden(levels, known.by_row[index_id], viewer),
                levels,
                known.gone[index_id],
                removed=levels.removed > viewer.limit,
            )
            for index_id, levels in known.levels.items()
        }
        whose = crc32("\0".join(sorted(viewer.rights_holders)).encode()) if viewer.signed_in else ""
        rounded = "" if self._rounding is None else self._rounding.tag
        tag = f".{known.revision}.{whose}.{known.served}{rounded}"
        return View(viewer, tag, shades, self._rounding)


def _known(revision: int, hidden: Sequence[Hiding], levels: dict[str, Levels], served: str) -> _Known:
    by_row = {index_id: one.with_hidden(hidden) for index_id, one in levels.items()}
    gone = {index_id: Gone.of(one.served, one, hidden) for index_id, one in levels.items()}
    return _Known(revision, hidden, levels, by_row, gone, served)


def _hidden(levels: Levels, by_row: np.ndarray, viewer: Viewer) -> np.ndarray:
    """Which works (N,) a viewer isn't shown."""
    hidden = by_row > viewer.limit
    if viewer.signed_in and viewer.rights_holders:
        codes, names = levels.holders
        own = [code for code, name in enumerate(names) if name in viewer.rights_holders]
        hidden &= ~((by_row == RIGHTS_HOLDER) & np.isin(codes, own))
    return hidden
