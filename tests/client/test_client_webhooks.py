"""Webhooks are verified as the standard's own library signs and verifies them."""

import base64
import json
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from das_client import UsageError, WebhookRefused
from das_client.webhooks import verify

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OTHER = "whsec_" + base64.b64encode(bytes(32)).decode()
EVENT = {
    "type": "attribution.succeeded",
    "data": {"id": "att_0193a6c1f3d07e52b3a1c5d4e6f70819", "title": "Füße"},
}
BODY = json.dumps(EVENT, ensure_ascii=False)
NOW = 1769860800


def signed(body=BODY, secret=SECRET, at=NOW, message_id="msg_1"):
    signature = Webhook(secret).sign(message_id, datetime.fromtimestamp(at, UTC), body)
    return {"webhook-id": message_id, "webhook-timestamp": str(at), "webhook-signature": signature}


def test_what_the_standards_library_signs_is_taken():
    assert verify(signed(), BODY, SECRET, now_s=NOW) == EVENT
    assert verify(signed(), BODY.encode(), [OTHER, SECRET], now_s=NOW + 299) == EVENT
    upper = {name.title(): value for name, value in signed().items()}
    assert verify(upper, BODY, [SECRET], now_s=NOW - 299) == EVENT


def test_both_take_the_same_and_refuse_the_same_now():
    headers = signed(at=int(time.time()))
    assert Webhook(SECRET).verify(BODY, headers) == verify(headers, BODY, SECRET)
    for changed in ({**headers, "webhook-id": "msg_2"}, {**headers, "webhook-signature": "v1,AAAA"}):
        with pytest.raises(WebhookVerificationError):
            Webhook(SECRET).verify(BODY, changed)
        with pytest.raises(WebhookRefused):
            verify(changed, BODY, SECRET)


def test_one_of_several_signatures_and_secrets_is_enough():
    both = signed()["webhook-signature"] + " " + signed(secret=OTHER)["webhook-signature"]
    headers = {**signed(), "webhook-signature": f"v1a,unknown v1,!!! {both}"}
    assert verify(headers, BODY, OTHER, now_s=NOW) == EVENT
    assert verify(headers, BODY, SECRET.removeprefix("whsec_"), now_s=NOW) == EVENT


@pytest.mark.parametrize(
    ("headers", "body", "now", "why"),
    [
        ({}, BODY, NOW, "lacks webhook-id, webhook-timestamp, webhook-signature"),
        (signed(), BODY + " ", NOW, "matches none"),
        (signed(secret=OTHER), BODY, NOW, "matches none"),
        (signed(), BODY, NOW + 301, "301 seconds old"),
        (signed(), BODY, NOW - 301, "ahead of"),
        ({**signed(), "webhook-timestamp": str(NOW + 1)}, BODY, NOW, "matches none"),
        ({**signed(), "webhook-timestamp": "nan"}, BODY, NOW, "isn't a number"),
        ({**signed(), "webhook-timestamp": "9" * 400}, BODY, NOW, "isn't a number"),
        ({**signed(), "webhook-signature": "v2,AAAA"}, BODY, NOW, "matches none"),
        (signed("[]"), "[]", NOW, "isn't a JSON object"),
        (signed("no"), "no", NOW, "isn't JSON"),
    ],
)
def test_what_is_not_authentic_is_refused(headers, body, now, why):
    with pytest.raises(WebhookRefused, match=why):
        verify(headers, body, [SECRET], now_s=now)


@pytest.mark.parametrize("secrets", [[], "", "whsec_", "whsec_???", "das_key"])
def test_what_is_no_secret_is_said(secrets):
    with pytest.raises(UsageError, match="secret"):
        verify(signed(), BODY, secrets, now_s=NOW)


@given(st.binary(max_size=60), st.text(max_size=60), st.text(max_size=60))
def test_nothing_made_up_is_taken(body, signature, message_id):
    headers = {"webhook-id": message_id, "webhook-timestamp": str(NOW), "webhook-signature": signature}
    with pytest.raises(WebhookRefused):
        verify(headers, body, SECRET, now_s=NOW)
