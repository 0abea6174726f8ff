"""Requests that nobody should send. Each gets its status and its sentence, and leaves nothing behind."""

import base64
import json

import anyio
import pytest
from starlette.requests import Request

from app.problems import Problem
from app.uploads import upload

BOUNDARY = "a-boundary"


def form(*parts: tuple[str, bytes]) -> bytes:
    """A multipart body of parts given as their Content-Disposition parameters and their bytes."""
    body = b""
    for disposition, data in parts:
        body += (
            f"--{BOUNDARY}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n".encode() + data + b"\r\n"
        )
    return body + f"--{BOUNDARY}--\r\n".encode()


def post_form(client, body: bytes):
    return client.post(
        "/v1/attributions",
        content=body,
        headers={"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"},
    )


def assert_problem(response, status: int, code: str) -> dict:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["code"] == code
    assert problem["type"] == f"/problems#{code}"
    assert problem["status"] == status
    assert problem["request_id"] == response.headers["x-request-id"]
    assert problem["detail"]
    return problem


@pytest.fixture(autouse=True)
def nothing_is_kept(store):
    yield
    assert store.list().jobs == []


@pytest.mark.parametrize(
    ("data", "status", "reason"),
    [
        (b"", 422, "empty"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "svg"),
        (b"<!doctype html><script>alert(1)</script>", 415, "not-an-image"),
        (b"%PDF-1.7 and so on", 415, "not-an-image"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, 422, None),
    ],
)
def test_what_isnt_a_picture_is_refused_by_its_content(client, data, status, reason):
    response = client.post("/v1/attributions", files={"image": ("holiday.png", data, "image/png")})
    problem = response.json()
    assert response.status_code == status, problem
    assert problem["reason"] == reason or reason is None
    assert problem["request_id"]


@pytest.mark.parametrize(
    "content_type", ["text/plain", "image/png", "application/x-www-form-urlencoded", "", "x"]
)
def test_another_content_type_is_told_what_to_send(client, picture, content_type):
    response = client.post("/v1/attributions", content=picture, headers={"Content-Type": content_type})
    problem = assert_problem(response, 415, "unsupported-media-type")
    assert "multipart/form-data" in problem["detail"]


@pytest.mark.parametrize("length", [None, b"5", b"30000000"], ids=["unannounced", "lying", "announced"])
@pytest.mark.parametrize("kind", ["multipart", "json"])
def test_an_endless_upload_is_cut_off(client, kind, length):
    chunk, limit, received = b"A" * 65536, 300_000, 0
    media = f"multipart/form-data; boundary={BOUNDARY}" if kind == "multipart" else "application/json"
    head = form(('name="image"; filename="x"', b""))[: -len(BOUNDARY) - 8]

    async def receive():
        nonlocal received
        received += len(chunk)
        first = received == len(chunk)
        return {
            "type": "http.request",
            "body": head if first and kind == "multipart" else chunk,
            "more_body": True,
        }

    headers = [(b"content-type", media.encode()), *([(b"content-length", length)] if length else [])]
    request = Request({"type": "http", "method": "POST", "headers": headers}, receive)

    async def read():
        async with upload(client.app.state.service, request):
            pass

    with pytest.raises(Problem) as refused:
        anyio.run(read)
    assert refused.value.code == "too-large"
    assert "0.3 MB" in refused.value.detail
    assert received <= 2 * limit if length != b"30000000" else received == 0


