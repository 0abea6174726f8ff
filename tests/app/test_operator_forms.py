"""The operator's forms that are refused: what is wrong stands beside its field, and what was typed stays."""

import html
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl

import pytest
from starlette.testclient import TestClient

from app.language import LANGUAGES
from app.service import Service
from jobs.audit import Actor
from jobs.credentials import Scope
from jobs.keys import IssuedKey, NewKey
from jobs.opt_outs import NewOptOut
from jobs.settings import Settings
from jobs.store import JobStore
from tests.app.form_pages import beside, field

OWN = {"Accept": "text/html", "Origin": "http://127.0.0.1:8000"}
DAY = "This isn&#39;t a day: write it as 2026-03-01."
LENGTH = "This isn&#39;t a length of time: write it as 90d, 12h, 30m or 45s."
UNPRINTABLE = "There are control characters in this, which can&#39;t be kept: write it anew."
NO_LINK = "A link can&#39;t run the service: make a key."
TYPED = {
    "name": "x",
    "scope_ask": "yes",
    "indexes": "tiny",
    "rights_holders": "Ada\r\nBob",
    "expires": "90d",
    "quota": "5",
    "keep_uploads": "0",
    "keep_results": "30d",
}


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"api_keys": "required"})


@pytest.fixture
def service(client: TestClient) -> Service:
    service: Service = client.app.state.service  # type: ignore[attr-defined]
    return service


@pytest.fixture
def operator(client: TestClient, service: Service) -> Iterator[IssuedKey]:
    issued = service.keys.create(NewKey(name="The operator", scopes=frozenset({Scope.ADMIN})))
    client.cookies.clear()
    client.post("/sign-in", data={"key": issued.secret}, headers=OWN, follow_redirects=False)
    yield issued
    client.cookies.clear()


def post(client: TestClient, address: str, language: str = "en", **fields: str) -> Any:
    headers = {**OWN, "Accept-Language": language}
    return client.post(address, data=fields, headers=headers, follow_redirects=False)


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("keys?named=%00&state=", {"named": UNPRINTABLE}),
        ("keys?named=" + "x" * 201, {"named": "This is too long: 200 characters at most."}),
        ("keys?named=me&state=none", {"state": "Choose one of these."}),
        ("audit?actor=%00&since=2026-02-01", {"actor": UNPRINTABLE}),
        ("audit?object=" + "x" * 201, {"object": "This is too long: 200 characters at most."}),
        (
            "audit?action=key&since=yesterday&until=2026-02-30",
            {"since": DAY, "until": DAY},
        ),
    ],
)  # fmt: skip
def test_a_filter_that_is_wrong_says_so_beside_its_field_and_shows_nothing(
    client: TestClient, address: str, told: dict[str, str]
) -> None:
    refused = client.get(f"/operator/{address}", headers=OWN)
    assert refused.status_code == 422
    assert beside(refused.text) == told
    first, *_ = told
    assert "autofocus" in field(refused.text, first) or first == "state"
    # What was given stays, and nothing looks as if it had been found.
    for name, value in parse_qsl(address.partition("?")[2]):
        if name not in ("state", "since", "until") and "\0" not in value:
            assert f'value="{value}"' in field(refused.text, name)
    assert 'class="records"' not in refused.text
    found = client.get(f"/operator/{address.partition('?')[0]}", headers=OWN)
    assert found.status_code == 200
    assert 'class="records"' in found.text
    assert beside(found.text) == {}


