"""The page's routes as a browser without JavaScript uses them: forms, redirects, states in words."""

import re

import pytest

from app.middleware import CONTENT_SECURITY_POLICY
from app.wording import factor, is_web, percent, top

HTML = {"Accept": "text/html"}


def test_the_first_page_shows_the_index_and_the_samples_in_order(client):
    page = client.get("/", headers=HTML)
    assert page.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert re.findall(r'name="sample" value="([^"]+)"', page.text) == ["two.png", "one.png"]
    assert "A second one" in page.text
    assert "tiny" in page.text
    assert (
        "Pictures stay on this machine. They are kept with their answer until someone deletes them."
        in page.text
    )


def test_pages_have_nothing_inline_and_nothing_from_elsewhere(client, ask, work_off):
    asked = ask()
    work_off()
    for address in ("/", asked["links"]["page"], "/problems", "/deleted", "/indexes", "/api", "/opt-out"):
        text = client.get(address, headers=HTML).text
        assert not re.search(r"<script(?![^>]*\ssrc=)|\sstyle=|\son[a-z]+=|<style", text), address
        for link in re.findall(r'(?:src|<link[^>]*href)="([^"]+)"', text):
            assert link.startswith("/"), link


def test_static_files_exist_and_are_kept(client):
    text = client.get("/", headers=HTML).text
    links = re.findall(r'"(/static/[^"]+)"', text)
    assert len(links) >= 4
    for link in links:
        response = client.get(link)
        assert response.status_code == 200
        assert "immutable" in response.headers["cache-control"]
    sheet = client.get(next(link for link in links if ".css" in link)).text
    for font in re.findall(r'url\("([^"]+)"\)', sheet):
        assert client.get(f"/static/{font}").headers["content-type"] == "font/woff2"


def test_the_form_leads_to_the_answers_page(client, store, picture):
    response = client.post("/ask", files={"image": ("p.png", picture)}, headers=HTML, follow_redirects=False)
    assert response.status_code == 303
    assert re.fullmatch(r"/a/att_[0-9a-f]{32}", response.headers["location"])
    page = client.get(response.headers["location"], headers=HTML).text
    assert '<noscript><meta http-equiv="refresh"' in page
    assert "Measuring…" in page
    assert "Looks similar" in page


def test_the_form_says_why_a_picture_is_refused(client, store):
    response = client.post("/ask", files={"image": ("p.svg", b"<svg/>")}, headers=HTML)
    assert response.status_code == 415
    assert 'role="alert"' in response.text
    assert "SVG" in response.text
    assert 'name="image"' in response.text


def test_a_sample_is_asked_about_by_its_name_only(client, store):
    response = client.post("/samples", data={"sample": "one.png"}, headers=HTML, follow_redirects=False)
    assert response.status_code == 303
    for name in ("samples.json", "../secret.png", ""):
        assert client.post("/samples", data={"sample": name}, headers=HTML).status_code == 404
    assert client.get("/samples/one.png").headers["content-type"] == "image/png"


def test_the_answer_is_told_in_words_first(client, ask, work_off):
    asked = ask(top_k="4", prompt="<b>bold</b>")
    work_off()
    page = client.get(asked["links"]["page"], headers=HTML).text
    assert (
        "<h1>No work stands out: the highest-ranked accounts for 4.9\u00a0% of the measured influence" in page
    )
    assert "has not been measured for this index" in page
    assert "among all 40 training works" in page
    assert "no verdict" in page
    assert '<rect class="bar-fill" width="4.88"' in page, "a bar is as long as its share of all"
    assert page.count('class="rank"') == 4
    assert "CC0 1.0" in page
    assert "noscript" not in page
    assert "<b>bold</b>" not in page
    assert "&lt;b&gt;bold" in page


