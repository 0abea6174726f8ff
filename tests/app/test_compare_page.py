"""A work beside the picture: a page for each work that an answer shows, and for no other."""

import re
from collections.abc import Callable
from typing import Any

from sqlalchemy import delete
from starlette.testclient import TestClient

from app.callers import LOCAL
from app.service import Service
from jobs.opt_outs import NewOptOut, OptOut

HTML = {"Accept": "text/html"}


def test_each_work_stands_beside_the_picture(
    client: TestClient, ask: Callable[..., dict[str, Any]], work_off: Callable[[], Any]
) -> None:
    asked = ask(top_k="3")
    work_off()
    answer = client.get(asked["links"]["page"], headers=HTML).text
    ways = re.findall(r'href="(/a/[^"]+/works/[^"]+)"', answer)
    assert len(ways) == 3
    told = client.get(asked["links"]["self"]).json()["works"]
    for place, way in enumerate(ways):
        page = client.get(way, headers=HTML).text
        assert told[place]["title"] in page
        assert f'src="{told[place]["thumbnail"]}"' in page
        assert f'href="{asked["links"]["page"]}#{told[place]["work_id"]}"' in page
        around = [re.search(rf'rel="{rel}" href="([^"]+)"', page) for rel in ("prev", "next")]
        expected = [ways[place - 1] if place else None, ways[place + 1] if place < 2 else None]
        assert [found and found[1] for found in around] == expected
    for nothing in ("w_none", "..%2f..", "x" * 300):
        assert client.get(f"{asked['links']['page']}/works/{nothing}", headers=HTML).status_code == 404


def test_a_hidden_work_has_no_page_and_is_passed_over(
    client: TestClient, ask: Callable[..., dict[str, Any]], work_off: Callable[[], Any]
) -> None:
    asked = ask(top_k="3")
    work_off()
    page = asked["links"]["page"]
    first, second, third = (work["work_id"] for work in client.get(asked["links"]["self"]).json()["works"])
    service: Service = client.app.state.service  # type: ignore[attr-defined]
    wanted = NewOptOut(owner="local", index_name="tiny", works=[second], contact="ada@example.org")
    service.store.opt_outs.create(wanted, LOCAL.actor, hide=True)
    service.visibility.refresh()
    try:
        for work in (second, "hidden_1"):
            assert client.get(f"{page}/works/{work}", headers=HTML).status_code == 404
        answer = client.get(page, headers=HTML).text
        assert re.findall(r'href="/a/[^"]+/works/([^"]+)"', answer) == [first, third]
        beside = client.get(f"{page}/works/{first}", headers=HTML).text
        assert f'rel="next" href="{page}/works/{third}"' in beside
    finally:
        with service.store.database.write() as session:
            session.execute(delete(OptOut))
        service.visibility.refresh()
