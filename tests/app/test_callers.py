"""What one caller asked isn't there for another."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.callers import Caller, caller_of

Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def as_ada(client: TestClient) -> Iterator[None]:
    """Requests are another caller's from here on."""
    overrides = client.app.dependency_overrides  # type: ignore[attr-defined]
    overrides[caller_of] = lambda: Caller("ada")
    yield
    del overrides[caller_of]


@pytest.fixture
def of_the_local_caller(ask: Ask) -> str:
    return str(ask()["id"])


@pytest.mark.usefixtures("of_the_local_caller", "as_ada")
def test_a_list_holds_ones_own(client: TestClient, ask: Ask) -> None:
    mine = ask()
    assert [item["id"] for item in client.get("/v1/attributions").json()["items"]] == [mine["id"]]


def test_a_question_of_another_is_not_found(
    client: TestClient, of_the_local_caller: str, as_ada: None
) -> None:
    address = f"/v1/attributions/{of_the_local_caller}"
    answers = [
        client.get(address),
        client.get(f"{address}/image"),
        client.post(f"{address}/cancel"),
        client.delete(address),
    ]
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(404, "not-found")] * 4
    for path in (f"/a/{of_the_local_caller}", f"/a/{of_the_local_caller}/again"):
        assert client.request("POST" if "again" in path else "GET", path).status_code == 404
