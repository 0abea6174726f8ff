"""Which version of each index is served: a newer one in the folder takes the place of the one before by itself.

Every process looks for itself, and all come to the same: the newest version that is whole, once a worker has loaded
it. Until then the one before is served, and what goes wrong changes nothing but what is said of it. Questions that
were put to the one before are answered by it.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from starlette.concurrency import run_in_threadpool

from app.catalogue import Catalogue, ServedIndex
from app.screening import Screener
from app.visibility import Visibility
from das.errors import DasError, SettingsError
from das.versions import Version, look_of, name_in, versions_in
from jobs.audit import SERVICE, AuditFilters
from jobs.errors import StorageError
from jobs.masking import masked
from jobs.models import WorkerInfo
from jobs.settings import Settings
from jobs.store import JobStore

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
# For so long what was replaced is still known here: to requests that were on their way, and their pictures.
LINGER_S = 60.0
SERVED = "index.served"
"""What the audit log says when a version takes the place of another."""

State = Literal["opening", "waiting", "refused"]


@dataclass
class Coming:
    """A version that is to take the place of what is served, and how far that is.

    `opening`: it is checked and opened; `waiting`: for its look-alikes, and for a worker that has loaded it;
    `refused`: `detail` says why.
    """

    version: Version
    state: State
    detail: str | None = None
    served: ServedIndex | None = None
    look: int = 0

    @property
    def id(self) -> str:
        return self.version.id


def loaded_by(workers: Sequence[WorkerInfo]) -> set[str]:
    """The indexes that workers answer about by now: those with a budget of memory load them when they are asked."""
    return {
        index_id
        for worker in workers
        if worker.ready
        for index_id in worker.info.get("answers")
        or worker.info.get("loaded")
        or worker.info.get("indexes")
        or ()
    }


class Versions:
    """Looks, one look after another, and exchanges what is served."""

    def __init__(
        self,
        settings: Settings,
        store: JobStore,
        catalogue: Catalogue,
        visibility: Visibility,
        screener: Screener,
    ) -> None:
        self._settings = settings
        self._store = store
        self._catalogue = catalogue
        self._visibility = visibility
        self._screener = screener
        # Only exchanged, as others read it: by name.
        self._coming: dict[str, Coming] = {}
        self._leaving: dict[str, float] = {}
        self._refused: dict[str, Coming] = {}
        self._turn = threading.Lock()

    def coming(self, name: str) -> Coming | None:
        """What is to be served under this name next; None: nothing else."""
        return self._coming.get(name)

    @property
    def all_coming(self) -> list[Coming]:
        """All of these."""
        return [*self._coming.values()]

    async def keep_looking(self) -> None:
        """Look every second, for as long as the service runs."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await run_in_threadpool(self.look)
            except StorageError as error:
                logger.warning("new versions of indexes have to wait: %s", error)
            except Exception:
                logger.exception("new versions of indexes can't be looked for; it is tried again")

    def look(self) -> None:
        """Find what is new, take it as far as it goes, and let go what is over. Blocks, while one is opened.

        Raises:
            StorageError: the database can't be read.
        """
        with self._turn:
            self._look()

    def _look(self) -> None:
        try:
            found = versions_in(self._settings.index_directories())
        except SettingsError:
            # The folder can't be seen just now: what is open is served on.
            return
        for name in [name for name in self._coming if name not in found.versions]:
            self._give_up(name)
        for name, versions in found.versions.items():
            self._look_at(name, versions)
        self._catalogue.arrange(found, {coming.id for coming in self.all_coming})
        if self._leaving:
            self._let_go()

    def _look_at(self, name: str, versions: Sequence[Version]) -> None:
        served = next((one for one in self._catalogue if one.name == name), None)
        refused = None
        for version in versions:
            known = self._still_refused(version)
            if served is not None and version.id == served.id:
                if known is None and version.directory != served.directory:
                    known = self._follow(version)
                refused = refused or known
                break
            if known is not None:
                refused = refused or known
                continue
            coming = self._coming.get(name)
            if coming is not None and coming.id == version.id and coming.state == "waiting":
                self._go_on(coming, served)
            else:
                self._give_up(name)
                self._open(version, served)
            return
        self._give_up(name)
        if refused is not None:
            self._tell(refused)

    def _still_refused(self, version: Version) -> Coming | None:
        known = self._refused.get(version.id)
        return known if known is not None and known.look == look_of(version.directory) else None

    def _follow(self, version: Version) -> Coming | None:
        """Read what is served where it is now: it was moved, and its pictures are no longer where it was opened.

        Returns why that can't be done, where it can't: then it is served on as far as it is in memory.
        """
        look = look_of(version.directory)
        try:
            moved = self._whole(version)
        except DasError as error:
            logger.error("%s was moved to %s and can't be read there: %s", version.id, version.place, error)
            refused = Coming(version, "refused", masked(str(error)), look=look)
            self._refused[version.id] = refused
            return refused
        self._refused.pop(version.id, None)
        self._visibility.begin(moved)
        self._screener.add(moved)
        self._catalogue.exchange(moved)
        logger.info("%s was moved and is read in %s from now on", version.id, version.place)
        return None

    def _whole(self, version: Version) -> ServedIndex:
        served = ServedIndex.open(version, self._settings)
        served.index.check_whole()
        return served

    def _open(self, version: Version, before: ServedIndex | None) -> None:
        """Check and open a version beside the one that is served."""
        coming = Coming(version, "opening", look=look_of(version.directory))
        self._tell(coming)
        logger.info(
            "%s is opened, to be served in place of %s", version.id, before.id if before else "nothing"
        )
        try:
            served = self._whole(version)
        except DasError as error:
            self._refuse(coming, str(error), before)
            return
        self._refused.pop(version.id, None)
        coming.served, coming.state = served, "waiting"
        self._visibility.begin(served)
        self._screener.add(served)
        self._go_on(coming, before)

    def _go_on(self, coming: Coming, before: ServedIndex | None) -> None:
        """Serve it once its look-alikes can be told and a worker has loaded it."""
        assert coming.served is not None
        status = self._screener.status(coming.id)
        if status == "failed" and before is not None and self._screener.status(before.id) == "ready":
            self._refuse(coming, self._screener.failure(coming.id) or "its look-alikes can't be told", before)
            return
        if status == "loading":
            coming.detail = "its look-alikes are being loaded"
            return
        workers = self._store.workers.known()
        if coming.id not in loaded_by(workers):
            coming.detail = _why_not(coming.id, workers)
            return
        self._switch(coming.served)

    def _switch(self, served: ServedIndex) -> None:
        self._leaving.pop(served.id, None)
        before = self._catalogue.exchange(served)
        self._visibility.switched(self._catalogue)
        self._without(served.name)
        if before is not None:
            self._leaving[before.id] = time.monotonic()
        logger.info("%s is served%s", served.id, f" in place of {before.id}" if before else "")
        # Of several processes that switch within a moment, one says so.
        last = self._store.audit.list(AuditFilters(action=SERVED, object=served.name), limit=1).events
        if not last or last[0].details.get("id") != served.id:
            replaced = {} if before is None else {"before": before.id}
            self._store.audit.write(SERVICE, SERVED, served.name, id=served.id, **replaced)

    def _refuse(self, coming: Coming, reason: str, before: ServedIndex | None) -> None:
        instead = f"; {before.id} is served on" if before is not None else ""
        logger.error("%s is refused%s: %s", coming.id, instead, reason)
        self._forget(coming)
        refused = Coming(coming.version, "refused", masked(reason), look=coming.look)
        self._refused[coming.id] = refused
        self._tell(refused)

    def _give_up(self, name: str) -> None:
        coming = self._coming.get(name)
        if coming is not None:
            self._forget(coming)
            self._without(name)

    def _forget(self, coming: Coming) -> None:
        if coming.served is not None and coming.id not in self._leaving:
            self._screener.drop(coming.id)
            self._visibility.end(coming.id)

    def _tell(self, coming: Coming) -> None:
        self._coming = {**self._coming, coming.version.name: coming}

    def _without(self, name: str) -> None:
        self._coming = {one: coming for one, coming in self._coming.items() if one != name}

    def _let_go(self) -> None:
        """Forget what was replaced a while ago, and no question waits for any more."""
        over = [one for one, since in self._leaving.items() if time.monotonic() - since >= LINGER_S]
        if not over:
            return
        asked: Collection[str] = self._store.upkeep.open_indexes()
        for index_id in over:
            if index_id in asked or any(coming.id == index_id for coming in self._coming.values()):
                continue
            del self._leaving[index_id]
            self._screener.drop(index_id)
            self._visibility.end(index_id)
            logger.info("%s is let go", index_id)


def _why_not(index_id: str, workers: Sequence[WorkerInfo]) -> str:
    """What an opened version waits for, as the workers tell it."""
    for worker in workers:
        refused = worker.info.get("refused") or {}
        if worker.fresh and index_id in refused:
            return f"a worker can't load it: {masked(str(refused[index_id]))}"
    if any(worker.fresh and index_id in worker.info.get("indexes", ()) for worker in workers):
        return "a worker is about to load it"
    return f"no worker has found it; has the DAS_INDEX_DIR of one the new version of {name_in(index_id)}?"
