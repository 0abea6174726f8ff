"""The foot of every page says of pictures what is true of who looks at it."""

import html
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from starlette.requests import Request
from starlette.testclient import TestClient

from app.footers import about_pictures, seen_with, times_in_words
from app.language import ENGLISH, LANGUAGES
from app.service import Service
from jobs.credentials import Scope
from jobs.keeping import Times
from jobs.keys import NewKey
from jobs.settings import Settings
from jobs.store import JobStore

HTML = {"Accept": "text/html"}
OWN = {**HTML, "Origin": "http://127.0.0.1:8000"}
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
MONTHS = timedelta(days=90)


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    return settings.model_copy(
        update={
            "api_keys": "required",
            "public_url": "http://127.0.0.1:8000",
            "keep_results_seconds": 30 * 86400,
        }
    )


@pytest.fixture(autouse=True)
def signed_out(client: TestClient) -> Iterator[None]:
    client.cookies.clear()
    yield
    client.cookies.clear()


@pytest.fixture
def sign_in(client: TestClient) -> Callable[..., None]:
    service: Service = client.app.state.service  # type: ignore[attr-defined]

    def sign_in(**kept: timedelta) -> None:
        key = service.keys.create(NewKey(name="Ada", scopes=frozenset({Scope.ASK, Scope.READ}), **kept))
        done = client.post("/sign-in", data={"key": key.secret}, headers=OWN, follow_redirects=False)
        assert done.status_code == 303

    return sign_in


def test_the_times_of_the_key_that_is_signed_in(client: TestClient, sign_in: Callable[..., None]) -> None:
    usual = (
        "Each is erased 24 hours after its question has ended, and the answer 30 days after it has ended, or sooner"
        " if someone deletes it."
    )
    shown = html.unescape(client.get("/sign-in", headers=HTML).text)
    assert f"{usual} A key may have times of its own." in shown
    sign_in()
    shown = html.unescape(client.get("/", headers=HTML).text)
    assert usual in shown
    assert "A key may have" not in shown
    sign_in(keep_uploads=timedelta(), keep_results=timedelta(days=7))
    for address in ("/", "/indexes", "/opt-out"):
        shown = html.unescape(client.get(address, headers=HTML).text)
        assert "Each is erased once its question has ended, and the answer 7 days after that" in shown, (
            address
        )
        assert "until someone deletes them" not in shown
    german = html.unescape(client.get("/", headers={**HTML, "Accept-Language": "de"}).text)
    assert "sobald seine Frage beendet ist, und die Antwort 7 Tage danach" in german


def test_what_is_said_is_what_happens(client: TestClient, store: JobStore) -> None:
    """Who asks with a key and who without have the times that the page tells them."""
    service: Service = client.app.state.service  # type: ignore[attr-defined]
    kept = {"keep_uploads": HOUR, "keep_results": DAY}
    key = service.keys.create(NewKey(name="Ada", scopes=frozenset({Scope.READ}), **kept)).key
    keeping = store.keeping
    assert keeping.of(key.owner) == keeping.of_key(key.keep_uploads, key.keep_results) == Times(HOUR, DAY)
    assert keeping.of("local") == keeping.without_key(local=True) == Times(None, timedelta(days=30))
    assert keeping.without_key(local=False) == Times(DAY, timedelta(days=30))


@pytest.mark.parametrize(
    ("times", "said"),
    [
        (Times(None, None), "They are kept with their answer until someone deletes them."),
        (Times(timedelta(), None), "Each is erased once its question has ended; the answer is kept until"),
        (
            Times(HOUR, None),
            "Each is erased 60 minutes after its question has ended; the answer is kept until",
        ),
        (Times(None, MONTHS), "Each is erased with its answer 90 days after its question has ended"),
        # A picture goes with its question at the latest.
        (Times(MONTHS, DAY), "Each is erased with its answer 24 hours after its question has ended"),
        (Times(timedelta(), DAY), "once its question has ended, and the answer 24 hours after that"),
        (
            Times(DAY, MONTHS),
            "24 hours after its question has ended, and the answer 90 days after it has ended",
        ),
    ],
)
def test_every_pair_of_times(times: Times, said: str) -> None:
    assert said in times_in_words(times, ENGLISH)
    told = {times_in_words(times, language) for language in LANGUAGES.values()}
    assert len(told) == len(LANGUAGES)


@pytest.mark.parametrize(
    ("fields", "here"),
    [
        ({}, True),
        ({"host": "0.0.0.0"}, False),
        ({"public_url": "https://das.example.org"}, False),
        # Whether others may come in without a key says nothing of where they are.
        ({"public_url": "https://das.example.org", "api_keys": "off"}, False),
        ({"blob_url": "s3://bucket/das"}, False),
    ],
)
def test_this_machine_is_said_to_who_sits_at_it(
    fields: dict[str, Any], here: bool, store: JobStore, tmp_path: Any
) -> None:
    settings = Settings(_env_file=None, data_dir=tmp_path, **fields)
    request = Request({"type": "http", "state": {}})
    seen_with(request, None)
    said = about_pictures(request, settings, store.keeping, ENGLISH)
    assert ("on this machine" in said) == here
    assert ("with this service" in said) != here