def test_an_image_just_over_the_limit_is_too_large(client, settings):
    data = b"\x89PNG\r\n\x1a\n" + b"\0" * settings.max_upload_bytes
    assert_problem(client.post("/v1/attributions", files={"image": ("p.png", data)}), 413, "too-large")
    encoded = base64.b64encode(data).decode()
    assert_problem(client.post("/v1/attributions", json={"image_base64": encoded}), 413, "too-large")


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"top_k": "0"}, "/top_k"),
        ({"top_k": "1001"}, "/top_k"),
        ({"top_k": "999999999999999999999999"}, "/top_k"),
        ({"top_k": "many"}, "/top_k"),
        ({"candidates": "0"}, "/candidates"),
        ({"candidates": "-3"}, "/candidates"),
        ({"candidates": "1e3"}, "/candidates"),
        ({"candidates": "some"}, "/candidates"),
        ({"method": "trak"}, "/method"),
        ({"index": "nowhere@000000"}, "/index"),
        ({"index": "../../etc/passwd"}, "/index"),
        ({"client_tag": "a\x00b"}, "/client_tag"),
        ({"client_tag": "x" * 201}, "/client_tag"),
        ({"prompt": "x" * 4001}, "/prompt"),
        ({"image_url": "http://127.0.0.1/"}, "/image_url"),
        ({"webhook_url": "https://example.org/"}, "/webhook_url"),
        ({"a/b~c": "1"}, "/a~1b~0c"),
    ],
)
def test_a_field_that_cant_be_used_is_pointed_at(client, picture, fields, pointer):
    by_form = client.post("/v1/attributions", files={"image": ("p.png", picture)}, data=fields)
    problem = assert_problem(by_form, 422, "invalid-request")
    # Where two fields exclude each other both are pointed at.
    others = ["/image"] if pointer == "/image_url" else []
    assert [error["pointer"] for error in problem["errors"]] == [pointer, *others]
    by_json = client.post(
        "/v1/attributions", json={"image_base64": base64.b64encode(picture).decode(), **fields}
    )
    errors = assert_problem(by_json, 422, "invalid-request")["errors"]
    named_alike = json.loads(json.dumps(errors).replace("/image_base64", "/image"))
    assert named_alike == problem["errors"]


def test_every_wrong_field_is_pointed_at(client, picture):
    fields = {"top_k": "x", "method": "y", "colour": "z"}
    problem = client.post("/v1/attributions", files={"image": ("p.png", picture)}, data=fields).json()
    assert {error["pointer"] for error in problem["errors"]} == {"/top_k", "/method", "/colour"}


@pytest.mark.parametrize(
    ("parts", "status", "code", "says"),
    [
        ([('name="top_k"', b"3")], 422, "invalid-request", "image"),
        ([('name="image"', b"not a file")], 422, "invalid-request", "filename"),
        (
            [('name="image"; filename="a"', b"1"), ('name="image"; filename="b"', b"2")],
            422, "invalid-request", "once",
        ),
        ([('name="image"; filename="a"', b"1"), ('name="x"; filename="b"', b"2")], 422, "invalid-request", "file"),
        (
            [('name="image"; filename="a"', b"1"), ('name="top_k"', b"1"), ('name="top_k"', b"2")],
            422, "invalid-request", "once",
        ),
        ([('name="image"; filename="a"', b"1")] * 3, 422, "invalid-request", "once"),
        ([(f'name="f{i}"', b"1") for i in range(50)], 400, "malformed-body", "fields"),
        ([('name="prompt"', b"x" * 20_000)], 400, "malformed-body", "size"),
        ([("filename=nothing", b"1")], 400, "malformed-body", "name"),
    ],
)  # fmt: skip
def test_forms_out_of_order(client, parts, status, code, says):
    assert says in assert_problem(post_form(client, form(*parts)), status, code)["detail"]


def test_a_form_that_breaks_off_or_has_no_boundary(client, picture):
    assert_problem(
        post_form(client, form(('name="image"; filename="p"', picture))[:-60]), 422, "invalid-request"
    )
    response = client.post("/v1/attributions", content=b"x", headers={"Content-Type": "multipart/form-data"})
    assert_problem(response, 400, "malformed-body")
    assert_problem(post_form(client, b"no boundary in here"), 400, "malformed-body")


