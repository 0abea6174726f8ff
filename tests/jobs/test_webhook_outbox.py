"""The outbox and its deliveries: written with what they tell of, claimed by lease, tried again, given up."""

import json
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
from sqlalchemy import func, select, update

from jobs.credentials import Scope
from jobs.happenings import Happenings
from jobs.keys import Keys, NewKey
from jobs.models import Job, utc_now
from jobs.settings import Settings
from jobs.store import JobStore
from jobs.webhooks.deliveries import OF_ONE_ENDPOINT, Attempt, ClaimedDelivery, Outstanding
from jobs.webhooks.endpoints import Change, EndpointNotFound, EndpointRefused, IssuedSecret
from jobs.webhooks.models import WebhookDelivery, WebhookEndpoint, WebhookEvent
from jobs.webhooks.outbox import announce_end
from jobs.webhooks.pacing import LONGEST_DELAY_S, delay, next_attempt
from jobs.webhooks.sealing import Seal, SecretUnreadable

Ask = Callable[..., Job]
INDEX = "photographs@3f9c2a"
URL = "https://pipeline.example/hook"


@pytest.fixture
def endpoint(store: JobStore) -> Callable[..., IssuedSecret]:
    def endpoint(
        owner: str = "local", url: str = URL, events: list[WebhookEvent] | None = None
    ) -> IssuedSecret:
        return store.webhook_endpoints.create(owner, url, events, None)

    return endpoint


def attempt(status: int | None = 500) -> Attempt:
    return Attempt(utc_now().isoformat(), 0.1, status, f"The receiver answered {status}.", "oh")


def waiting(store: JobStore) -> list[WebhookDelivery]:
    with store.database.read() as session:
        return [*session.scalars(select(WebhookDelivery).order_by(WebhookDelivery.id))]


def events(store: JobStore) -> list[tuple[str, str]]:
    return [(row.type, json.loads(row.body)["data"]["id"]) for row in waiting(store)]


def shift(store: JobStore, **columns: datetime | None) -> None:
    """Set moments of every delivery, as if time had passed."""
    with store.database.write() as session:
        session.execute(update(WebhookDelivery).values(**columns))


def finish(store: JobStore) -> str:
    (job,) = store.leases.claim("a", 1, [INDEX])
    assert store.leases.finish(job.token, {"works": []}, {})
    return job.id


def test_every_end_of_a_question_is_written_with_it(
    store: JobStore, ask: Ask, endpoint: Callable[..., IssuedSecret], settings: Settings
) -> None:
    made = endpoint()
    first = ask().id
    assert finish(store) == first
    second = ask().id
    (job,) = store.leases.claim("a", 1, [INDEX])
    assert store.leases.fail(job.token, "It broke.", "broken")
    third = ask().id
    store.cancel(third)
    store.cancel(third)
    fourth = ask().id
    store.leases.fail_waiting(INDEX, "No worker.", "index-unheld")
    fifth = ask().id
    for _ in range(settings.max_attempts):
        (job,) = store.leases.claim("a", 1, [INDEX])
        store.leases.release([job.token], "its process was killed")
    assert events(store) == [
        ("attribution.succeeded", first),
        ("attribution.failed", second),
        ("attribution.cancelled", third),
        ("attribution.failed", fourth),
        ("attribution.failed", fifth),
    ]
    told = waiting(store)[0]
    assert (told.endpoint_id, told.job_id, told.state) == (made.endpoint.id, first, "pending")
    body = json.loads(told.body)
    assert body["type"] == "attribution.succeeded"
    assert body["timestamp"].endswith("Z")
    assert body["data"] == {
        "id": first,
        "state": "succeeded",
        "links": {"self": f"/v1/attributions/{first}"},
    }


def test_what_is_undone_is_told_to_nobody(
    store: JobStore, ask: Ask, endpoint: Callable[..., IssuedSecret]
) -> None:
    endpoint()
    ask()
    (job,) = store.leases.claim("a", 1, [INDEX])

    def announced_in_vain() -> None:
        with store.database.write() as session:
            announce_end(session, job.id, "succeeded")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        announced_in_vain()
    assert not store.leases.finish("another's token", {}, {})
    assert waiting(store) == []
    assert store.leases.finish(job.token, {}, {})
    assert len(waiting(store)) == 1