@pytest.mark.parametrize("code", [code for code in LANGUAGES if code != "en"])
def test_wrong_filters_are_told_in_the_pages_language(
    client: TestClient, operator: IssuedKey, code: str
) -> None:
    headers = {**OWN, "Accept-Language": code}
    for address, name, words in (
        ("audit?since=x", "since", "day"),
        ("keys?state=x", "state", "literal_error"),
    ):
        told = beside(client.get(f"/operator/{address}", headers=headers).text)
        assert {key: html.unescape(text) for key, text in told.items()} == {
            name: LANGUAGES[code](f"mistake.{words}")
        }


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"name": ""}, {"name": "Something has to stand here."}),
        ({"name": " "}, {"name": "Something has to stand here."}),
        ({"name": "x" * 201}, {"name": "This is too long: 200 characters at most."}),
        ({"name": "x\x00"}, {"name": UNPRINTABLE}),
        ({"scope_ask": ""}, {"scopes": "Choose one at least."}),
        ({"scope_admin": "yes", "kind": "link", "indexes": ""}, {"scopes": NO_LINK}),
        (
            {"scope_admin": "yes"},
            {"indexes": "A key that runs the service can&#39;t be kept to some indexes: it could make one for all."},
        ),
        (
            {"scope_admin": "yes", "indexes": "", "works": "5"},
            {"works": "A key that runs the service may be shown every work: leave it empty."},
        ),
        ({"works": "0"}, {"works": "This has to be 1 at least."}),
        ({"works": "some"}, {"works": "This has to be a whole number."}),
        ({"indexes": "none such {n}"}, {"indexes": "There is no index none such {n} here."}),
        ({"indexes": "tiny\n" * 101}, {"indexes": "These are too many: 100 at most."}),
        ({"indexes": "x" * 201}, {"indexes": "This is too long: 200 characters at most."}),
        ({"rights_holders": "x\n" * 21}, {"rights_holders": "These are too many: 20 at most."}),
        ({"rights_holders": "Ada\n" + "x" * 201}, {"rights_holders": "This is too long: 200 characters at most."}),
        ({"expires": "-1"}, {"expires": LENGTH}),
        ({"expires": "٣"}, {"expires": LENGTH}),
        ({"expires": "9" * 300}, {"expires": LENGTH}),
        ({"expires": "0"}, {"expires": "This has to be 1 s at least."}),
        ({"expires": "9999"}, {"expires": "This can be 3,660 days at most."}),
        ({"expires": "999999999d"}, {"expires": "This can be 3,660 days at most."}),
        ({"quota": "0"}, {"quota": "This has to be 1 at least."}),
        ({"quota": "9" * 11}, {"quota": "This has to be 1,000,000,000 at most."}),
        ({"quota": "9" * 300}, {"quota": "This has to be a whole number."}),
        ({"quota": "some"}, {"quota": "This has to be a whole number."}),
        ({"keep_uploads": "soon"}, {"keep_uploads": LENGTH}),
        ({"keep_results": "0"}, {"keep_results": "This has to be 60 s at least."}),
        ({"keep_results": "59s"}, {"keep_results": "This has to be 60 s at least."}),
        (
            {"name": "", "quota": "x", "expires": "x"},
            {"name": "Something has to stand here.", "expires": LENGTH, "quota": "This has to be a whole number."},
        ),
    ],
)  # fmt: skip
def test_each_mistake_stands_beside_its_field_and_the_rest_stays(
    client: TestClient, service: Service, fields: dict[str, str], told: dict[str, str]
) -> None:
    before = len(list(service.keys.each()))
    typed = {**TYPED, **fields}
    refused = post(client, "/operator/keys", **typed)
    assert refused.status_code == 422
    assert beside(refused.text) == told
    first, *_ = told
    assert re.search(rf'<a href="#{first}">', refused.text)
    wrong = refused.text if first == "scopes" else field(refused.text, first)
    assert f'aria-describedby="{first}-wrong' in wrong
    assert refused.text.count(" autofocus") == 1
    for name in ("name", "expires", "quota", "keep_uploads", "keep_results"):
        if typed[name].strip() and "\x00" not in typed[name]:
            assert f'value="{typed[name]}"' in field(refused.text, name)
    assert 'name="scope_ask" value="yes"' + (" checked" if typed["scope_ask"] else "") in refused.text
    assert len(list(service.keys.each())) == before


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize("language", ["de", "fr"])
def test_no_mistake_stays_english(client: TestClient, store: JobStore, language: str) -> None:
    wrong = [
        {"scope_ask": ""}, {"scope_admin": "yes"}, {"scope_admin": "yes", "kind": "link", "indexes": ""},
        {"indexes": "none such"}, {"rights_holders": "x\n" * 21}, {"keep_results": "1s"}, {"expires": "9999"},
        {"name": "", "quota": "x", "expires": "x", "keep_uploads": "x"},
    ]  # fmt: skip
    for fields in wrong:
        refused = post(client, "/operator/keys", language, **{**TYPED, **fields})
        assert refused.status_code == 422
        assert beside(refused.text)
        assert 'lang="en"' not in refused.text.split("<main")[1].split("</main")[0], fields
        english = beside(post(client, "/operator/keys", **{**TYPED, **fields}).text)
        assert not set(beside(refused.text).values()) & set(english.values())
    assert set(LANGUAGES) == {"en", "de", "fr"}


