"""Batches, webhooks and opt-outs by the client against the real application, waiting and awaiting."""

import asyncio
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from das_client import AsyncClient, Client, NotFinished, ProblemError, UsageError, models, webhooks
from jobs.settings import Settings
from tests.app.conftest import Live
from tests.app.receivers import Receiver, receiving, until


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    changes = {
        "api_keys": "required",
        "queue_limit": 100,
        "fetch_allow": "127.0.0.1",
        "opt_out_rate_limit": None,
    }
    return settings.model_copy(update={**changes, "opt_outs_open": True})


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Three pictures and a file that is none, the second."""
    rng = np.random.default_rng(4)
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
    paths[1].write_bytes(b"no picture")
    return paths


def test_a_batch_of_paths_is_followed_and_its_results_are_read(
    client: Client, worker: object, pictures: list[Path]
) -> None:
    made = client.create_batch(pictures, top_k=2, client_tag="many", idempotency_key="one batch")
    assert (
        client.create_batch(pictures, top_k=2, client_tag="many", idempotency_key="one batch").id == made.id
    )
    seen = list(client.follow_batch(made.id))
    assert [batch.state for batch in seen[:-1]] == ["open"] * (len(seen) - 1)
    assert (seen[-1].state, seen[-1].counts.succeeded, seen[-1].counts.failed) == ("finished", 3, 1)
    assert client.wait_for_batch(made.id, 1).state == "finished"
    results = list(client.batch_results(made.id))
    assert [(one.position, one.name, one.state) for one in results] == [
        (1, "0.png", "succeeded"), (2, "1.png", "failed"), (3, "2.png", "succeeded"), (4, "3.png", "succeeded"),
    ]  # fmt: skip
    assert results[1].problem is not None
    assert results[1].problem.code == "unsupported-image"
    assert results[0].attribution is not None
    assert [work.rank for work in results[0].attribution.works or []] == [1, 2]
    assert [one.position for one in client.batch_results(made.id, after=2)] == [3, 4]
    assert [batch.id for batch in client.batches(client_tag="many")] == [made.id]
    client.erase_batch(made.id)
    with pytest.raises(ProblemError) as gone:
        client.batch(made.id)
    assert gone.value.code == "erased"


def test_pictures_with_options_of_their_own_and_archives(
    client: Client, worker: object, pictures: list[Path], tmp_path: Path
) -> None:
    own: models.AskOptions = {"top_k": 1, "client_tag": "its own"}
    made = client.create_batch([pictures[0], (pictures[2].read_bytes(), own)], top_k=3)
    assert client.wait_for_batch(made.id).state == "finished"
    first, second = client.batch_results(made.id)
    assert (first.name, first.attribution and len(first.attribution.works or [])) == ("0.png", 3)
    assert (second.name, second.client_tag) == ("picture-2", "its own")
    assert second.attribution is not None
    assert len(second.attribution.works or []) == 1

    archive = tmp_path / "pictures.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.write(pictures[0], "a.png")
        packed.write(pictures[2], "b.png")
    made = client.create_batch(archive=archive)
    assert [one.name for one in client.wait_for_batch(made.id).items] == ["a.png", "b.png"]
    with pytest.raises(UsageError, match="one of the two"):
        client.create_batch()
    with pytest.raises(UsageError, match="can't be read"):
        client.create_batch([tmp_path / "none.png"])


def test_a_batch_that_nobody_works_on(client: Client, pictures: list[Path]) -> None:
    made = client.create_batch(pictures[2:])
    with pytest.raises(NotFinished) as raised:
        client.wait_for_batch(made.id, 0.3)
    assert raised.value.id == made.id
    assert client.cancel_batch(made.id).state == "cancelled"


def test_a_webhooks_life(client: Client, receiver: Receiver) -> None:
    made = client.create_webhook(receiver.url, events=["decision.made"], description="mine")
    assert [one.id for one in client.webhooks()] == [made.id]
    tested = client.test_webhook(made.id)
    (got,) = receiver.wait()
    event = webhooks.verify(got.headers, got.body, made.secret)
    assert (event["type"], got.headers["webhook-id"]) == ("webhook.test", tested.id)
    assert until(lambda: list(client.deliveries(made.id, state="delivered")))[0].id == tested.id

    rotated = client.rotate_webhook(made.id, overlap_s=60)
    assert rotated.secret != made.secret
    assert client.redeliver(made.id, tested.id).id == tested.id
    again = receiver.wait(2)[1]
    for secret in (made.secret, rotated.secret):
        assert webhooks.verify(again.headers, again.body, secret) == event

    assert client.change_webhook(made.id, enabled=False).enabled is False
    assert client.webhook(made.id).description == "mine"
    client.delete_webhook(made.id)
    assert client.webhooks() == []


def test_an_opt_outs_life(client: Client, live: Live) -> None:
    creator = client.work(next(iter(client.works(client.indexes()[0].id))).work_id).creator
    assert creator is not None
    asked = client.opt_out("ada@example.org", creator=creator, statement="Mine.")
    assert (asked.state, asked.token) == ("received", None)
    assert [one.id for one in client.opt_outs(state="received")] == [asked.id]
    assert client.verify_opt_out(asked.id).hidden
    done = datetime.now(UTC) - timedelta(hours=1)
    assert client.apply_opt_out(asked.id, left_out_at=done).left_out_at is not None
    client.erase_opt_out(asked.id)
    assert client.opt_out_state(asked.id).contact is None
    assert client.withdraw_opt_out(asked.id).state == "withdrawn"
    refused = client.opt_out("ada@example.org", creator=creator)
    assert client.reject_opt_out(refused.id, "Another's.").reason == "Another's."

    # Who has no key holds the token that was given.
    with Client(live.url) as nobody:
        asked = nobody.opt_out("eve@example.org", creator=creator)
        assert asked.token is not None
        assert nobody.opt_out_state(asked.id, token=asked.token).contact == "eve@example.org"
        with pytest.raises(ProblemError) as missing:
            nobody.opt_out_state(asked.id)
        assert missing.value.status in (401, 404)
        assert nobody.withdraw_opt_out(asked.id, token=asked.token).state == "withdrawn"
        nobody.erase_opt_out(asked.id, token=asked.token)


def test_the_same_awaiting(
    live: Live, key: str, worker: Callable[[], int], pictures: list[Path], receiver: Receiver
) -> None:
    async def run() -> list[str]:
        async with AsyncClient(live.url, key) as das:
            made = await das.create_batch(pictures)
            async for batch in das.follow_batch(made.id):
                last = batch
            assert last.state == "finished"
            states = [result.state async for result in das.batch_results(made.id)]
            endpoint = await das.create_webhook(receiver.url)
            await das.test_webhook(endpoint.id)
            found = [one.type async for one in das.deliveries(endpoint.id)]
            await das.delete_webhook(endpoint.id)
        return [*states, *found]

    assert asyncio.run(run()) == ["succeeded", "failed", "succeeded", "succeeded", "webhook.test"]
