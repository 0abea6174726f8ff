"""`das io-worker` as a process: it delivers, ends when told to, and what it is killed over another delivers."""

import asyncio
import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

from sqlalchemy import update

from app.duties import performing
from app.service import running_service
from jobs.database import upgrade
from jobs.models import utc_now
from jobs.settings import Settings
from jobs.store import JobStore
from jobs.webhooks.models import WebhookDelivery
from tests.app.receivers import Received, receiving, until


def start(settings: Settings) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(Path(sys.executable).with_name("das")), "io-worker"],
        env={**os.environ, **settings.to_environment(), "PYTHONPATH": str(Path(__file__).parents[2])},
        stderr=subprocess.PIPE,
        text=True,
    )


def test_it_delivers_and_what_it_is_killed_over_another_delivers(tiny_index: Path, tmp_path: Path) -> None:
    settings = Settings(
        _env_file=None,
        data_dir=tmp_path,
        index_dir=tiny_index,
        redis_url="redis://127.0.0.1:1/0",
        fetch_allow="127.0.0.1",
        duties="io-worker",
    )
    upgrade(settings)
    store = JobStore(settings)
    with receiving() as receiver:
        made = store.webhook_endpoints.create("local", receiver.url, None, None).endpoint
        store.webhook_endpoints.test("local", made.id)
        received: list[str] = []

        def killing(request: Received) -> tuple[int, dict[str, str], bytes]:
            received.append(request.headers["webhook-id"])
            if len(received) == 1:
                os.kill(first.pid, signal.SIGKILL)
            return 204, {}, b""

        receiver.answer = killing
        first = start(settings)
        until(lambda: received)
        assert first.wait(60) == -signal.SIGKILL
        (kept,) = store.webhook_deliveries.list(made.id).deliveries
        assert (kept.state, kept.tried) == ("pending", [])
        with store.database.write() as session:
            session.execute(update(WebhookDelivery).values(lease_expires_at=utc_now() - timedelta(seconds=1)))
        second = start(settings)
        until(lambda: store.webhook_deliveries.list(made.id).deliveries[0].state == "delivered")
        assert received == [kept.id, kept.id]
        second.send_signal(signal.SIGTERM)
        _, told = second.communicate(timeout=60)
        assert second.returncode == 0, told
        assert "Traceback" not in told
    store.close()


def test_an_api_process_that_leaves_the_duties_to_others_has_its_own_only(
    tiny_index: Path, tmp_path: Path
) -> None:
    settings = Settings(_env_file=None, data_dir=tmp_path, index_dir=tiny_index)
    upgrade(settings)

    async def duties(here: bool) -> list[str]:
        async with running_service(settings) as service, performing(service, here=here) as names:
            return names

    assert asyncio.run(duties(False)) == ["forget"]
    assert {"forget", "sweep", "tidy", "decide", "unpack", "deliver"} <= set(asyncio.run(duties(True)))
