"""The pages to read: indexes with their cards, and the API in ten lines."""

import re

import pytest
from sqlalchemy import delete
from starlette.testclient import TestClient

from app.callers import LOCAL
from app.routes.reading import as_html
from app.service import Service
from jobs.opt_outs import NewOptOut, OptOut

HTML = {"Accept": "text/html"}


def test_the_indexes_lead_to_their_cards(client: TestClient) -> None:
    listed = client.get("/indexes", headers=HTML)
    assert listed.status_code == 200
    (address,) = re.findall(r'href="(/indexes/[^"]+)"', listed.text)
    page = client.get(address, headers=HTML).text
    assert "40 works, 3 creators" in page
    assert "<h2>Attribution index: tiny</h2>" in page
    assert "<table>" in page
    assert page.count("<h1") == 1
    assert client.get("/indexes/none", headers=HTML).status_code == 404
    for way in ("/indexes", "/api"):
        assert f'href="{way}"' in client.get("/", headers=HTML).text


def test_a_card_names_no_creator_who_isnt_shown(client: TestClient) -> None:
    service: Service = client.app.state.service  # type: ignore[attr-defined]
    address = f"/indexes/{next(iter(service.catalogue)).id}"
    assert "Hokusai" in client.get(address, headers=HTML).text
    wanted = NewOptOut(owner="local", index_name="tiny", creator="Hokusai", contact="ada@example.org")
    service.store.opt_outs.create(wanted, LOCAL.actor, hide=True)
    service.visibility.refresh()
    try:
        assert "Hokusai" not in client.get(address, headers=HTML).text
    finally:
        with service.store.database.write() as session:
            session.execute(delete(OptOut))
        service.visibility.refresh()


@pytest.mark.parametrize(
    ("card", "kept"),
    [
        ("<script>alert(1)</script>", "&lt;script&gt;"),
        ("[x](javascript:alert(1))", "[x](javascript:alert(1))"),
        ("![x](https://example.org/x.png)", '!<a href="https://example.org/x.png">x</a>'),
        ("###### deep", "<h6>deep</h6>"),
    ],
)
def test_nothing_in_a_card_becomes_markup_of_its_own(card: str, kept: str) -> None:
    made = as_html(card)
    assert kept in made
    assert "<script" not in made
    assert "<img" not in made


def test_the_api_is_told_in_ten_lines_under_the_address_asked(client: TestClient) -> None:
    page = client.get("/api", headers={**HTML, "Accept-Language": "fr"}).text
    assert "curl http://127.0.0.1:8000/v1/attributions" in page
    assert "Toute l’API" in page
