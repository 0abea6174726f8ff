"""Asking about a picture by its address, over the API and by the page's form."""

import http.server
import threading

import pytest

from app.addresses import Allowed
from app.connecting import Connector
from app.fetching import Fetcher

URL = "/v1/attributions"


@pytest.fixture(scope="module")
def pictures(picture):
    """A server on loopback with one picture, one page, and one that is too large; its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = {"/p.png": picture, "/page": b"<html>", "/large": b"x" * 300_001}.get(self.path)
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def unchosen(**fields):
    """A form as a browser sends it where no file was chosen: as one without name and content."""
    parts = [
        f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}' for name, value in fields.items()
    ]
    file = 'Content-Disposition: form-data; name="image"; filename=""\r\nContent-Type: image/png\r\n\r\n'
    body = "".join(f"--b\r\n{part}\r\n" for part in [file, *parts]) + "--b--\r\n"
    return {"content": body.encode(), "headers": {"Content-Type": "multipart/form-data; boundary=b"}}


@pytest.fixture
def trusting(client, monkeypatch):
    """The service of an operator who lists loopback in DAS_FETCH_ALLOW."""
    monkeypatch.setattr(client.app.state.service, "fetcher", Fetcher(Connector(Allowed.of(["127.0.0.1"]))))


@pytest.mark.usefixtures("trusting")
def test_an_address_asks_the_same_as_the_picture_itself(client, store, ask, pictures):
    by_file = ask(top_k="3")
    by_json = client.post(URL, json={"image_url": pictures + "/p.png", "top_k": 3})
    by_form = client.post(
        URL, files={"image": ("", b"")}, data={"image_url": pictures + "/p.png", "top_k": "3"}
    )
    for response in (by_json, by_form):
        assert response.status_code == 202, response.text
        told = response.json()
        assert (told["input"], told["lookalikes"]) == (by_file["input"], by_file["lookalikes"])
    assert client.app.state.service.bodies.held_bytes == 0


@pytest.mark.usefixtures("trusting")
@pytest.mark.parametrize(
    ("path", "status", "code", "reason"),
    [
        ("/none", 422, "address-refused", "status"),
        ("/page", 415, "unsupported-image", "not-an-image"),
        ("/large", 413, "too-large", None),
    ],
)
def test_what_is_no_picture_is_a_sentence(client, store, pictures, path, status, code, reason):
    refused = client.post(URL, json={"image_url": pictures + path})
    told = refused.json()
    assert (refused.status_code, told["code"]) == (status, code), told
    if reason is not None:
        assert told["reason"] in (reason, "unsupported-format")
    assert store.list().jobs == []
    assert client.app.state.service.bodies.held_bytes == 0


def test_this_machine_is_not_asked_without_leave(client, store, pictures):
    refused = client.post(URL, json={"image_url": pictures + "/p.png"})
    told = refused.json()
    assert (refused.status_code, told["code"], told["reason"]) == (422, "address-refused", "scheme")
    assert told["errors"] == [{"detail": told["detail"], "pointer": "/image_url"}]
    hidden = client.post(URL, json={"image_url": "https://127.0.0.1/p.png"}).json()
    assert hidden["reason"] == "not-public"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/image_base64"),
        ({"image_url": 5}, "/image_url"),
        ({"image_url": ["https://a.example"]}, "/image_url"),
        ({"image_url": ""}, "/image_url"),
        ({"image_url": "https://a.example/", "image_base64": "AAAA"}, "/image_url"),
    ],
)
def test_one_of_the_two_is_sent(client, store, body, pointer):
    refused = client.post(URL, json=body)
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, pointer)


def test_a_form_with_both_is_refused(client, store, picture):
    both = {"files": {"image": ("p.png", picture)}, "data": {"image_url": "https://a.example/"}}
    assert client.post(URL, **both).json()["errors"][0]["pointer"] == "/image_url"


@pytest.mark.usefixtures("trusting")
def test_an_address_counts_as_the_request_under_an_idempotency_key(client, store, pictures):
    def send(path):
        key = {"Idempotency-Key": "by address"}
        return client.post(URL, json={"image_url": pictures + path}, headers=key)

    first = send("/p.png")
    assert send("/p.png").json()["id"] == first.json()["id"]
    assert send("/p.png?other").json()["code"] == "idempotency-key-reused"


@pytest.mark.usefixtures("trusting")
def test_the_pages_form_takes_an_address_without_javascript(client, store, pictures):
    form = unchosen(image_url=pictures + "/p.png", prompt="")
    sent = client.post("/ask", **form, follow_redirects=False)
    assert sent.status_code == 303
    assert [f"/a/{job.id}" for job in store.list().jobs] == [sent.headers["location"]]


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("", "Choose a picture, or give its address."),
        ("no address", "That is no address that can be used: it has to look like https://host/path."),
        ("https://localhost/p.png", "isn&#39;t on the public internet."),
    ],
)
def test_the_page_answers_what_it_cannot_fetch_with_a_sentence(client, store, address, sentence):
    refused = client.post("/ask", **unchosen(image_url=address))
    assert refused.status_code == 422
    assert sentence in refused.text
    assert 'name="image_url"' in refused.text
