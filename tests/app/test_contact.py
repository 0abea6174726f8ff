"""Whom to write to: on answers and on the pages of opt-outs, where the operator says it."""

from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.service import Service

HTML = {"Accept": "text/html"}
BEFORE = "how to reach whoever runs this service"


@pytest.mark.parametrize(
    ("contact", "link"),
    [
        ("works@example.org", "mailto:works@example.org"),
        ("https://example.org/?a=1&b=2", "https://example.org/?a=1&amp;b=2"),
    ],
)
def test_it_stands_where_it_is_needed(
    client: TestClient,
    ask: Callable[..., dict[str, Any]],
    work_off: Callable[[], Any],
    contact: str,
    link: str,
) -> None:
    asked = ask(top_k="1")
    work_off()
    pages = (asked["links"]["page"], "/opt-out")
    for page in pages:
        assert BEFORE not in client.get(page, headers=HTML).text
    service: Service = client.app.state.service  # type: ignore[attr-defined]
    before = service.settings
    service.settings = before.model_copy(update={"contact": contact})
    try:
        for page in pages:
            text = client.get(page, headers=HTML).text
            assert BEFORE in text
            assert f'<a href="{link}"' in text
        german = client.get("/opt-out", headers={**HTML, "Accept-Language": "de"}).text
        assert "wer diesen Dienst betreibt: <a" in german
    finally:
        service.settings = before
