"""Webhook endpoints of a service that sends to this machine, and a receiver there."""

import pytest

from tests.app.receivers import receiving
from tests.app.webhooks.deliveries import ENDPOINTS


@pytest.fixture(scope="module")
def settings(settings):
    return settings.model_copy(update={"fetch_allow": "127.0.0.1, 127.0.0.2, rebound.example"})


@pytest.fixture
def receiver():
    with receiving() as receiver:
        yield receiver


@pytest.fixture(autouse=True)
def none_left(client, store):
    yield
    for item in client.get(ENDPOINTS).json()["items"]:
        client.delete(item["links"]["self"])


@pytest.fixture
def register(client, receiver):
    def register(**fields):
        response = client.post(ENDPOINTS, json={"url": receiver.url, **fields})
        assert response.status_code == 201, response.text
        assert response.headers["cache-control"] == "no-store"
        return response.json()

    return register
