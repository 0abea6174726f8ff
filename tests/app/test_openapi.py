"""The API's description: its examples are valid, and a client that is generated from it can ask."""

import base64
import importlib
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from app import descriptions
from app.openapi import SNAPSHOT
from das.images import normalise

DOCUMENT = json.loads(SNAPSHOT.read_text(encoding="utf-8"))


def resolved(entry):
    """What an example's reference leads to, or itself."""
    for key in entry.get("$ref", "#").split("/")[1:]:
        entry = DOCUMENT[key] if key == "components" else entry[key]
    return entry


def examples(part, path=()):
    """Every example beside a schema, and every schema's own, with its place in the document."""
    if isinstance(part, dict):
        if isinstance(part.get("schema"), dict):
            found = [part["example"]] if "example" in part else []
            found += [resolved(entry)["value"] for entry in (part.get("examples") or {}).values()]
            yield from (("/".join(path), part["schema"], example) for example in found)
        if isinstance(part.get("examples"), list):
            schema = {key: value for key, value in part.items() if key != "examples"}
            yield from (("/".join(path), schema, example) for example in part["examples"])
        for key, value in part.items():
            yield from examples(value, (*path, str(key)))
    elif isinstance(part, list):
        for number, value in enumerate(part):
            yield from examples(value, (*path, str(number)))


EXAMPLES = list(examples(DOCUMENT))


def errors(schema, example):
    """What is wrong with an example, with the document's components at hand."""
    return [error.message for error in Draft202012Validator({**DOCUMENT, **schema}).iter_errors(example)]


def body_schema(media):
    return DOCUMENT["paths"]["/v1/attributions"]["post"]["requestBody"]["content"][media]["schema"]


def test_there_are_examples_of_all_kinds():
    assert len(EXAMPLES) > 60


@pytest.mark.parametrize(("schema", "example"), [pytest.param(s, e, id=place) for place, s, e in EXAMPLES])
def test_every_example_is_valid(schema, example):
    assert errors(schema, example) == []


def test_a_valid_request_exists_and_an_unknown_field_is_none():
    for media, picture in (("multipart/form-data", "image"), ("application/json", "image_base64")):
        schema = body_schema(media)
        assert errors(schema, {picture: "AAAA", "top_k": 3, "seed": 5}) == []
        assert errors(schema, {"top_k": 3})
        assert errors(schema, {picture: "AAAA", "colour": "red"})


def test_null_is_described_where_it_can_be_sent_only():
    assert errors(body_schema("application/json"), {"image_base64": "AAAA", "seed": None}) == []
    assert errors(body_schema("multipart/form-data"), {"image": "AAAA", "seed": None})
    for operations in DOCUMENT["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", []):
                assert errors(parameter["schema"], None), parameter["name"]


def test_every_field_and_parameter_is_described():
    missing = [
        f"{name}.{field}"
        for name, schema in DOCUMENT["components"]["schemas"].items()
        for field, told in schema.get("properties", {}).items()
        if not told.get("description", "").strip()
    ]
    missing += [
        f"{operation['operationId']}: {parameter['name']}"
        for operations in DOCUMENT["paths"].values()
        for operation in operations.values()
        for parameter in operation.get("parameters", [])
        if not (parameter.get("description") or parameter["schema"].get("description", "")).strip()
    ]
    assert missing == []


def test_nothing_is_described_that_isnt_there():
    schemas = DOCUMENT["components"]["schemas"]
    told = {
        (name, field): schema["properties"][field].get("description")
        for name, schema in schemas.items()
        for field in schema.get("properties", {})
    }
    for place, said in descriptions.PLACES.items():
        model, _, field = place.partition(".")
        assert told.get((model, field)) == said, place
    for field, said in descriptions.FIELDS.items():
        assert any(name == field and text == said for (_, name), text in told.items()), field
    for model, other in descriptions.SAME.items():
        assert schemas[other]["properties"].keys() < schemas[model]["properties"].keys()
    parameters = [
        (operation["operationId"], parameter["name"], parameter.get("description"))
        for operations in DOCUMENT["paths"].values()
        for operation in operations.values()
        for parameter in operation.get("parameters", [])
    ]
    for key, said in descriptions.PARAMETERS.items():
        assert any(key in (name, f"{op}.{name}") and text == said for op, name, text in parameters), key


def test_pictures_in_the_examples_can_be_sent_as_they_stand():
    def pictures(part):
        if isinstance(part, dict):
            yield from ([part["image_base64"]] if isinstance(part.get("image_base64"), str) else [])
            part = list(part.values())
        if isinstance(part, list):
            for inner in part:
                yield from pictures(inner)

    found = list(pictures(json.loads(SNAPSHOT.read_text())["paths"]))
    assert len(found) >= 2
    for text in found:
        assert normalise(base64.b64decode(text, validate=True)).pixels.shape == (8, 8, 3)


