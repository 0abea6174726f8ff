"""How many distinct works somebody may be shown in a day, so that nobody walks through an index by asking often.

Counted by owner: a key and the one that replaces it share a budget, and so do all who come without a key. Whoever
runs the service has none: a key with the scope `admin`, and this machine itself where no keys are needed.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from app.callers import Caller
from app.key_schemas import Allowance
from jobs.credentials import Scope
from jobs.keys import Keys
from jobs.models import utc_now
from jobs.revealed import RevealedWorks
from jobs.settings import Settings, is_loopback

# What is told changes as works become free, which happens at any moment: a client's copy is good for so long.
TOLD_FOR_S = 600


class Allows(Protocol):
    """What says which works may be shown."""

    def reveal(self, work_ids: Sequence[str]) -> frozenset[str]:
        """Those of these works that may be shown, which is recorded. May block for a moment."""
        ...

    def free(self, work_ids: Sequence[str]) -> frozenset[str]:
        """Those of these works that were shown already. May block for a moment."""
        ...


@dataclass(frozen=True)
class Budget:
    """What an owner may be shown in a day: `most` different works."""

    owner: str
    most: int
    _rows: RevealedWorks = field(compare=False, repr=False)

    @property
    def tag(self) -> str:
        """Tells what is told by this budget now from others, in an ETag."""
        return f".b{self.most}-{int(time.time()) // TOLD_FOR_S}"

    def reveal(self, work_ids: Sequence[str]) -> frozenset[str]:
        """Those of these works that may be shown: what was in the last day, and the first others for which there is
        room. Raises StorageError where it can't be recorded, so that nothing may be."""
        return self._rows.reveal(self.owner, work_ids, self.most)

    def free(self, work_ids: Sequence[str]) -> frozenset[str]:
        """Those of these works that were shown in the last day. Raises StorageError where it can't be read."""
        return self._rows.reveal(self.owner, work_ids, 0)

    def told(self) -> Allowance:
        """How much of it is used up. Blocks for a moment."""
        spent = self._rows.spent(self.owner)
        return Allowance(
            limit=self.most,
            used=min(spent.works, self.most),
            remaining=max(0, self.most - spent.works),
            renewed_at=spent.until or utc_now(),
        )


@dataclass(frozen=True)
class Granted:
    """Works of which it is known already that they may be shown, and no others."""

    works: frozenset[str] = frozenset()

    def reveal(self, work_ids: Sequence[str]) -> frozenset[str]:
        """Those of these works that are among them."""
        return self.works & frozenset(work_ids)

    def free(self, work_ids: Sequence[str]) -> frozenset[str]:
        """Those of these works that are among them."""
        return self.reveal(work_ids)


class Budgets:
    """Who has which budget."""

    def __init__(self, settings: Settings, rows: RevealedWorks, keys: Keys) -> None:
        self._usual = settings.revealed_works_per_day
        self._local_is_exempt = not settings.keys_required
        self._rows = rows
        self._keys = keys

    def of(self, caller: Caller) -> Budget | None:
        """A caller's budget; None for any number of works."""
        if self._runs_the_service(caller):
            return None
        return self._budget(caller.owner, caller.daily_works)

    def of_sender(self, owner: str, reader: Caller) -> Budget | None:
        """The budget that is spent by who opens a link to an answer: its owner's, or else handing a link on would be
        the way around it. Blocks for a moment."""
        if self._runs_the_service(reader):
            return None
        key = self._keys.of_owners([owner]).get(owner)
        if key is not None and Scope.ADMIN in key.scopes:
            return None
        return self._budget(owner, None if key is None else key.daily_works)

    def told(self, caller: Caller) -> Allowance:
        """How much of a caller's budget is used up. Blocks for a moment where there is one."""
        budget = self.of(caller)
        if budget is None:
            return Allowance(limit=None, used=0, remaining=None, renewed_at=utc_now())
        return budget.told()

    def _runs_the_service(self, caller: Caller) -> bool:
        here = self._local_is_exempt and caller.key is None and is_loopback(caller.address)
        return here or Scope.ADMIN in caller.scopes

    def _budget(self, owner: str, own: int | None) -> Budget | None:
        most = own or self._usual
        return None if most is None else Budget(owner, most, self._rows)
