"""Shares over HTTP: what a link shows to whoever has it, what it never does, and who makes and ends it."""

import base64
import hashlib
import html
import io
import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from sqlalchemy import delete, event, update
from starlette.testclient import TestClient

from app.callers import LOCAL
from app.catalogue import Catalogue
from app.left_out import PARTS, with_what_leads_there
from app.limiting import Limiter
from app.routes import sharing
from app.service import Service
from app.visibility import Visibility
from das.evidence.attached import attached
from das.evidence.report import pixels_digest
from das.evidence.seal import SigningKey, check_seal, parsed
from das.images import decode_png
from das.index import AttributionIndex
from jobs.audit import AuditFilters
from jobs.credentials import Scope
from jobs.errors import StorageError
from jobs.keys import IssuedKey, NewKey
from jobs.models import utc_now
from jobs.opt_outs import NewOptOut, OptOut
from jobs.settings import Settings
from jobs.shares import Share
from jobs.store import JobStore
from tests.app.conftest import scored
from tests.app.pdf_files import pages

HTML = {"Accept": "text/html"}
LANGUAGES = ("en", "de", "fr")
PROMPT, SEED, TAG = "a harbour that nobody else thought of", "4242424242", "case 7 of the archive"
TOLD_BY_FILE = (
    "another prompt in the file\nNegative prompt: fog and gulls\n"
    "Steps: 23, Sampler: Euler a, CFG scale: 6.5, Seed: 7878787878, Size: 16x16, Model: harbourmodel"
)
IN_FILE = ("another prompt in the file", "fog and gulls", "7878787878", "harbourmodel")


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"api_keys": "required", "contact": "works@example.org"})


@pytest.fixture
def service(client: TestClient, store: JobStore) -> Iterator[Service]:
    service: Service = client.app.state.service  # type: ignore[attr-defined]
    yield service
    with store.database.write() as session:
        session.execute(delete(OptOut))
    service.visibility.refresh()


@pytest.fixture
def index(tiny_index: Any) -> AttributionIndex:
    return AttributionIndex.open(tiny_index)


@pytest.fixture
def make(service: Service) -> Callable[..., IssuedKey]:
    def make(*scopes: Scope, **changes: Any) -> IssuedKey:
        wanted = frozenset(scopes) or frozenset({Scope.ASK, Scope.READ})
        return service.keys.create(NewKey(name="the key of an artist", scopes=wanted, **changes))

    return make


def bearer(issued: IssuedKey) -> dict[str, str]:
    return {"Authorization": f"Bearer {issued.secret}"}


@dataclass
class Asked:
    """An answered question, and what there is to be told of it."""

    client: TestClient
    key: IssuedKey
    id: str
    picture: bytes
    image: bytes
    works: list[dict[str, Any]]
    lookalikes: list[str]
    thumbnails: list[bytes] = field(repr=False)

    @property
    def path(self) -> str:
        return f"/v1/attributions/{self.id}/shares"

    def share(self, **fields: Any) -> dict[str, Any]:
        response = self.client.post(self.path, json=fields, headers=bearer(self.key))
        assert response.status_code == 201, response.text
        return {**response.json(), "at": response.json()["url"].removeprefix("http://127.0.0.1:8000")}