def test_only_who_asked_hears_of_it_and_only_of_what_they_want(
    store: JobStore, ask: Ask, endpoint: Callable[..., IssuedSecret]
) -> None:
    every = endpoint()
    failures = endpoint(url=URL + "/failures", events=[WebhookEvent.FAILED])
    endpoint("somebody")
    off = endpoint(url=URL + "/off")
    store.webhook_endpoints.change("local", off.endpoint.id, Change(enabled=False))
    ask()
    finish(store)
    assert [row.endpoint_id for row in waiting(store)] == [every.endpoint.id]
    ask(webhook_endpoint=failures.endpoint.id)
    finish(store)
    ask(webhook_endpoint=failures.endpoint.id)
    store.leases.fail_waiting(INDEX, "No worker.", "index-unheld")
    told = [(row.endpoint_id, row.type) for row in waiting(store)][1:]
    assert told == [(failures.endpoint.id, "attribution.failed")]


def test_a_decision_is_told_once(store: JobStore, ask: Ask, endpoint: Callable[..., IssuedSecret]) -> None:
    endpoint(events=[WebhookEvent.DECIDED])
    job = ask()
    decision = store.decisions.create("local", job.id, "publish", 1, None)
    finish(store)
    for _ in range(2):
        store.decisions.settle(decision.id, {"outcome": "block"}, None)
    assert events(store) == [("decision.made", decision.id)]
    assert "block" not in waiting(store)[0].body
    store.erase(job.id)
    assert waiting(store) == []


def test_a_claim_is_one_processes_and_ends(
    store: JobStore, ask: Ask, endpoint: Callable[..., IssuedSecret]
) -> None:
    endpoint()
    ask()
    finish(store)
    (claimed,) = store.webhook_deliveries.claim(10)
    assert (claimed.url, json.loads(claimed.body)["type"]) == (URL, "attribution.succeeded")
    assert store.webhook_deliveries.claim(10) == []
    # Killed on the way: the lease runs out, and another takes it under the same id.
    shift(store, lease_expires_at=utc_now() - timedelta(seconds=1))
    (again,) = store.webhook_deliveries.claim(10)
    assert again.id == claimed.id
    assert again.token != claimed.token
    assert not store.webhook_deliveries.taken(claimed, attempt(200))
    assert store.webhook_deliveries.taken(again, attempt(200))
    (row,) = waiting(store)
    assert (row.state, row.attempt, row.next_attempt_at, len(row.tried)) == ("delivered", 1, None, 1)
    assert row.settled_at == row.delivered_at is not None
    assert store.webhook_deliveries.claim(10) == []


def test_what_was_given_back_is_taken_at_once(
    store: JobStore, ask: Ask, endpoint: Callable[..., IssuedSecret]
) -> None:
    endpoint()
    ask()
    finish(store)
    (claimed,) = store.webhook_deliveries.claim(10)
    store.webhook_deliveries.give_back(claimed)
    (again,) = store.webhook_deliveries.claim(10)
    store.webhook_deliveries.give_back(again, timedelta(minutes=1))
    assert store.webhook_deliveries.claim(10) == []
    assert waiting(store)[0].attempt == 0


def test_many_claim_at_once_and_none_is_claimed_twice(
    store: JobStore, endpoint: Callable[..., IssuedSecret]
) -> None:
    made = [endpoint(url=f"{URL}/{number}") for number in range(6)]
    for one in made:
        for _ in range(3):
            store.webhook_endpoints.test("local", one.endpoint.id)

    def claim_all(_: int) -> list[str]:
        found: list[str] = []
        for _turn in range(12):
            found += [one.id for one in store.webhook_deliveries.claim(2)]
        return found

    with ThreadPoolExecutor(4) as threads:
        claimed = [one for found in threads.map(claim_all, range(4)) for one in found]
    assert sorted(claimed) == sorted(row.id for row in waiting(store))


def test_one_endpoint_never_has_more_on_the_way_than_its_places(
    store: JobStore, endpoint: Callable[..., IssuedSecret]
) -> None:
    slow, other = endpoint(), endpoint(url=URL + "/other")
    for _ in range(OF_ONE_ENDPOINT + 3):
        store.webhook_endpoints.test("local", slow.endpoint.id)
    store.webhook_endpoints.test("local", other.endpoint.id)
    claimed = store.webhook_deliveries.claim(16)
    by_endpoint = [one.endpoint_id for one in claimed]
    assert by_endpoint.count(slow.endpoint.id) == OF_ONE_ENDPOINT
    assert by_endpoint.count(other.endpoint.id) == 1
    assert store.webhook_deliveries.claim(16) == []
    store.webhook_deliveries.taken(claimed[0], attempt(200))
    assert len(store.webhook_deliveries.claim(16)) == 1