def test_the_accepted_question_is_a_queued_one():
    accepted = DOCUMENT["paths"]["/v1/attributions"]["post"]["responses"]["202"]
    (entry,) = accepted["content"]["application/json"]["examples"].values()
    example = resolved(entry)["value"]
    assert (example["state"], example["works"], example["finished_at"]) == ("queued", None, None)
    sent = {"ETag", "Location", "Retry-After", "Preference-Applied", "Idempotency-Replayed"}
    assert set(accepted["headers"]) == sent


def test_what_is_sent_is_declared(client, store, picture):
    for _ in range(2):
        response = client.post(
            "/v1/attributions",
            files={"image": ("p.png", picture)},
            headers={"Prefer": "wait=0", "Idempotency-Key": "what is sent"},
        )
    declared = DOCUMENT["paths"]["/v1/attributions"]["post"]["responses"]["202"]
    for name in declared["headers"]:
        assert response.headers[name]
    assert errors(declared["content"]["application/json"]["schema"], response.json()) == []


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    """The client that openapi-python-client makes of the description, imported."""
    folder = tmp_path_factory.mktemp("client")
    (folder / "config.yml").write_text("post_hooks: []\npackage_name_override: das_api_client\n")
    command = [
        Path(sys.executable).with_name("openapi-python-client"),
        "generate",
        "--path",
        SNAPSHOT,
        "--meta",
        "none",
    ]
    made = subprocess.run(
        [*command, "--config", folder / "config.yml", "--output-path", folder / "das_api_client"],
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stdout + made.stderr
    sys.path.insert(0, str(folder))
    yield importlib.import_module("das_api_client")
    sys.path.remove(str(folder))


def test_a_generated_client_uploads_and_reads_the_answer_typed(generated, client, store, picture, work_off):
    api = importlib.import_module("das_api_client.api.attributions.create_attribution")
    read = importlib.import_module("das_api_client.api.attributions.get_attribution")
    models = importlib.import_module("das_api_client.models")
    types = importlib.import_module("das_api_client.types")
    caller = generated.Client(base_url=str(client.base_url)).set_httpx_client(client)

    file = types.File(payload=io.BytesIO(picture), file_name="p.png", mime_type="image/png")
    asked = api.sync(client=caller, body=models.AttributionForm(image=file, top_k=4, client_tag="mine"))
    assert isinstance(asked, models.Attribution)
    assert (asked.state, asked.top_k, asked.client_tag, asked.works) == ("queued", 4, "mine", None)
    work_off()
    answer = read.sync(asked.id, client=caller)
    assert isinstance(answer, models.Attribution)
    assert answer.state == "succeeded"
    assert [work.rank for work in answer.works] == [1, 2, 3, 4]
    assert all(isinstance(work.share, float) for work in answer.works)
    assert answer.finished_at >= answer.created_at


def test_a_generated_client_keeps_a_policy_in_every_form(generated, client):
    put = importlib.import_module("das_api_client.api.moderation.put_policy")
    models = importlib.import_module("das_api_client.models")
    types = importlib.import_module("das_api_client.types")
    caller = generated.Client(base_url=str(client.base_url)).set_httpx_client(client)

    yaml = (SNAPSHOT.parent / "policies" / "publish.yaml").read_text()
    file = types.File(
        payload=io.BytesIO(yaml.encode()), file_name="publish.yaml", mime_type="application/yaml"
    )
    card = put.sync(client=caller, body=models.PolicyForm(policy=file, dry_run=False))
    assert isinstance(card, models.PolicyCard)
    assert (card.id, card.version, card.active_version) == ("publish", 1, 1)
    again = put.sync(client=caller, body=models.PolicyJson(policy=yaml))
    assert (again.version, again.document.to_dict()) == (1, card.document.to_dict())
    changed = {**card.document.to_dict(), "title": "Another"}
    document = models.PolicyJsonPolicyType0.from_dict(changed)
    tried = put.sync(client=caller, body=models.PolicyJson(policy=document, dry_run=True))
    assert (tried.version, tried.active_version, tried.dry_run_version) == (2, 1, 2)
    file = types.File(
        payload=io.BytesIO(json.dumps({**changed, "title": "A third"}).encode()), file_name="p.json"
    )
    tried = put.sync(client=caller, body=models.PolicyForm(policy=file, dry_run=True))
    assert (tried.version, tried.active_version, tried.dry_run_version) == (3, 1, 3)
