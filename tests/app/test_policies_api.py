"""`/v1/policies`: sent, kept by version, activated, tried, and held against what is stored."""

import json
from pathlib import Path

import pytest

from app.callers import LOCAL
from app.moderation.document import MAX_BYTES
from app.moderation.schemas import BacktestRequest, PolicyForm
from jobs.models import LOCAL_OWNER
from tests.app.conftest import scored

EXAMPLE = Path(__file__).parents[2] / "docs" / "policies" / "publish.yaml"


def simple(name: str, least: float, **changes):
    rule = {"code": "large-share", "outcome": "review", "when": {"top.share": {"at_least": least}}}
    return {"policy": name, "rules": [rule], **changes}


@pytest.fixture
def put(client):
    def put(policy, dry_run=False, status=201):
        response = client.post("/v1/policies", json={"policy": policy, "dry_run": dry_run})
        assert response.status_code == status, response.text
        return response.json()

    return put


@pytest.fixture
def answered(ask, store, client, tiny_index):
    """Ask and have it answered; the answer says that the model made the picture, unless told otherwise."""
    from das.index import AttributionIndex

    index = AttributionIndex.open(tiny_index)

    def answered(verdict="likely", **fields):
        asked = ask(**fields)
        (job,) = store.leases.claim("a-worker", 1, [index.id])
        origin = {"verdict": verdict, "p_value": 0.4, "p_value_re_encoded": 0.5, "references": 100}
        assert store.leases.finish(job.token, {**scored(index, job), "in_model": origin}, {})
        return asked["id"]

    return answered


def test_a_policy_is_sent_as_a_file(client):
    with EXAMPLE.open("rb") as stream:
        response = client.post("/v1/policies", files={"policy": ("publish.yaml", stream)})
    assert response.status_code == 201, response.text
    told = response.json()
    assert response.headers["Location"] == "/v1/policies/publish" == told["links"]["self"]
    assert (told["id"], told["active_version"], told["dry_run_version"]) == ("publish", 1, None)
    assert told["in_words"][0].startswith("known-copy: block, where the copy verdict is copy.")
    assert client.get("/v1/policies/publish").json() == told
    assert [item["id"] for item in client.get("/v1/policies").json()["items"]] == ["publish"]
    # The same again makes no version; as text in a form too.
    again = client.post("/v1/policies", data={"dry_run": "true"}, files={"policy": EXAMPLE.read_bytes()})
    assert again.status_code == 200, again.text
    assert again.json()["newest_version"] == 1


def test_versions_are_kept_tried_and_activated(client, put):
    put(simple("versions", 0.1))
    told = put(simple("versions", 0.2, title="A stricter one"), dry_run=True)
    assert (told["active_version"], told["dry_run_version"], told["newest_version"]) == (1, 2, 2)
    assert (told["version"], told["title"]) == (2, None)
    assert [one["version"] for one in told["versions"]] == [2, 1]
    activated = client.post("/v1/policies/versions/activate", json={"version": 2}).json()
    assert (activated["active_version"], activated["dry_run_version"]) == (2, None)
    assert activated["title"] == "A stricter one"
    old = client.get("/v1/policies/versions", params={"version": 1}).json()
    assert (old["version"], old["document"]["rules"][0]["when"]) == (1, {"top.share": {"at_least": 0.1}})
    tried = client.post("/v1/policies/versions/activate", json={"version": 1, "dry_run": True}).json()
    assert (tried["active_version"], tried["dry_run_version"]) == (2, 1)
    ended = client.post("/v1/policies/versions/activate", json={"dry_run": True}).json()
    assert (ended["active_version"], ended["dry_run_version"]) == (2, None)
    for body, status in (({"version": 9}, 404), ({}, 422), ({"version": 0}, 422), ({"version": "1"}, 422)):
        assert client.post("/v1/policies/versions/activate", json=body).status_code == status
    assert client.get("/v1/policies/versions", params={"version": 9}).status_code == 404
    for unknown in ("none", "A%00", "%F0%9F%A6%8A", "x" * 64):
        assert client.get(f"/v1/policies/{unknown}").status_code == 404
        assert client.post(f"/v1/policies/{unknown}/activate", json={"version": 1}).status_code == 404


