"""When it is worth coming back: `Retry-After` by the pace of the workers."""

from datetime import timedelta

import pytest
from sqlalchemy import update

from app.patience import until_a_look, until_room
from jobs.models import Job, JobState, utc_now
from jobs.pace import FRESH_S, Pace


class Known(Pace):
    """A pace that was measured."""

    def __init__(self, seconds):
        self._seconds = seconds
        self._measured_at = float("inf")


@pytest.mark.parametrize(
    ("seconds", "ahead", "room", "look"),
    [
        (None, 200, 30, 1),
        (0.025, 200, 3, 3),  # a queue that empties in 5 s
        (0.001, 200, 1, 1),
        (1.0, 200, 100, 10),
        (30.0, 200, 300, 10),
        (4.0, 1, 2, 2),
        (1.0, 0, 1, 1),
    ],
)
def test_half_of_the_queue_is_answered_by_then(seconds, ahead, room, look):
    assert until_room(Known(seconds), ahead) == room
    assert until_a_look(Known(seconds), ahead) == look


def test_a_full_queue_and_a_question_that_waits_tell_the_measured_time(
    client, ask, store, settings, picture, monkeypatch
):
    done = ask()
    now = utc_now()
    with store.database.write() as session:
        session.execute(
            update(Job)
            .where(Job.id == done["id"])
            .values(state=JobState.SUCCEEDED, started_at=now - timedelta(seconds=3), finished_at=now)
        )
    monkeypatch.setattr(store.pace, "_measured_at", -FRESH_S * 1e9)
    monkeypatch.setattr(store, "settings", settings.model_copy(update={"queue_limit": 4}))
    answers = [client.post("/v1/attributions", files={"image": ("p.png", picture)}) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [202] * 4 + [503]
    # Four of three seconds each: half of them are done in six.
    assert answers[4].headers["retry-after"] == "6"
    assert client.get(answers[3].headers["location"]).headers["retry-after"] == "6"
    monkeypatch.setattr(store, "settings", settings.model_copy(update={"owner_queue_limit": 2}))
    refused = client.post("/v1/attributions", content=b"", headers={"Content-Type": "x/y"})
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "6")
