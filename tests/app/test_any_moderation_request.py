"""Values of every kind in every place of a request about policies and decisions: taken or refused, never a 500."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.moderation.schemas import Activation, BacktestRequest, DecisionQuery, DecisionRequest, ReviewRequest
from tests.app.any_values import JSON, RAW, TEXT, encoded

EXAMPLES = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
POSTS = {
    "/v1/policies": {"policy", "dry_run"},
    "/v1/policies/any/activate": Activation.model_fields,
    "/v1/policies/any/backtest": BacktestRequest.model_fields,
    "/v1/decisions": DecisionRequest.model_fields,
    "/v1/decisions/dec_0/review": ReviewRequest.model_fields,
}
REFUSED = (400, 404, 409, 413, 422)


@pytest.fixture(autouse=True)
def a_policy(client, store):
    rules = [{"code": "a", "outcome": "review", "when": {"top.share": {"above": 0.5}}}]
    client.post("/v1/policies", json={"policy": {"policy": "any", "rules": rules}})


@EXAMPLES
@given(data=st.data(), raw=RAW | st.none(), path=st.sampled_from(sorted(POSTS)))
def test_bodies(client, data, raw, path):
    fields = data.draw(
        st.dictionaries(st.sampled_from(sorted(POSTS[path])) | st.text(max_size=8), JSON, max_size=4)
    )
    body = json.dumps(fields)
    if raw is not None:
        body = '{"version": ' + raw + "}"
    response = client.post(path, content=body.encode(), headers={"Content-Type": "application/json"})
    assert response.status_code in REFUSED or (response.status_code == 200 and "any" in path), (
        body,
        response.text,
    )
    assert "request_id" in response.json() or response.status_code == 200


@EXAMPLES
@given(
    query=st.dictionaries(
        st.sampled_from(sorted(DecisionQuery.model_fields)) | st.text(max_size=5), TEXT, max_size=3
    )
)
def test_the_lists_query(client, query):
    text = "&".join(f"{encoded(name)}={encoded(value)}" for name, value in query.items())
    assert client.get(f"/v1/decisions?{text}").status_code in (200, 422)


@EXAMPLES
@given(name=TEXT, query=TEXT)
def test_addresses(client, name, query):
    for path in (
        f"/v1/decisions/{encoded(name)}?wait={encoded(query)}",
        f"/v1/policies/{encoded(name)}?version={encoded(query)}",
    ):
        assert client.get(path).status_code < 500, path
    assert client.post(f"/v1/policies/{encoded(name)}/backtest", json={}).status_code < 500


@EXAMPLES
@given(st.text("abc:{}[]-\n \"'&*!|>#,.12", max_size=80) | st.binary(max_size=60))
def test_policies_as_files(client, policy):
    response = client.post("/v1/policies", files={"policy": ("p", policy)})
    assert response.status_code in (400, 422), response.text