def test_a_mistake_is_told_with_pointer_and_line(client):
    text = "policy: p\nrules:\n  - code: a\n    outcome: block\n    when:\n      top.shre: {at_least: 0.1}\n"
    for response in (
        client.post("/v1/policies", files={"policy": ("p.yaml", text)}),
        client.post("/v1/policies", json={"policy": text}),
    ):
        told = response.json()
        assert (response.status_code, told["code"]) == (422, "invalid-request")
        assert told["errors"] == [
            {
                "detail": "isn't known here; is top.share meant? (line 6)",
                "pointer": "/policy/rules/0/when/top.shre",
            }
        ]
        assert "/rules/0/when/top.shre (line 6) isn't known here; is top.share meant?" in told["detail"]
    assert client.get("/v1/policies/p").status_code == 404


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 400, "The body isn't JSON: Expecting value (column 1)."),
        (b"[]", 400, "has to be a JSON object"),
        (b"{", 400, "isn't JSON"),
        (b"\xff", 400, "isn't UTF-8"),
        (b'{"policy": NaN}', 400, "NaN is no number"),
        (b"{}", 422, "policy: Field required"),
        (b'{"policy": {}}', 422, "/policy is missing."),
        (b'{"policy": 1}', 422, "policy"),
        (b'{"policy": {}, "dry_run": "yes"}', 422, "dry_run"),
        (b'{"policy": {}, "colour": 1}', 422, "colour: is not a field of this request; there are policy, dry_run."),
        (b'{"policy": ' + b"[" * 100_000, 400, "levels deep"),
        (b'{"policy": ' + b'{"a":' * 30 + b"1" + b"}" * 31, 400, "levels deep"),
        (json.dumps({"policy": "a: &x [1]\nb: *x"}).encode(), 422, "has an alias"),
        (json.dumps({"policy": "[" * 50_000}).encode(), 422, "levels deep"),
        (json.dumps({"policy": "a" * (MAX_BYTES + 1)}).encode(), 422, "more than 64 KB"),
        (json.dumps({"policy": "a" * 8 * MAX_BYTES}).encode(), 413, "at most 64 KB"),
        (json.dumps({"policy": simple("p", 30)}).encode(), 422, "for 30 % write 0.3"),
    ],
)  # fmt: skip
def test_bodies_that_cannot_be_used(client, body, status, said):
    response = client.post("/v1/policies", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == status, response.text
    assert said in response.json()["detail"]


def test_forms_that_cannot_be_used(client):
    def form(data=None, files=None):
        response = client.post("/v1/policies", data=data, files=files or {"x": b""})
        return response.status_code, response.json()["detail"]

    assert form(files={"policy": b"a: 1", "other": b""})[1].startswith("other: is not a field")
    assert form({"dry_run": "perhaps"}, {"policy": b"a: 1"}) == (422, "dry_run: has to be true or false.")
    assert form({"dry_run": "true"}, {"dry_run": b"true"})[1] == "dry_run: was sent more than once."
    wrong = client.post("/v1/policies", content=b"a: 1", headers={"Content-Type": "application/yaml"})
    assert (wrong.status_code, wrong.headers["Accept"]) == (415, "multipart/form-data, application/json")
    assert PolicyForm.model_fields.keys() == {"policy", "dry_run"}


def test_nobody_sees_anothers_policies(client, put, store):
    put(simple("mine", 0.1))
    assert LOCAL.owner == LOCAL_OWNER
    store.policies.put("somebody", "theirs", simple("theirs", 0.1), "0" * 64, dry_run=False)
    assert client.get("/v1/policies/theirs").status_code == 404
    assert client.post("/v1/policies/theirs/backtest", json={}).status_code == 404
    assert "theirs" not in client.get("/v1/policies").text


def test_a_backtest_holds_a_version_against_the_active_one(client, put, answered):
    put(simple("tested", 0.9))
    put(simple("tested", 0.01), dry_run=True)
    likely, strange = [answered() for _ in range(3)], answered("unlikely")

    told = client.post("/v1/policies/tested/backtest", json={}).json()
    assert (told["version"], told["baseline_version"], told["against"]) == (2, 1, "active")
    assert (told["examined"], told["agreed"]) == (4, 1)
    assert told["table"] == {"clear": {"review": 3}, "indeterminate": {"indeterminate": 1}}
    assert [change["attribution"] for change in told["changed"]] == likely[::-1]
    assert told["changed"][0]["codes"] == ["large-share"]
    assert (told["changed"][0]["baseline"], told["changed"][0]["candidate"]) == ("clear", "review")
    assert told["next_cursor"] is None
    assert strange not in json.dumps(told)

    same = client.post("/v1/policies/tested/backtest", json={"version": 1}).json()
    assert (same["changed"], same["agreed"]) == ([], 4)


def test_a_backtest_is_paged_and_filtered(client, put, answered):
    put(simple("paged", 0.9))
    put(simple("paged", 0.01), dry_run=True)
    ids = [answered() for _ in range(5)]
    seen, cursor = [], None
    while True:
        page = client.post("/v1/policies/paged/backtest", json={"limit": 2, "cursor": cursor}).json()
        assert page["examined"] <= 2
        seen += [change["attribution"] for change in page["changed"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == ids[::-1]
    (served,) = client.get("/v1/indexes").json()["items"]
    for index in (served["id"], served["id"].partition("@")[0]):
        assert client.post("/v1/policies/paged/backtest", json={"index": index}).json()["examined"] == 5
    other = client.post("/v1/policies/paged/backtest", json={"index": "another"}).json()
    assert (other["examined"], other["table"]) == (0, {})
    since = client.get(f"/v1/attributions/{ids[2]}").json()["created_at"]
    late = client.post("/v1/policies/paged/backtest", json={"created_after": since}).json()
    assert late["examined"] == 2


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"version": 9}, 422),
        ({"version": 1.5}, 422),
        ({"limit": 0}, 422),
        ({"limit": 100_000}, 422),
        ({"against": "nothing"}, 422),
        ({"cursor": "dec_1\x00"}, 422),
        ({"cursor": "x"}, 422),
        ({"created_after": "yesterday"}, 422),
        ({"colour": 1}, 422),
    ],
)
def test_a_backtest_that_cannot_be_made(client, put, body, status):
    put(simple("bad", 0.9), status=(client.get("/v1/policies/bad").status_code == 200 and 200) or 201)
    assert client.post("/v1/policies/bad/backtest", json=body).status_code == status
    assert BacktestRequest.model_fields["limit"].default == 200


def test_a_backtest_takes_an_active_version(client, put):
    put(simple("idle", 0.9), dry_run=True)
    response = client.post("/v1/policies/idle/backtest", json={})
    assert (response.status_code, response.json()["code"]) == (409, "conflict")
    assert "No version of idle is active" in response.json()["detail"]
    assert client.post("/v1/policies/idle/backtest", json={"against": "reviews"}).status_code == 200
