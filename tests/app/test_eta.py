"""The time left of an answer, at the pace since its work was begun."""

from datetime import timedelta

import pytest

from app.answers import _seconds_left
from jobs.models import Job, JobState, utc_now

NOW = utc_now()


def job(state=JobState.RUNNING, done=0, total=10, ago=6.0):
    began = None if ago is None else NOW - timedelta(seconds=ago)
    return Job(
        id="att_1",
        created_at=NOW,
        index_id="tiny",
        method="das",
        candidates="all",
        top_k=1,
        input={},
        state=state,
        progress_done=done,
        progress_total=total,
        started_at=began,
    )


@pytest.mark.parametrize(
    ("question", "left"),
    [
        (job(done=3), 14.0),
        (job(done=1), 54.0),
        (job(done=9), 0.7),
        (job(done=10), 0.0),
        (job(done=0), None),
        (job(done=3, ago=None), None),
        (job(JobState.QUEUED, ago=None), None),
        (job(JobState.SUCCEEDED, done=10), 0.0),
        (job(JobState.FAILED, done=3), None),
        (job(JobState.CANCELLED, done=3), None),
    ],
    ids=["third", "first", "ninth", "last", "none", "unstarted", "queued", "done", "failed", "cancelled"],
)
def test_the_rest_takes_as_long_as_what_is_done(question, left):
    assert _seconds_left(question, NOW) == left


def test_it_is_told_while_a_question_runs(client, ask, store):
    asked = ask()
    (claimed,) = store.leases.claim("w", 1, [asked["index"]])
    assert client.get(asked["links"]["self"]).json()["progress"]["eta_s"] is None
    store.leases.progress([claimed.token], "gradients", 1, 3)
    assert client.get(asked["links"]["self"]).json()["progress"]["eta_s"] >= 0