def test_a_lost_worker_is_told(client, ask, store):
    asked = ask()
    store.leases.claim("w", 1, [job.index_id for job in store.list().jobs])
    store.leases.release_worker("w", "its process was killed")
    page = client.get(asked["links"]["page"], headers=HTML).text
    assert "The worker on it was lost, so it is being tried again (attempt 2)" in page
    store.leases.claim("w2", 1, [job.index_id for job in store.list().jobs])
    page = client.get(asked["links"]["page"], headers=HTML).text
    assert "An earlier worker was lost; this is attempt 2" in page


def test_stages_count_the_timesteps(client, ask, store):
    asked = ask()
    (job,) = store.leases.claim("w", 1, [job.index_id for job in store.list().jobs])
    store.leases.progress([job.token], "gradients", 3, 10)
    page = client.get(asked["links"]["page"], headers=HTML).text
    assert "3 of 10 steps" in page
    assert '<rect class="bar-fill" width="30.0"' in page


def test_a_failed_question_can_be_asked_again(client, ask, store):
    asked = ask(top_k="3", client_tag="mine")
    (job,) = store.leases.claim("w", 1, [job.index_id for job in store.list().jobs])
    store.leases.fail(job.token, "The computation took longer than 600 s and was stopped.", "time-limit")
    page = client.get(asked["links"]["page"], headers=HTML).text
    assert "This question couldn&#39;t be answered." in page
    assert "took longer than 600 s" in page
    again = client.post(asked["links"]["page"] + "/again", headers=HTML, follow_redirects=False)
    assert again.status_code == 303
    new = client.get("/v1/attributions/" + again.headers["location"].removeprefix("/a/")).json()
    assert new["id"] != asked["id"]
    assert (new["top_k"], new["client_tag"], new["input"]["width"]) == (3, "mine", 16)


def test_cancel_and_delete_by_form(client, ask):
    asked = ask()
    page = asked["links"]["page"]
    assert client.post(page + "/cancel", headers=HTML, follow_redirects=False).headers["location"] == page
    assert "This question was cancelled." in client.get(page, headers=HTML).text
    # Without a script nobody has asked yet.
    sure = client.post(page + "/erase", headers=HTML)
    assert (sure.status_code, sure.headers["cache-control"]) == (200, "no-store")
    assert "Delete this picture and its answer? They can&#39;t be had back." in sure.text
    assert f'action="{page}/erase"' in sure.text
    assert f'href="{page}"' in sure.text
    assert client.get(page, headers=HTML).status_code == 200
    assert client.post(page + "/erase", data={"sure": "no"}, headers=HTML).text == sure.text
    deleted = client.post(page + "/erase", data={"sure": "yes"}, headers=HTML)
    assert deleted.status_code == 200
    assert "Deleted." in deleted.text
    gone = client.get(page, headers=HTML)
    assert gone.status_code == 410
    assert "was deleted" in gone.text


def test_a_page_that_isnt_there_is_a_page(client):
    response = client.get("/a/att_0", headers=HTML)
    assert response.status_code == 404
    assert response.headers["content-type"].startswith("text/html")
    assert response.headers["x-request-id"] in response.text
    assert client.get("/nothing", headers=HTML).headers["content-type"].startswith("text/html")
    assert client.get("/nothing").headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("url", "link"),
    [
        ("https://example.org/1", True), ("http://example.org", True), ("javascript:alert(1)", False),
        ("data:text/html,x", False), ("//example.org", False), ("https://[", False), ("", False), (None, False),
    ],
)  # fmt: skip
def test_only_web_addresses_become_links(url, link):
    assert is_web(url) is link


def test_numbers_are_written_with_the_digits_they_bear():
    assert [percent(x) for x in (0.314, 0.0949, 0.034, None)] == [
        "31\u00a0%",
        "9.5\u00a0%",
        "3.4\u00a0%",
        "–",
    ]
    assert [top(x) for x in (99.17, 50.0)] == ["top 0.8\u00a0%", "top 50\u00a0%"]
    assert [factor(x) for x in (77.5, 1.42, None)] == ["78×", "1.4×", "–"]
