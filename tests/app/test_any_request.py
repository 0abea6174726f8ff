"""Values of every kind in every place of a request: each is taken or refused, none breaks the service."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.schemas import AttributionRequest, ListQuery
from tests.app.any_values import JSON, RAW, TEXT, encoded

FIELDS = sorted(AttributionRequest.model_fields)
EXAMPLES = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(autouse=True)
def nothing_is_left(store):
    """The store is emptied after a test."""
    return store


@EXAMPLES
@given(
    fields=st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=8), JSON, max_size=4),
    raw=RAW | st.none(),
)
def test_json(client, fields, raw):
    body = json.dumps({"image_base64": "", **fields})
    if raw is not None:
        body = body[:-1] + f', "seed": {raw}}}'
    response = client.post(
        "/v1/attributions", content=body.encode(), headers={"Content-Type": "application/json"}
    )
    assert response.status_code in (400, 422), (body, response.text)
    assert response.json()["request_id"]


@EXAMPLES
@given(
    fields=st.dictionaries(st.sampled_from(FIELDS), TEXT, max_size=3),
    charset=st.sampled_from(["", "; charset=utf-16", "; charset=idna", "; charset=hex"]),
)
def test_forms(client, fields, charset):
    parts = [
        b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
        % (name.encode(), value.encode("utf-8", "surrogatepass"))
        for name, value in fields.items()
    ]
    file = b'--b\r\nContent-Disposition: form-data; name="image"; filename="p"\r\n\r\n\r\n--b--\r\n'
    media = {"Content-Type": f"multipart/form-data; boundary=b{charset}"}
    for path in ("/v1/attributions", "/ask"):
        response = client.post(path, content=b"".join(parts) + file, headers=media)
        assert response.status_code in (400, 422), response.text


@EXAMPLES
@given(
    query=st.dictionaries(
        st.sampled_from(sorted(ListQuery.model_fields)) | st.text(max_size=5), TEXT, max_size=3
    )
)
def test_the_lists_query(client, query):
    text = "&".join(f"{encoded(name)}={encoded(value)}" for name, value in query.items())
    assert client.get(f"/v1/attributions?{text}").status_code in (200, 422)


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00%2B23:59", "9999-12-31T23:59:59-23:59"])
def test_moments_at_the_ends_of_time(client, moment):
    assert client.get(f"/v1/attributions?created_after={moment}").status_code == 422


@EXAMPLES
@given(name=TEXT, query=TEXT)
def test_addresses(client, name, query):
    for path in (
        f"/v1/attributions/{encoded(name)}?wait={encoded(query)}",
        f"/v1/attributions/{encoded(name)}/events",
        f"/v1/works/{encoded(name)}?index={encoded(query)}",
        f"/v1/works/{encoded(name)}/thumbnail",
        f"/v1/indexes/{encoded(name)}",
        f"/a/{encoded(name)}?wait={encoded(query)}",
        f"/samples/{encoded(name)}",
        f"/static/{encoded(name)}",
    ):
        assert client.get(path).status_code < 500, path


@EXAMPLES
@given(value=st.binary(max_size=40).filter(lambda data: not set(data) & {0, 10, 13}))
def test_headers(client, value):
    for name in (
        "Prefer",
        "If-None-Match",
        "Accept",
        "X-Request-Id",
        "Content-Length",
        "Content-Type",
        "Origin",
    ):
        response = client.get("/v1/attributions", headers=[(name.encode(), value)])
        assert response.status_code == 200, name
        assert client.post("/samples", headers=[(name.encode(), value)]).status_code < 500, name


@EXAMPLES
@given(values=st.lists(st.binary(max_size=300).filter(lambda data: not set(data) & {0, 10, 13}), max_size=2))
def test_idempotency_keys(client, values):
    """With a body that is refused, so that nothing is asked."""
    headers = [(b"Idempotency-Key", value) for value in values]
    response = client.post("/v1/attributions", json={"image_base64": ""}, headers=headers)
    assert response.status_code in (415, 422), response.text


@EXAMPLES
@given(url=TEXT | st.text(max_size=30).map("https://{}".format) | st.ip_addresses().map("https://{}/".format))
def test_addresses_of_pictures(client, url, monkeypatch):
    async def nowhere(*_):
        raise OSError

    monkeypatch.setattr(client.app.state.service.connector, "_resolve", nowhere)
    monkeypatch.setattr("app.addresses.is_public", lambda address: False)
    body = json.dumps({"image_url": url}).encode()
    response = client.post("/v1/attributions", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 422, response.text
    assert response.json()["code"] in ("address-refused", "invalid-request")
