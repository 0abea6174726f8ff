"""The operator's page as its users meet it: by keyboard, without JavaScript, narrow, dark, in each language."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from jobs.audit import Actor
from jobs.credentials import Scope
from jobs.keys import IssuedKey, Keys, NewKey
from jobs.models import utc_now
from jobs.opt_outs import NewOptOut
from jobs.settings import Settings
from jobs.store import JobStore
from jobs.webhooks.models import WebhookDelivery, WebhookEndpoint
from tests.browser.conftest import Site, _watched
from tests.browser.pages import WIDE, violations

LONG = "A name of a hundred and more letters: " + "Donaudampfschifffahrtsgesellschaftskapitän" * 3
PLACES = ("", "/jobs", "/jobs?state=all", "/workers", "/webhooks", "/opt-outs", "/keys", "/audit", "/storage")


@pytest.fixture(scope="module")
def store(site: Site) -> Iterator[JobStore]:
    """The service's own database, where what was asked and sent before is put."""
    store = JobStore(Settings(_env_file=None, data_dir=Path(site.environment["DAS_DATA_DIR"])))
    yield store
    store.close()


@pytest.fixture(scope="module")
def operator(store: JobStore) -> IssuedKey:
    scopes = frozenset({Scope.ADMIN, Scope.ASK, Scope.READ})
    return Keys(store.database).create(NewKey(name="The operator", scopes=scopes))


@pytest.fixture(scope="module")
def asker(store: JobStore) -> IssuedKey:
    return Keys(store.database).create(NewKey(name=LONG, scopes=frozenset({Scope.ASK, Scope.READ})))


@pytest.fixture(scope="module")
def endpoint(store: JobStore, asker: IssuedKey) -> str:
    """An endpoint of the asker's with a delivery that was given up."""
    url = f"https://{'x' * 60}.example.org/hook"
    made = store.webhook_endpoints.create(asker.key.owner, url, None, None).endpoint
    sent = store.webhook_endpoints.test(asker.key.owner, made.id)
    with store.database.write() as session:
        delivery = session.get_one(WebhookDelivery, sent.id)
        delivery.state, delivery.settled_at, delivery.next_attempt_at = "failed", utc_now(), None
        delivery.tried = [
            {
                "at": "2026-01-31T12:00:00Z",
                "seconds": 1,
                "status_code": 500,
                "error": "The receiver answered 500.",
                "response": "x",
            }
        ]
    return made.id


def opt_out(store: JobStore, creator: str) -> str:
    wanted = NewOptOut(owner="local", index_name="tiny", creator=creator, contact=LONG, statement=LONG)
    return store.opt_outs.create(wanted, Actor("local"), hide=False).opt_out.id


def sign_in(page: Page, site: Site, key: IssuedKey) -> None:
    page.goto(f"{site.url}/sign-in?next=/operator")
    page.locator("[name=key]").fill(key.secret)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{site.url}/operator")


@pytest.fixture(params=[True, False], ids=["script", "plain"])
def page(request: pytest.FixtureRequest, browser: Browser, site: Site, faults: list[str]) -> Iterator[Page]:
    context: BrowserContext = browser.new_context(java_script_enabled=request.param)
    page = _watched(context, site, faults)
    page.on("dialog", lambda dialog: dialog.accept())
    yield page
    context.close()
    # Whoever was signed out is told so on the console too; anything else there is a fault.
    faults[:] = [fault for fault in faults if "status of 401 " not in fault]


@pytest.mark.parametrize(
    ("scheme", "language", "width"), [("light", "en", 1280), ("dark", "de", 320), ("light", "fr", 640)]
)
def test_no_page_has_faults_with_long_names(
    browser: Browser,
    site: Site,
    store: JobStore,
    operator: IssuedKey,
    asker: IssuedKey,
    endpoint: str,
    faults: list[str],
    scheme: str,
    language: str,
    width: int,
) -> None:
    context = browser.new_context(
        color_scheme=scheme,
        locale=language,
        viewport={"width": width, "height": 800},
        reduced_motion="reduce",
    )
    page = _watched(context, site, faults)
    sign_in(page, site, operator)
    request = opt_out(store, LONG)
    store.audit.write(Actor("somebody" * 10), "thing.done", LONG, note=LONG)
    further = (f"/keys/{asker.key.id}", f"/webhooks/{endpoint}", f"/opt-outs/{request}")
    for place in (*PLACES, *further):
        page.goto(f"{site.url}/operator{place}")
        expect(page.locator("html")).to_have_attribute("lang", language)
        assert violations(page) == [], place
        assert page.evaluate(WIDE) == 0, place
    page.goto(f"{site.url}/operator/keys")
    page.locator("[name=name]").fill(LONG)
    page.locator("[name=kind][value=link]").check()
    page.locator(".fields button").click()
    expect(page.locator(".secret")).to_be_visible()
    assert violations(page) == []
    assert page.evaluate(WIDE) == 0
    page.goto(f"{site.url}/signed-in")
    assert violations(page) == []
    assert page.evaluate(WIDE) == 0
    context.close()