@pytest.mark.parametrize(
    ("body", "status", "code", "says"),
    [
        (b"{", 400, "malformed-body", "line 1"),
        (b"\xff\xfe\x00", 400, "malformed-body", "UTF-8"),
        (b"[" * 900 + b"]" * 900, 400, "malformed-body", "nested"),
        (b"[" * 60_000, 422, "invalid-request", "many"),
        (b"[]", 422, "invalid-request", "object"),
        (b"{}", 422, "invalid-request", "image_base64"),
        (b'{"image_base64": 5}', 422, "invalid-request", "image_base64"),
        (b'{"image_base64": "data:image/png;base64,AAAA"}', 422, "invalid-request", "base64"),
        ('{"image_base64": "äöü="}'.encode(), 422, "invalid-request", "base64"),
        (b'{"image_base64": "AAAA", "image_base64": "AAAA"}', 422, "invalid-request", "once"),
        (b'{"image_base64": ""}', 422, "image-refused", "empty"),
        (b'{"image_base64": "", "client_tag": "\\ud800"}', 422, "invalid-request", "surrogates"),
    ],
)
def test_json_out_of_order(client, body, status, code, says):
    response = client.post("/v1/attributions", content=body, headers={"Content-Type": "application/json"})
    assert says in assert_problem(response, status, code)["detail"]


@pytest.mark.parametrize(
    "attribution_id",
    [
        "att_0",
        "att_" + "0" * 32,
        "..%2f..%2fetc%2fpasswd",
        "%00",
        "att_%00",
        "a" * 65,
        "%f0%9f%92%a3",
        "'; drop table jobs",
    ],
)
def test_ids_that_were_never_given(client, attribution_id):
    for method, suffix in (("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/image")):
        response = client.request(method, f"/v1/attributions/{attribution_id}{suffix}")
        assert response.status_code in (404, 422), response.text
        assert response.json()["code"] in ("not-found", "invalid-request")


@pytest.mark.parametrize(
    "path", ["w_0", "..%2f..%2fmanifest.json", "%00", "w_0/thumbnail", "%2e%2e/thumbnail"]
)
def test_works_that_arent_there(client, path):
    assert client.get(f"/v1/works/{path}").status_code == 404


@pytest.mark.parametrize(
    "path",
    ["/static/../main.py", "/static/%2e%2e/main.py", "/samples/..%2fsamples.json", "/samples/samples.json"],
)
def test_no_path_leads_out_of_what_is_offered(client, path):
    assert client.get(path).status_code == 404


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ("wait=-1", "wait"), ("wait=31", "wait"), ("wait=nan", "wait"), ("wait=inf", "wait"), ("wait=x", "wait"),
    ],
)  # fmt: skip
def test_a_wait_that_cant_be(client, query, where):
    problem = assert_problem(client.get(f"/v1/attributions/att_0?{query}"), 422, "invalid-request")
    assert problem["errors"][0]["parameter"] == where


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=101",
        "state=lost",
        "cursor=xyz",
        "created_after=now",
        "created_after=0.5",
        "created_after=2026-01-01T00:00:00",
        "sate=queued",
        "client_tag=%00",
    ],
)
def test_a_list_that_cant_be(client, query):
    problem = assert_problem(client.get(f"/v1/attributions?{query}"), 422, "invalid-request")
    assert problem["errors"][0]["parameter"] == query.partition("=")[0]


def test_methods_that_arent_there(client):
    response = client.put("/v1/attributions", json={})
    assert_problem(response, 405, "method-not-allowed")
    assert response.headers["allow"] == "GET, POST"
    assert_problem(client.get("/v1/nothing"), 404, "not-found")


def test_an_unexpected_error_tells_nothing(client, monkeypatch):
    service = client.app.state.service

    def broken(*_args):
        raise RuntimeError("the secret plan")

    monkeypatch.setattr(service.near, "standing", broken)
    response = client.get("/v1/attributions/att_" + 32 * "0", headers={"X-Request-Id": "mine-1"})
    problem = assert_problem(response, 500, "internal-error")
    assert problem["request_id"] == "mine-1"
    assert "secret" not in response.text
    assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("given", ["a b", "x" * 129, "ä", "<script>", ""])
def test_a_request_id_that_cant_be_believed_is_replaced(client, given):
    told = client.get("/healthz", headers={"X-Request-Id": given.encode()}).headers["x-request-id"]
    assert told.startswith("req_")


def test_problem_documents_parse_as_json_with_their_own_type(client):
    response = client.get("/v1/attributions/att_0", headers={"Accept": "text/html"})
    assert json.loads(response.text)["instance"] == "/v1/attributions/att_0"
