"""Answers that were told a moment ago: who looks at a finished question again costs a look at its version.

An answer that is finished changes only with its job's version, the viewer's view, the language, and what the
operator sets; the last is why none is believed for long.
"""

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from cachetools import TTLCache

from app.language import Language
from app.visibility import View, Viewer
from jobs.models import Job, Standing

if TYPE_CHECKING:
    from app.questions import Answer

KEPT = 500
# Of one answer, which has some hundred works then; a larger one is told anew each time.
MOST_BYTES = 100_000
BELIEVED_S = 30.0


class Told(NamedTuple):
    """What was told to whom: all that an answer depends on."""

    job_id: str
    version: int
    viewer: Viewer
    view: str
    language: str

    @classmethod
    def of(cls, standing: Job | Standing, view: View, language: Language) -> "Told":
        return cls(standing.id, standing.version, view.viewer, view.tag, language.code)


class RecentAnswers:
    """The latest answers to finished questions. May be shared by threads."""

    def __init__(self) -> None:
        self._kept: TTLCache[Told, Answer] = TTLCache(KEPT, BELIEVED_S)
        self._lock = threading.Lock()

    def find(self, told: Told) -> "Answer | None":
        """The answer that was told so a moment ago."""
        with self._lock:
            # Else what is over stays until something is kept.
            self._kept.expire()
            answer = self._kept.get(told)
        return None if answer is None else replace(answer)

    def keep(self, told: Told, answer: "Answer") -> None:
        """Keep the answer to a finished question, unless it is a large one."""
        if len(answer.body) > MOST_BYTES:
            return
        with self._lock:
            # Its JSON alone, and a copy of that is handed out: garbage collection would walk over all the objects of
            # five hundred answers, and hold everything up meanwhile.
            self._kept[told] = replace(answer)

    def forget(self, job_id: str) -> None:
        """Drop what is kept of a question that was erased here; of one erased elsewhere nothing is told, and it goes
        with its time."""
        with self._lock:
            for told in [told for told in self._kept if told.job_id == job_id]:
                del self._kept[told]