def press(page: Page, name: str) -> None:
    """Come to a button by Tab as somebody without a mouse does, and press it."""
    wanted = page.get_by_role("button", name=name).first
    expect(wanted).to_be_visible()
    for _ in range(120):
        page.keyboard.press("Tab")
        if wanted.evaluate("node => node === document.activeElement"):
            page.keyboard.press("Enter")
            return
    raise AssertionError(f"{name} isn't reached by keyboard")


def press_surely(page: Page, name: str) -> None:
    """Press a button that asks first: by a dialog, which is taken, or without JavaScript by a page of its own."""
    with page.expect_navigation():
        press(page, name)
    if page.locator("input[name=sure]").count():
        press(page, name)


def test_each_action_by_keyboard(
    page: Page,
    site: Site,
    store: JobStore,
    operator: IssuedKey,
    asker: IssuedKey,
    endpoint: str,
    tiny_works: Path,
    paused_worker: None,
) -> None:
    heading = page.get_by_role("heading", level=1)
    sign_in(page, site, operator)
    expect(heading).to_have_text("Overview")

    # A question of one's own.
    page.goto(site.url)
    page.locator(".sample-grid button").first.click()
    expect(page.locator("#answer")).to_be_visible()
    page.goto(f"{site.url}/operator/jobs")
    press(page, "Cancel")
    page.get_by_role("link", name="cancelled").click()
    press_surely(page, "Delete")
    expect(heading).to_have_text("Questions")

    # A key: made, replaced, signed in with, signed out, revoked.
    page.goto(f"{site.url}/operator/keys")
    page.get_by_label("Whose it is").fill("Render farm")
    page.keyboard.press("Enter")
    expect(heading).to_have_text("Your new key")
    secret = page.locator(".secret code").inner_text()
    page.get_by_role("link", name="Render farm").click()
    press(page, "Replace it")
    expect(heading).to_have_text("Your new key")
    page.goto(f"{site.url}/operator/keys/{secret[4:16]}")
    press_surely(page, "Revoke it")
    expect(page.locator(".figures .flag")).to_have_text("revoked")
    page.goto(f"{site.url}/operator/keys/{operator.key.id}")
    press_surely(page, "Sign out everywhere")
    expect(heading).to_have_text("Sign in")
    sign_in(page, site, operator)

    # Webhooks.
    with store.database.write() as session:
        # Given up, also where the test before had it delivered again.
        for delivery in session.query(WebhookDelivery).filter_by(endpoint_id=endpoint):
            delivery.state, delivery.settled_at, delivery.next_attempt_at = "failed", utc_now(), None
    page.goto(f"{site.url}/operator/webhooks/{endpoint}")
    press(page, "Deliver again")
    expect(page.get_by_role("link", name="waiting")).to_have_attribute("aria-current", "true")
    with store.database.write() as session:
        session.get_one(WebhookEndpoint, endpoint).enabled = False
    page.goto(f"{site.url}/operator/webhooks/{endpoint}")
    press(page, "Enable it again")
    expect(page.get_by_role("button", name="Enable it again")).to_have_count(0)

    # Requests to be left out: nobody's of this index, so that no other test misses a work.
    request = opt_out(store, "Nobody of this name")
    page.goto(f"{site.url}/operator/opt-outs/{request}")
    press(page, "Find it right")
    expect(page.locator(".figures")).to_contain_text("found right")
    page.locator("[name=left_out]").fill("2026-02-03")
    press(page, "Say what was done")
    expect(page.locator(".figures")).to_contain_text("3 February 2026")
    page.goto(f"{site.url}/operator/opt-outs/{opt_out(store, 'Nobody else')}")
    page.get_by_label("Why, for whoever asked").fill("It isn't theirs.")
    press(page, "Refuse it")
    expect(page.locator(".figures")).to_contain_text("It isn't theirs.")

    page.goto(f"{site.url}/operator/audit")
    page.get_by_label("What (such as").fill("opt-out")
    page.keyboard.press("Enter")
    expect(page.locator(".records li").first).to_contain_text("opt-out.rejected")
    assert re.search(r"[?&]action=opt-out(&|$)", page.url)


def test_signed_out_everywhere_by_its_holder(page: Page, site: Site, asker: IssuedKey) -> None:
    page.goto(f"{site.url}/sign-in")
    page.locator("[name=key]").fill(asker.secret)
    page.keyboard.press("Enter")
    expect(page.locator(".signed-in")).to_contain_text(LONG)
    (cookie,) = [one for one in page.context.cookies() if one["name"] == "das"]
    page.get_by_role("link", name=LONG).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Where this key is signed in")
    press_surely(page, "Sign out everywhere")
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
    page.context.add_cookies([cookie])
    page.goto(f"{site.url}/signed-in")
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