@pytest.fixture
def asked(
    client: TestClient, store: JobStore, make: Callable[..., IssuedKey], index: AttributionIndex
) -> Asked:
    """A picture that says of itself how it was made, answered by all works, and nearly the same as the fourth."""
    info, stream = PngInfo(), io.BytesIO()
    info.add_text("parameters", TOLD_BY_FILE)
    pixels = np.random.default_rng(11).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "png", pnginfo=info)
    picture, key = stream.getvalue(), make()
    fields = {"prompt": PROMPT, "seed": SEED, "client_tag": TAG, "top_k": "6"}
    files = {"image": ("p.png", picture)}
    posted = client.post("/v1/attributions", files=files, data=fields, headers=bearer(key))
    assert posted.status_code == 202, posted.text
    (job,) = store.leases.claim("a-worker", 1, [index.id])
    match = {
        "work_id": index.works.row(3)["id"], "score": 0.97, "method": "pdq", "mirrored": False, "verdict": "copy",
    }  # fmt: skip
    result = scored(index, job)
    result["groups"]["rights_holder"] = result["groups"]["creator"]
    result["copy"] = {"verdict": "copy", "score": 0.97, "method": "pdq", "matches": [match]}
    assert store.leases.finish(job.token, result, {"queue_wait_ms": 1.5, "engine_ms": 2.5, "batch": 1})
    told = client.get(f"/v1/attributions/{job.id}", headers=bearer(key)).json()
    assert told["copy"]["verdict"] == "copy"
    assert told["input"]["declared"]["negative_prompt"] == "fog and gulls"
    rows = [index.works.row_of(work["work_id"]) for work in told["works"]]
    return Asked(
        client=client,
        key=key,
        id=job.id,
        picture=picture,
        image=store.image(job.id),
        works=[index.works.row(row) for row in rows],
        lookalikes=[one["work_id"] for one in told["lookalikes"]],
        thumbnails=[index.thumbnail(row) for row in rows],
    )