@pytest.mark.usefixtures("operator")
def test_a_replacements_time_is_told_at_its_field(client: TestClient, service: Service) -> None:
    key = service.keys.create(NewKey(name="x", scopes=frozenset({Scope.ASK}))).key
    for odd, said in (("9" * 10, LENGTH), ("-1", LENGTH), ("3661d", "This can be 3,660 days at most.")):
        refused = post(client, f"/operator/keys/{key.id}/rotate", overlap=odd)
        assert (refused.status_code, beside(refused.text)) == (422, {"overlap": said})
        assert f'value="{odd}"' in field(refused.text, "overlap")
    assert post(client, f"/operator/keys/{key.id}/rotate", overlap="12h").status_code == 201


@pytest.mark.usefixtures("operator")
def test_what_a_key_keeps_is_told_of_it(client: TestClient, service: Service) -> None:
    assert post(client, "/operator/keys", **TYPED).status_code == 201
    (key, *_) = service.keys.each()
    told = client.get(f"/operator/keys/{key.id}", headers=OWN).text
    assert "Keeps pictures after their question&#39;s end for</dt><dd>0 seconds<" in told
    assert "Keeps questions after their end for</dt><dd>30 days<" in told
    plain = service.keys.create(NewKey(name="x", scopes=frozenset({Scope.ASK}))).key
    told = client.get(f"/operator/keys/{plain.id}", headers=OWN).text
    assert told.count("as long as the service does") == 2
    shown = client.get("/operator/keys", headers=OWN).text
    assert "until then; empty: 24 hours" in shown
    assert "after its end; empty: 90 days" in shown


@pytest.mark.usefixtures("operator")
def test_a_decision_on_an_opt_out_is_refused_at_its_field(client: TestClient, store: JobStore) -> None:
    wanted = NewOptOut(owner="ada", index_name="tiny", creator="Anna Atkins", contact="c", statement=None)
    made = store.opt_outs.create(wanted, Actor("ada"), hide=False).opt_out
    address = f"/operator/opt-outs/{made.id}"
    for reason, said in ((" ", "Something has to stand here."), ("x" * 1001, "This is too long: ")):
        refused = post(client, f"{address}/reject", reason=reason)
        assert refused.status_code == 422
        assert beside(refused.text)["reason"].startswith(said)
    assert "\nxxx" in refused.text
    assert post(client, f"{address}/verify").status_code == 303
    for fields, told in (
        ({"left_out": "", "removed": ""}, {"left_out": "Give the day of one of the two."}),
        ({"left_out": "2026-13-40"}, {"left_out": "This isn&#39;t a day: write it as 2026-03-01."}),
        (
            {"left_out": "2026-02-03", "removed": "2999-01-01"},
            {"removed": "This lies in the future: say when it was done, once it is."},
        ),
    ):
        refused = post(client, f"{address}/apply", **fields)
        assert (refused.status_code, beside(refused.text)) == (422, told)
        for name, typed in fields.items():
            assert f'value="{typed}"' in field(refused.text, name)
    row = store.opt_outs.get(made.id)
    assert row is not None
    assert row.state == "verified"


@pytest.mark.usefixtures("operator")
def test_one_picture_is_told_in_the_singular(
    client: TestClient, service: Service, store: JobStore, picture: bytes
) -> None:
    def due(language: str) -> list[str]:
        told = client.get("/operator/storage", headers={**OWN, "Accept-Language": language}).text
        return re.findall(r"<dd>([^<]*(?:question|Frage)[^<]*)</dd>", told)

    assert due("en") == ["0 pictures, 0 whole questions"] * 2
    assert due("de") == ["0 Bilder, 0 ganze Fragen"] * 2
    assert due("fr") == ["0 image, 0 question entière"] * 2
    wanted = NewKey(name="x", scopes=frozenset({Scope.ASK}), keep_results=timedelta(minutes=1))
    headers = {"Authorization": f"Bearer {service.keys.create(wanted).secret}"}
    asked = client.post("/v1/attributions", files={"image": ("p.png", picture)}, headers=headers)
    (claimed,) = store.leases.claim("a-worker", 1, [asked.json()["index"]])
    store.leases.fail(claimed.token, "It took too long.", "time-limit")
    assert due("en") == ["1 picture, 1 whole question"] * 2
    assert due("de") == ["1 Bild, 1 ganze Frage"] * 2
    assert due("fr") == ["1 image, 1 question entière"] * 2
