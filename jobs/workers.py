"""The workers' signs of life, as the database knows them."""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import delete, select

from jobs.database import Database
from jobs.masking import masked
from jobs.models import JsonObject, WorkerBeat, WorkerInfo, utc_now
from jobs.settings import Settings

# A worker that was silent for this long is no longer listed.
FORGET_WORKER_AFTER = timedelta(hours=1)
# One that died is mostly started again at once, and says what it will hold before it loads it. For so long after
# its last sign of life it still counts for the indexes that it held.
COMING_BACK = timedelta(minutes=1)

OVERSIZED = "{index} alone takes more than DAS_MEMORY_BUDGET_GB, so nothing else is loaded beside it"


class Workers:
    """Who works for this service, and when each was last heard of."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database

    def heartbeat(self, worker_id: str, info: JsonObject) -> None:
        """A worker's sign of life.

        `info["engine"]` is "loading", "ready" or "failed", `info["indexes"]` are the ids of the indexes that it
        answers about, or will when it has loaded them.
        """
        now = utc_now()
        with self._database.write() as session:
            beat = session.get(WorkerBeat, worker_id)
            if beat is None:
                session.add(WorkerBeat(id=worker_id, started_at=now, seen_at=now, info=info))
            else:
                beat.seen_at, beat.info = now, info

    def retire(self, worker_id: str) -> None:
        """Take a worker that stopped in good order off the list."""
        with self._database.write() as session:
            session.execute(delete(WorkerBeat).where(WorkerBeat.id == worker_id))

    def known(self) -> Sequence[WorkerInfo]:
        """The workers that gave a sign of life within the last hour, the latest to speak first."""
        now = utc_now()
        stale = timedelta(seconds=self._settings.stale_after_seconds)
        with self._database.read() as session:
            beats = session.scalars(select(WorkerBeat).order_by(WorkerBeat.seen_at.desc())).all()
        return [
            WorkerInfo(
                id=beat.id,
                started_at=beat.started_at,
                seen_at=beat.seen_at,
                fresh=now - beat.seen_at < stale,
                info=beat.info,
            )
            for beat in beats
        ]

    def reach(self) -> set[str]:
        """The indexes that somebody answers about, or did a moment ago."""
        recent = utc_now() - COMING_BACK
        return {index_id for worker in self.known() if worker.seen_at > recent for index_id in worker.indexes}

    def why_unheld(self, index_id: str) -> str | None:
        """Why this index could not be loaded, as the worker said that was heard of last of those that found it."""
        for worker in self.known():
            if index_id in worker.info.get("indexes", ()) and worker.info.get("error"):
                return masked(str(worker.info["error"]))
            refused = worker.info.get("refused") or {}
            if index_id in refused:
                return masked(str(refused[index_id]))
        return None

    def forget_silent(self) -> None:
        """Take those off the list that nothing was heard of for long."""
        with self._database.write() as session:
            session.execute(delete(WorkerBeat).where(WorkerBeat.seen_at < utc_now() - FORGET_WORKER_AFTER))