def test_nothing_is_sent_for_who_has_no_key_that_works(
    store: JobStore, endpoint: Callable[..., IssuedSecret]
) -> None:
    keys = Keys(store.database)
    issued = keys.create(NewKey(name="a", scopes=frozenset({Scope.ASK})))
    made = endpoint(issued.key.owner)
    store.webhook_endpoints.test(issued.key.owner, made.endpoint.id)
    replaced = keys.rotate(issued.key.id, timedelta())
    assert len(store.webhook_deliveries.claim(1)) == 1
    shift(store, lease_expires_at=None, lease_token=None)
    keys.revoke(replaced.key.id)
    assert store.webhook_deliveries.claim(1) == []


def test_how_deliveries_end_can_be_followed_and_what_waits_is_known(
    store: JobStore, endpoint: Callable[..., IssuedSecret], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.happenings.SETTLED", timedelta())
    assert store.webhook_deliveries.outstanding() == Outstanding(0, 0.0, 0.0)
    happenings = Happenings(store.database)
    made, off = endpoint(), endpoint(url=URL + "/off")
    for one in (made, made, made, off):
        store.webhook_endpoints.test("local", one.endpoint.id)
    # What nothing is sent to keeps nobody waiting.
    store.webhook_endpoints.change("local", off.endpoint.id, Change(enabled=False))
    ago = utc_now() - timedelta(seconds=100)
    shift(store, created_at=ago, next_attempt_at=ago + timedelta(seconds=60))
    waits = store.webhook_deliveries.outstanding()
    assert waits.pending == 3
    assert 100 <= waits.oldest_s < 160
    assert 40 <= waits.overdue_s < 100
    first, second, third = store.webhook_deliveries.claim(3)
    # On its way it is overdue no more, and it isn't delivered yet.
    waits = store.webhook_deliveries.outstanding()
    assert (waits.pending, waits.overdue_s, waits.oldest_s >= 100) == (3, 0.0, True)
    assert store.webhook_deliveries.taken(first, attempt(200))
    store.webhook_deliveries.missed(second, attempt(500))
    assert store.webhook_deliveries.outstanding().pending == 2
    assert happenings.deliveries() == ["delivered"]
    store.webhook_deliveries.missed(third, attempt(410))
    assert happenings.deliveries() == ["failed"]
    assert happenings.deliveries() == []
    # 410 has ended the endpoint.
    assert store.webhook_deliveries.outstanding() == Outstanding(0, 0.0, 0.0)


def miss(store: JobStore, status: int | None = 500, retry_after: float | None = None) -> ClaimedDelivery:
    shift(store, next_attempt_at=utc_now())
    (claimed,) = store.webhook_deliveries.claim(1)
    store.webhook_deliveries.missed(claimed, attempt(status), retry_after)
    return claimed


def test_it_is_tried_again_ever_later_and_given_up_after_a_day(
    store: JobStore, endpoint: Callable[..., IssuedSecret]
) -> None:
    made = endpoint()
    store.webhook_endpoints.test("local", made.endpoint.id)
    for expected in (5, 20, 80, 320):
        before = utc_now()
        miss(store)
        after = utc_now()
        (row,) = waiting(store)
        assert row.next_attempt_at is not None
        assert before + timedelta(seconds=0.8 * expected) <= row.next_attempt_at
        assert row.next_attempt_at <= after + timedelta(seconds=1.2 * expected)
    assert [item["error"] for item in row.tried] == 4 * ["The receiver answered 500."]
    assert row.give_up_at is not None
    assert abs((row.give_up_at - utc_now()).total_seconds() - 86400) < 60
    # The last attempt is made when the time is over, and no other after it.
    shift(store, give_up_at=utc_now())
    miss(store)
    (row,) = waiting(store)
    assert (row.state, row.next_attempt_at, row.settled_at is None) == ("failed", None, False)
    assert store.webhook_deliveries.claim(1) == []
    again = store.webhook_deliveries.again(made.endpoint, row.id)
    assert (again.id, again.state, again.settled_at) == (row.id, "pending", None)
    (claimed,) = store.webhook_deliveries.claim(1)
    assert (claimed.id, claimed.body) == (row.id, row.body)
    store.webhook_deliveries.missed(claimed, attempt())
    (row,) = waiting(store)
    assert row.state == "pending"


def test_a_day_counts_from_the_first_attempt(store: JobStore, endpoint: Callable[..., IssuedSecret]) -> None:
    made = endpoint()
    store.webhook_endpoints.test("local", made.endpoint.id)
    # The service was down for a week.
    shift(store, created_at=utc_now() - timedelta(days=7))
    miss(store)
    assert waiting(store)[0].state == "pending"


def test_the_receivers_own_time_counts_within_bounds() -> None:
    chance = random.Random(1)
    assert delay(1, 60.0, chance) == timedelta(seconds=60)
    assert delay(1, 1e9, chance) == timedelta(seconds=LONGEST_DELAY_S)
    assert delay(1, 0.0, chance) > timedelta(seconds=3)
    assert delay(10**6, None, chance) <= timedelta(seconds=1.2 * LONGEST_DELAY_S)
    now = utc_now()
    assert next_attempt(now, now + timedelta(seconds=1), 5, None, chance) == now + timedelta(seconds=1)
    assert next_attempt(now, now, 5, None, chance) is None


def test_the_attempts_of_a_day(store: JobStore) -> None:
    """Ten or so, whatever the chance."""
    chance = random.Random(7)
    for _ in range(200):
        at, attempts = utc_now(), 1
        give_up = at + timedelta(hours=24)
        while (later := next_attempt(at, give_up, attempts, None, chance)) is not None:
            at, attempts = later, attempts + 1
        assert at == give_up
        assert 9 <= attempts <= 13


def test_410_disables_the_endpoint(store: JobStore, endpoint: Callable[..., IssuedSecret]) -> None:
    made = endpoint()
    store.webhook_endpoints.test("local", made.endpoint.id)
    store.webhook_endpoints.test("local", made.endpoint.id)
    (claimed,) = store.webhook_deliveries.claim(1)
    because = store.webhook_deliveries.missed(claimed, attempt(410))
    (found,) = store.webhook_endpoints.list("local")
    assert (found.enabled, found.disabled_because) == (False, because)
    assert because is not None
    assert "410" in because
    assert [row.state for row in waiting(store)] == ["failed", "pending"]
    assert store.webhook_deliveries.claim(1) == []
    with pytest.raises(EndpointRefused, match="is disabled"):
        store.webhook_endpoints.test("local", made.endpoint.id)
    with pytest.raises(EndpointRefused, match="is disabled"):
        store.webhook_deliveries.again(found, claimed.id)
    # What waited is sent once it is enabled again.
    store.webhook_endpoints.change("local", made.endpoint.id, Change(enabled=True))
    assert len(store.webhook_deliveries.claim(1)) == 1


def test_what_never_takes_anything_is_disabled_after_three_days(
    store: JobStore, endpoint: Callable[..., IssuedSecret]
) -> None:
    made = endpoint()
    store.webhook_endpoints.test("local", made.endpoint.id)
    miss(store)
    (found,) = store.webhook_endpoints.list("local")
    assert found.enabled
    assert found.failing_since is not None
    with store.database.write() as session:
        session.execute(update(WebhookEndpoint).values(failing_since=utc_now() - timedelta(days=4)))
    miss(store)
    (found,) = store.webhook_endpoints.list("local")
    assert not found.enabled
    assert found.disabled_because == "It has taken no delivery for 3 days. The receiver answered 500."
    # One that is taken in between makes it well.
    store.webhook_endpoints.change("local", made.endpoint.id, Change(enabled=True))
    miss(store)
    shift(store, next_attempt_at=utc_now())
    (claimed,) = store.webhook_deliveries.claim(1)
    store.webhook_deliveries.taken(claimed, attempt(200))
    (found,) = store.webhook_endpoints.list("local")
    assert found.failing_since is None


def test_a_miss_long_after_another_does_not_disable_it(
    store: JobStore, endpoint: Callable[..., IssuedSecret]
) -> None:
    made = endpoint()
    store.webhook_endpoints.test("local", made.endpoint.id)
    miss(store)
    # It isn't taken for its day, and then nothing happens for nine.
    shift(store, give_up_at=utc_now())
    miss(store)
    long_ago = utc_now() - timedelta(days=9)
    shift(store, settled_at=long_ago)
    with store.database.write() as session:
        session.execute(update(WebhookEndpoint).values(failing_since=long_ago))
    store.webhook_endpoints.test("local", made.endpoint.id)
    (claimed,) = store.webhook_deliveries.claim(1)
    assert store.webhook_deliveries.missed(claimed, attempt(503)) is None
    (found,) = store.webhook_endpoints.list("local")
    assert found.enabled
    assert found.failing_since is not None
    assert utc_now() - found.failing_since < timedelta(hours=1)
    # Nor does one after the service was away for days with what waits.
    with store.database.write() as session:
        session.execute(update(WebhookEndpoint).values(failing_since=long_ago))
    shift(store, next_attempt_at=long_ago)
    (claimed,) = store.webhook_deliveries.claim(1)
    assert store.webhook_deliveries.missed(claimed, attempt(503)) is None
    # What is missed again and again does, whenever the last of it was given up.
    with store.database.write() as session:
        session.execute(update(WebhookEndpoint).values(failing_since=long_ago))
        session.execute(
            update(WebhookDelivery).values(state="failed", settled_at=utc_now() - timedelta(hours=7))
        )
        session.execute(update(WebhookDelivery).values(next_attempt_at=None))
    store.webhook_endpoints.test("local", made.endpoint.id)
    (claimed,) = store.webhook_deliveries.claim(1)
    assert store.webhook_deliveries.missed(claimed, attempt(503)) is not None


def test_a_secret_stands_nowhere_in_clear(
    store: JobStore, endpoint: Callable[..., IssuedSecret], settings: Settings
) -> None:
    made = endpoint()
    assert made.secret.startswith("whsec_")
    assert made.secret not in repr(made)
    with store.database.read() as session:
        kept = session.scalars(select(WebhookEndpoint.secret)).one()
    assert made.secret[6:20] not in kept
    assert Seal(settings).open(kept) == made.secret
    other = Seal(Settings(_env_file=None, webhook_key="x" * 32))
    with pytest.raises(SecretUnreadable, match="DAS_WEBHOOK_KEY"):
        other.open(kept)


def test_for_the_overlap_both_secrets_sign(store: JobStore, endpoint: Callable[..., IssuedSecret]) -> None:
    made = endpoint()
    new = store.webhook_endpoints.rotate("local", made.endpoint.id, timedelta(hours=1))
    store.webhook_endpoints.test("local", made.endpoint.id)
    (claimed,) = store.webhook_deliveries.claim(1)
    assert store.webhook_deliveries.opened(claimed) == [new.secret, made.secret]
    store.webhook_deliveries.give_back(claimed)
    with store.database.write() as session:
        session.execute(update(WebhookEndpoint).values(previous_until=utc_now() - timedelta(seconds=1)))
    (claimed,) = store.webhook_deliveries.claim(1)
    assert store.webhook_deliveries.opened(claimed) == [new.secret]
    last = store.webhook_endpoints.rotate("local", made.endpoint.id, timedelta())
    store.webhook_deliveries.give_back(claimed)
    (claimed,) = store.webhook_deliveries.claim(1)
    assert store.webhook_deliveries.opened(claimed) == [last.secret]


def test_an_owners_endpoints_are_their_own(store: JobStore, endpoint: Callable[..., IssuedSecret]) -> None:
    made = endpoint()
    with pytest.raises(EndpointRefused, match="this address already"):
        endpoint()
    endpoint("somebody")
    assert store.webhook_endpoints.get("somebody", made.endpoint.id) is None
    for what in (
        lambda: store.webhook_endpoints.delete("somebody", made.endpoint.id),
        lambda: store.webhook_endpoints.rotate("somebody", made.endpoint.id),
        lambda: store.webhook_endpoints.test("somebody", made.endpoint.id),
        lambda: store.webhook_endpoints.change("somebody", "no id \x00", Change(enabled=True)),
    ):
        with pytest.raises(EndpointNotFound):
            what()
    for number in range(19):
        endpoint(url=f"{URL}/{number}")
    with pytest.raises(EndpointRefused, match="20 endpoints, which is the most"):
        endpoint(url=URL + "/more")
    store.webhook_endpoints.test("local", made.endpoint.id)
    store.webhook_endpoints.delete("local", made.endpoint.id)
    assert waiting(store) == []


def test_old_deliveries_are_forgotten_and_what_is_still_sent_isnt(
    store: JobStore, endpoint: Callable[..., IssuedSecret]
) -> None:
    made = endpoint()
    for _ in range(3):
        store.webhook_endpoints.test("local", made.endpoint.id)
    assert store.webhook_deliveries.forget_old() == 0
    with store.database.write() as session:
        old = f"msg_{int((utc_now() - timedelta(days=31)).timestamp() * 1000):012x}"
        for number, (row, state) in enumerate(
            zip(
                session.scalars(select(WebhookDelivery)).all(),
                ("delivered", "failed", "pending"),
                strict=True,
            )
        ):
            row.id, row.state = f"{old}{number:020x}", state
    assert store.webhook_deliveries.forget_old() == 2
    assert [row.state for row in waiting(store)] == ["pending"]
    store.webhook_endpoints.change("local", made.endpoint.id, Change(enabled=False))
    assert store.webhook_deliveries.forget_old() == 1
    with store.database.read() as session:
        assert session.scalar(select(func.count()).select_from(WebhookDelivery)) == 0