def everything(client: TestClient, share: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """All that a share answers with, as text, with where; pictures in base64, as a page would have them."""
    at = share["at"]
    for language in LANGUAGES:
        page = client.get(at, headers={**HTML, "Accept-Language": language})
        assert page.status_code == 200
        yield f"page {language}", page.text
        yield f"page {language}, unescaped", html.unescape(page.text)
        yield "headers", str(page.headers)
    for kind in ("json", "html"):
        report = client.get(f"{at}/report.{kind}")
        assert report.status_code == 200
        yield f"report.{kind}", html.unescape(report.text)
        yield "headers", str(report.headers)
    places = [f"{kind}/{place}" for kind in ("works", "lookalikes") for place in range(1, 14)]
    for path in ("picture", *places):
        found = client.get(f"{at}/{path}")
        assert found.status_code in (200, 404)
        if found.status_code == 200:
            yield path, base64.b64encode(found.content).decode()
        yield "headers", str(found.headers)


def secrets_of(asked: Asked, index: AttributionIndex, left_out: list[str], works: int | None) -> list[str]:
    """What no answer of a share may hold, as patterns."""
    shown = asked.works if works is None else asked.works[:works]
    secrets = [asked.id, TAG, asked.key.key.id, asked.key.key.name, asked.key.key.owner]
    if "settings" in left_out:
        secrets += [PROMPT, SEED, *IN_FILE]
    if "picture" in left_out:
        secrets += [
            base64.b64encode(asked.image).decode(),
            hashlib.sha256(asked.picture).hexdigest(),
            pixels_digest(decode_png(asked.image)),
            "16 × 16",
            '"width":16',
            '"similarity":0',
            "nearly the same as",
        ]
        # What only looks like the picture is named nowhere.
        named = {work["id"] for work in shown}
        secrets += [work_id for work_id in asked.lookalikes if work_id not in named]
    if "thumbnails" in left_out:
        secrets += [base64.b64encode(data).decode() for data in asked.thumbnails]
    hidden = range(len(index.works)) if "creators" in left_out else _cut(index, shown, works)
    for row in hidden:
        about = index.works.row(row)
        secrets += [about["id"], about["digest"], rf"{about['title']}(?!\d)", rf"{about['source_url']}(?!\d)"]
        secrets.append(base64.b64encode(index.thumbnail(row)).decode())
    creators = {work["creator"] for work in shown}
    if "creators" in left_out:
        creators = set()
    if hidden:
        secrets += sorted({str(name) for name in index.works.creators} - creators)
    return [secret if "(?!" in secret else re.escape(secret) for secret in secrets]


def _cut(index: AttributionIndex, shown: list[dict[str, Any]], works: int | None) -> list[int]:
    if works is None:
        return []
    named = {work["id"] for work in shown}
    return [row for row in range(len(index.works)) if index.works.id_of(row) not in named]


@pytest.mark.parametrize("works", [None, 1, 3])
def test_nothing_that_is_left_out_is_in_any_answer_of_a_share(
    client: TestClient, asked: Asked, index: AttributionIndex, works: int | None
) -> None:
    seen = ""
    for chosen in itertools.chain.from_iterable(itertools.combinations(PARTS, n) for n in range(5)):
        share = asked.share(leave_out=list(chosen), works=works)
        assert share["leave_out"] == list(with_what_leads_there([*chosen]))
        secrets = secrets_of(asked, index, share["leave_out"], works)
        for where, text in everything(client, share):
            for secret in secrets:
                assert not re.search(secret, text), (chosen, works, where, secret)
            seen += "" if chosen else text
    # The test looks in the right place: with nothing left out, it is all there, but for what is never told.
    there = [
        PROMPT,
        "fog and gulls",
        "16 × 16",
        "nearly the same as",
        hashlib.sha256(asked.picture).hexdigest(),
    ]
    for work, thumbnail in zip(asked.works[:works], asked.thumbnails, strict=False):
        there += [work["id"], work["digest"], work["title"], work["creator"], work["source_url"]]
        there.append(base64.b64encode(thumbnail).decode())
    for one in there:
        assert one in seen, one


@pytest.mark.parametrize(("leave_out", "works"), [([*PARTS], 2), ([], None)])
def test_the_report_on_paper_leaves_out_the_same(
    client: TestClient, asked: Asked, index: AttributionIndex, leave_out: list[str], works: int | None
) -> None:
    share = asked.share(leave_out=leave_out, works=works)
    response = client.get(f"{share['at']}/report.pdf")
    assert response.headers["content-type"] == "application/pdf"
    inside = attached(response.content, 2**24)
    text = " ".join(pages(response.content)).replace("\n", " ")
    assert inside == client.get(f"{share['at']}/report.json").content
    for secret in secrets_of(asked, index, leave_out, works):
        for where in (text, inside.decode()):
            assert not re.search(secret, where), secret
    assert (PROMPT in text) == (not leave_out)
    if leave_out:
        assert "Whoever did so has left out: the picture" in text
        assert "all works but the first 2" in text
        assert "It is left out, and so is all that could lead to it." in text


def test_its_page_says_what_is_left_out_until_when_and_whom_to_ask(client: TestClient, asked: Asked) -> None:
    share = asked.share(leave_out=["picture", "creators"], works=3, expires_in=3600)
    page = client.get(share["at"], headers=HTML)
    text = html.unescape(page.text)
    assert "The sender has left out:" in text
    for part in (
        "the picture, and all that could lead to it",
        "prompt and seed",
        "the names and titles of works",
    ):
        assert part in text
    assert "all works but the first 3" in text
    assert "works@example.org" in text
    until = datetime.fromisoformat(share["expires_at"])
    assert f"Open until {until.day} " in text
    assert text.count('class="share"') == 3
    assert "A work that isn't shown" in text
    assert "<form" not in page.text, "whoever reads it can do nothing to it"
    assert "<script" not in page.text
    assert "hidden, by opt-outs" not in text, "it was the sender, and nobody else"
    german = html.unescape(client.get(f"{share['at']}?language=de", headers=HTML).text)
    assert "Weggelassen hat, wer sie geschickt hat:" in german
    assert '<html lang="de">' in german
    for wrong in ("xx", "de%00", "d" * 40):
        assert '<html lang="en">' in client.get(f"{share['at']}?language={wrong}", headers=HTML).text
    whole = html.unescape(client.get(asked.share()["at"], headers=HTML).text)
    assert "The sender has left out nothing of the answer." in whole
    for shown in (PROMPT, "Study no. 0", "Ada Lovelace", "fog and gulls", "nearly the same as"):
        assert shown in whole


def test_a_report_says_that_it_was_handed_on_and_is_sealed(
    client: TestClient, service: Service, asked: Asked, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    key = SigningKey.create(tmp_path / "key.pem")
    monkeypatch.setattr(service, "signing_key", key)
    share = asked.share(leave_out=["picture"], works=2)
    response = client.get(f"{share['at']}/report.json")
    assert response.headers["content-disposition"] == f'attachment; filename="{share["id"]}-report.json"'
    document = parsed(response.content)
    assert check_seal(document, key.public) == key.public
    report = document["report"]
    assert report["shared"] == {"left_out": ["picture", "settings"], "works": 2}
    assert report["question"]["id"] == share["id"]
    assert set(report["picture"].values()) == {None}
    assert [work["title"] for work in report["answer"]["works"]] == ["Study no. 0", "Study no. 1"]
    assert {group["name"] for group in report["answer"]["groups"]["creator"]} == {
        "Ada Lovelace", "Anna Atkins", "Withheld",
    }  # fmt: skip
    shares = [group["share"] for group in report["answer"]["groups"]["creator"]]
    assert sum(shares) == pytest.approx(1)
    page = html.unescape(client.get(f"{share['at']}/report.html").text)
    assert "This report was handed on by a link. Whoever did so has left out: the picture" in page
    own = client.get(f"/v1/attributions/{asked.id}/report.json", headers=bearer(asked.key)).json()["report"]
    assert "shared" not in own
    assert own["question"]["id"] == asked.id


def test_pictures_come_by_their_place(client: TestClient, asked: Asked, index: AttributionIndex) -> None:
    share = asked.share(works=2)
    page = client.get(share["at"], headers=HTML).text
    assert re.findall(r'<img class="crisp" src="([^"]+)"', page)[:3] == [
        f"{share['at']}/{path}" for path in ("picture", "works/1", "works/2")
    ]
    assert client.get(f"{share['at']}/picture").content == asked.image
    for place, thumbnail in enumerate(asked.thumbnails[:2], 1):
        found = client.get(f"{share['at']}/works/{place}")
        assert (found.content, found.headers["content-type"]) == (thumbnail, "image/webp")
    assert client.get(f"{share['at']}/works/3").status_code == 404
    for wrong in ("works/0", "works/-1", "works/x", "works/1e3", "lookalikes/99999999999999999999"):
        assert client.get(f"{share['at']}/{wrong}").status_code == 422
    whole = asked.share()
    for place, work_id in enumerate(asked.lookalikes, 1):
        found = client.get(f"{whole['at']}/lookalikes/{place}")
        assert found.content == index.thumbnail(index.works.row_of(work_id))


def test_a_share_leads_to_nothing_else(client: TestClient, asked: Asked) -> None:
    share = asked.share()
    token = share["at"].removeprefix("/s/")
    assert token.startswith("dass_")
    assert share["id"] not in share["url"]
    for path in (
        "events",
        "image",
        "shares",
        "cancel",
        "erase",
        "report.xml",
        "works",
        "works/1/2",
        "..",
        "%2e%2e/",
    ):
        assert client.get(f"{share['at']}/{path}", headers=HTML).status_code in (401, 404), path
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert client.request(method, share["at"]).status_code == 405
    for attempt in (token, share["id"]):
        for path in (f"/v1/attributions/{attempt}", f"/a/{attempt}", f"/v1/attributions/{asked.id}"):
            assert client.get(path).status_code == 401
            assert client.get(path, headers={"Authorization": f"Bearer {attempt}"}).status_code == 401
        assert client.post("/sign-in", data={"key": attempt}).status_code == 401
    for work in asked.works:
        assert client.get(f"/v1/works/{work['id']}/thumbnail").status_code == 401


def answers_of(client: TestClient, token: str) -> list[tuple[int, str, dict[str, str]]]:
    """What a token is answered with, everywhere, without what differs by request."""
    found = []
    for headers in (HTML, {}):
        for path in (
            "",
            "/picture",
            "/works/1",
            "/lookalikes/1",
            "/report.json",
            "/report.html",
            "/report.pdf",
        ):
            response = client.get(f"/s/{token}{path}", headers=headers)
            told = {name: value for name, value in response.headers.items() if name != "x-request-id"}
            text = response.text.replace(token, "TOKEN").replace(response.headers["x-request-id"], "ID")
            told.pop("content-length")
            found.append((response.status_code, text, told))
    return found


def test_whatever_opens_nothing_is_answered_alike(
    client: TestClient, service: Service, store: JobStore, asked: Asked
) -> None:
    revoked, ended = asked.share(), asked.share()
    for share in (revoked, ended):
        assert client.get(share["at"], headers=HTML).status_code == 200
    path = f"{asked.path}/{revoked['id']}"
    assert client.delete(path, headers=bearer(asked.key)).status_code == 204
    with store.database.write() as session:
        over = update(Share).where(Share.id == ended["id"])
        session.execute(over.values(expires_at=utc_now() - timedelta(seconds=1)))
    statements: list[str] = []
    engine = store.database.engine
    listener = lambda *about: statements.append(str(about[2]))  # noqa: E731
    made_up = ["dass_" + 43 * "x", "nothing-of-the-kind", "%00", "%ff", 3000 * "a"]
    tokens = [revoked["at"][3:], ended["at"][3:], *made_up]
    looked = []
    event.listen(engine, "before_cursor_execute", listener)
    try:
        for token in tokens:
            statements.clear()
            answers = answers_of(client, token)
            looked.append([one for one in statements if "shares" in one])
            assert {status for status, _, _ in answers} == {404}
            if token not in ("%00", "%ff"):
                assert answers == answers_of(client, tokens[2]), token
    finally:
        event.remove(engine, "before_cursor_execute", listener)
    assert all(one == looked[0] for one in looked), "each is looked for by the same statements"
    assert len(set(looked[0])) == 1
    page = html.unescape(client.get("/s/x", headers=HTML).text)
    assert "This link opens nothing." in page
    assert "works@example.org" in page


def test_erasing_the_question_ends_its_links(client: TestClient, store: JobStore, asked: Asked) -> None:
    share = asked.share(label="for a lawyer")
    assert client.delete(f"/v1/attributions/{asked.id}", headers=bearer(asked.key)).status_code == 204
    assert client.get(share["at"]).status_code == 404
    assert client.get(asked.path, headers=bearer(asked.key)).status_code == 410
    with store.database.read() as session:
        assert session.get(Share, share["id"]) is None


def test_no_answer_below_it_is_kept_listed_or_told_to_others(client: TestClient, asked: Asked) -> None:
    share = asked.share()
    addresses = [
        share["at"],
        *(f"{share['at']}/{one}" for one in ("picture", "works/1", "report.json", "events")),
    ]
    for address in (*addresses, "/s/x", "/s/x/works/y"):
        for headers in (HTML, {}):
            response = client.get(address, headers=headers)
            assert response.headers["referrer-policy"] == "no-referrer", address
            assert response.headers["cache-control"] == "no-store"
            assert response.headers["x-robots-tag"] == "noindex, nofollow"
            assert "set-cookie" not in response.headers
    assert client.get("/problems").headers["referrer-policy"] == "same-origin"


def test_lookups_are_held_to_what_an_address_may_do(
    client: TestClient, service: Service, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = service.settings.model_copy(update={"address_rate_limit": "3/day", "redis_url": None})
    limiter = Limiter(few)
    monkeypatch.setattr(service.access, "_limiter", limiter)
    statuses = [client.get(f"/s/{place}").status_code for place in range(4)]
    assert statuses[-1] == 429
    refused = client.get(asked.share()["at"])
    assert (refused.status_code, refused.json()["code"]) == (429, "rate-limited")
    assert refused.headers["referrer-policy"] == "no-referrer"


def test_its_owner_is_told_how_often_it_was_opened(client: TestClient, asked: Asked) -> None:
    share, other = asked.share(label="one"), asked.share()
    assert (share["views"], share["last_viewed_at"], share["state"]) == (0, None, "open")
    for path in ("", "", "/report.json", "/picture", "/works/1"):
        assert client.get(share["at"] + path).status_code == 200
    listed = client.get(asked.path, headers=bearer(asked.key)).json()["items"]
    assert [one["id"] for one in listed] == [other["id"], share["id"]]
    assert [one["views"] for one in listed] == [0, 3]
    assert listed[1]["label"] == "one"
    assert datetime.fromisoformat(listed[1]["last_viewed_at"]) <= utc_now()
    assert "url" not in listed[1]
    assert share["url"].rpartition("/")[2] not in str(listed)


def test_who_makes_and_ends_one(
    client: TestClient, service: Service, asked: Asked, make: Callable[..., IssuedKey]
) -> None:
    eve = make()
    share = asked.share()
    attempts = [("POST", asked.path), ("GET", asked.path), ("DELETE", f"{asked.path}/{share['id']}"),
                ("GET", f"/a/{asked.id}/shares"), ("POST", f"/a/{asked.id}/shares/{share['id']}/revoke")]  # fmt: skip
    for method, path in attempts:
        assert client.request(method, path, headers=bearer(eve)).status_code == 404, path
        assert client.request(method, path).status_code == 401
    form = client.post(f"/a/{asked.id}/shares", data={"works": "1"}, headers=bearer(eve))
    assert form.status_code == 404
    assert client.get(share["at"]).status_code == 200
    # Who may only ask would read the answer by it; who may only read doesn't hand it on.
    ask_only, read_only = make(Scope.ASK), make(Scope.READ)
    for one in (ask_only, read_only):
        refused = client.post(asked.path, json={}, headers=bearer(one))
        assert (refused.status_code, refused.json()["code"]) == (403, "scope-missing")
    assert client.delete(f"{asked.path}/{share['id']}", headers=bearer(read_only)).status_code == 403
    for _ in range(2):
        assert client.delete(f"{asked.path}/{share['id']}", headers=bearer(asked.key)).status_code == 204
    assert client.get(share["at"]).status_code == 404
    (listed,) = client.get(asked.path, headers=bearer(asked.key)).json()["items"]
    assert (listed["state"], listed["revoked_at"] is None) == ("revoked", False)
    events = service.store.audit.list(AuditFilters(object=share["id"])).events
    assert [(one.action, one.actor) for one in reversed(events)] == [
        ("share.created", asked.key.key.prefix), ("share.revoked", asked.key.key.prefix),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "pointer", "why"),
    [
        ({"leave_out": ["name"]}, "/leave_out/0", "picture"),
        ({"leave_out": "picture"}, "/leave_out", "list"),
        ({"works": 0}, "/works", "greater than or equal to 1"),
        ({"works": True}, "/works", "integer"),
        ({"works": "3"}, "/works", "integer"),
        ({"expires_in": 0}, "/expires_in", "greater than or equal to 1"),
        ({"expires_in": 366 * 86400}, "/expires_in", "less than or equal"),
        ({"expires_in": 10, "expires_at": "2100-01-01T00:00:00Z"}, "/expires_at", "one of them"),
        ({"expires_at": "2001-01-01T00:00:00Z"}, "/expires_at", "is over already"),
        ({"expires_at": "tomorrow"}, "/expires_at", "RFC 3339"),
        ({"label": "a\x00"}, "/label", "control characters"),
        ({"label": 201 * "a"}, "/label", "at most 200"),
        ({"hide": ["picture"]}, "/hide", "leave_out"),
    ],
)
def test_what_cant_be_asked_for(
    client: TestClient, asked: Asked, fields: dict[str, Any], pointer: str, why: str
) -> None:
    refused = client.post(asked.path, json=fields, headers=bearer(asked.key))
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == pointer
    assert why in refused.json()["detail"]
    assert client.get(asked.path, headers=bearer(asked.key)).json() == {"items": []}


def test_only_an_answer_is_shared_and_for_a_year_at_most(
    client: TestClient, asked: Asked, picture: bytes
) -> None:
    files = {"image": ("p.png", picture)}
    queued = client.post("/v1/attributions", files=files, headers=bearer(asked.key)).json()["id"]
    refused = client.post(f"/v1/attributions/{queued}/shares", json={}, headers=bearer(asked.key))
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert "the question is queued" in refused.json()["detail"]
    far = (utc_now() + timedelta(days=400)).isoformat()
    refused = client.post(asked.path, json={"expires_at": far}, headers=bearer(asked.key))
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert "365 days at most" in refused.json()["detail"]
    share = asked.share(expires_in=300 * 86400)
    ends = client.get(f"/v1/attributions/{asked.id}", headers=bearer(asked.key)).json()["expires_at"]
    assert share["expires_at"] == ends, "the answer is gone by then"


def test_works_that_are_hidden_from_who_opens_it_stay_hidden(
    client: TestClient,
    service: Service,
    asked: Asked,
    index: AttributionIndex,
    make: Callable[..., IssuedKey],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    share = asked.share()
    wanted = NewOptOut(
        owner="local", index_name="tiny", works=[asked.works[1]["id"]], contact="a@example.org"
    )
    service.store.opt_outs.create(wanted, LOCAL.actor, hide=True)
    service.visibility.refresh()
    for where, text in everything(client, share):
        assert asked.works[1]["id"] not in text, where
        assert not re.search(r"Study no. 1(?!\d)", text), where
        assert base64.b64encode(asked.thumbnails[1]).decode() not in text
    page = html.unescape(client.get(share["at"], headers=HTML).text)
    assert "1 of the works named here is hidden, by opt-outs" in page
    assert client.get(f"{share['at']}/works/2").status_code == 404

    # For who shows a key alone: whoever opens it without one sees no name, and who has one does.
    signed_in = service.settings.model_copy(update={"work_visibility": "signed-in"})
    visibility = Visibility(signed_in, service.catalogue, service.store.opt_outs, service.budgets)
    monkeypatch.setattr(service, "visibility", visibility)
    assert "Study no." not in client.get(share["at"], headers=HTML).text
    assert client.get(f"{share['at']}/works/1").status_code == 404
    moderator = make(Scope.DECIDE)
    assert "Study no. 0" in client.get(share["at"], headers={**HTML, **bearer(moderator)}).text
    assert client.get(f"{share['at']}/works/1", headers=bearer(moderator)).content == asked.thumbnails[0]
    (read,) = service.store.audit.list(AuditFilters(action="thumbnail.read")).events[:1]
    assert (read.actor, read.object) == (moderator.key.prefix, asked.works[0]["id"])
    wrong = client.get(share["at"], headers={"Authorization": "Bearer das_wrong"})
    assert wrong.status_code == 401


def test_an_index_that_isnt_served_any_more_is_said(
    client: TestClient, service: Service, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    share = asked.share(leave_out=["creators"])
    monkeypatch.setattr(service, "catalogue", Catalogue([], "none is there"))
    for path in ("", "/report.json", "/works/1"):
        refused = client.get(share["at"] + path)
        assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
        assert "isn't served here any more" in refused.json()["detail"]
    assert client.post(asked.path, json={}, headers=bearer(asked.key)).status_code == 409


def test_without_javascript_a_form_makes_lists_and_ends_links(client: TestClient, asked: Asked) -> None:
    own = {**HTML, **bearer(asked.key)}
    page = client.get(f"/a/{asked.id}", headers=own).text
    assert f'href="/a/{asked.id}/shares"' in page
    empty = client.get(f"/a/{asked.id}/shares", headers=own)
    assert "No link to this answer is open." in html.unescape(empty.text)
    fields = {"creators": "yes", "works": "2", "days": "7", "label": "<b>A lawyer</b>"}
    made = client.post(f"/a/{asked.id}/shares", data=fields, headers=own)
    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    (link,) = re.findall(r'<code id="share-link"[^>]*>([^<]+)</code>', made.text)
    at = link.removeprefix("http://127.0.0.1:8000")
    shared = html.unescape(client.get(at, headers=HTML).text)
    assert "all works but the first 2" in shared
    assert "Ada Lovelace" not in shared
    again = client.get(f"/a/{asked.id}/shares", headers=own)
    assert again.headers["cache-control"] == "no-store"
    assert at not in again.text, "it is shown once"
    text = html.unescape(again.text)
    assert "<b>" not in again.text
    assert "<b>A lawyer</b>" in text
    assert "Opened 1 time, last on " in text
    assert (
        "Left out: the names and titles of works, and all that leads to them; the works' pictures; all works"
        in text
    )
    (revoke,) = re.findall(r'action="(/a/[^"]+/revoke)"', again.text)
    done = client.post(revoke, headers=own, follow_redirects=False)
    assert (done.status_code, done.headers["location"]) == (303, f"/a/{asked.id}/shares")
    assert client.get(at, headers=HTML).status_code == 404
    assert "/revoke" not in client.get(f"/a/{asked.id}/shares", headers=own).text
    for language, word in (("de", "Weglassen"), ("fr", "Laisser de côté")):
        assert word in client.get(f"/a/{asked.id}/shares", headers={**own, "Accept-Language": language}).text


@pytest.mark.parametrize(
    ("fields", "why"),
    [({"works": "many"}, "works"), ({"works": "0"}, "works"), ({"days": "1000"}, "days"),
     ({"days": "-1"}, "days"), ({"label": 201 * "a"}, "label")],
)  # fmt: skip
def test_the_form_says_what_is_wrong_and_keeps_the_rest(
    client: TestClient, asked: Asked, fields: dict[str, str], why: str
) -> None:
    own = {**HTML, **bearer(asked.key)}
    refused = client.post(f"/a/{asked.id}/shares", data={"picture": "yes", **fields}, headers=own)
    assert refused.status_code == 422
    assert f'<a href="#{why}">' in refused.text
    assert re.search(rf'<p class="mistake" id="{why}-wrong">[^<]+</p>', refused.text)
    assert 'name="picture" value="yes" checked' in refused.text
    assert client.get(asked.path, headers=bearer(asked.key)).json() == {"items": []}
    assert sharing.LENGTHS == (1, 7, 30, 90, 365)


@pytest.mark.parametrize("field", ["works", "days"])
@pytest.mark.parametrize("text", ["9" * 5000, "9" * 11, "-1", "1.5", "٣"])
def test_numbers_that_nobody_means_are_refused_at_their_field(
    client: TestClient, asked: Asked, field: str, text: str
) -> None:
    refused = client.post(
        f"/a/{asked.id}/shares", data={field: text}, headers={**bearer(asked.key), "Accept": "text/html"}
    )
    assert refused.status_code == 422
    assert f'name="{field}"' in refused.text
    assert 'aria-invalid="true"' in refused.text


def test_an_answer_is_shown_also_where_the_look_at_it_cannot_be_counted(
    client: TestClient, asked: Asked, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    share = asked.share()

    def full(_share_id: str) -> None:
        raise StorageError("the database can't be written: no space left on the device")

    monkeypatch.setattr(service.store.shares, "count_view", full)
    assert client.get(share["at"]).status_code == 200
