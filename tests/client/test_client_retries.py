"""How long a client waits, and when it gives up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from das_client.retries import NEVER, Retries, retry_after

DATE = "Sat, 31 Jan 2026 12:00:00 GMT"
MOMENT = 1769860800.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 0 "}, 0.0),
        ({"retry-after": "9" * 400}, 1e9),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "١٢"}, None),
        ({"retry-after": "1e999"}, None),
        ({"retry-after": "Sat, 31 Jan 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Sat, 31 Jan 2026 11:00:00 GMT"}, 0.0),
        # The two clocks differ by an hour: what counts is how far the service's two dates are apart.
        ({"retry-after": "Sat, 31 Jan 2026 13:00:09 GMT", "date": "Sat, 31 Jan 2026 13:00:00 GMT"}, 9.0),
        ({"retry-after": "Sat, 31 Jan 99999 12:00:00 GMT"}, None),
    ],
)
def test_what_is_asked_to_wait(headers, seconds):
    assert retry_after(headers, MOMENT) == seconds


@given(st.text(max_size=40))
def test_any_header_is_a_number_of_seconds_or_nothing(text):
    seconds = retry_after({"retry-after": text}, MOMENT)
    assert seconds is None or seconds >= 0


def test_pauses_grow_and_differ():
    least, most = Retries(jitter=lambda: 0.0), Retries(jitter=lambda: 1.0)
    assert [least.pause(n, 0, None) for n in range(1, 6)] == [0.25, 0.5, 1.0, 2.0, 4.0]
    assert [most.pause(n, 0, None) for n in range(1, 6)] == [0.5, 1.0, 2.0, 4.0, 8.0]
    assert most.pause(6, 0, None) is None
    assert Retries(attempts=10_000, jitter=lambda: 1.0).pause(9000, 0, None) == 20.0


def test_the_service_is_taken_at_its_word_until_the_deadline():
    retries = Retries(attempts=1, deadline_s=60, jitter=lambda: 1.0)
    assert retries.pause(0, 0, 30) == 33.0
    assert retries.pause(0, 30, 30) is None
    assert retries.pause(0, 0, 3600) is None
    assert NEVER.pause(0, 0.1, 0) is None


@given(st.integers(0, 100), st.floats(0, 1e6), st.none() | st.floats(0, 1e9))
def test_no_pause_leads_beyond_the_deadline_or_comes_too_early(failures, elapsed, asked):
    retries = Retries()
    pause = retries.pause(failures, elapsed, asked)
    if pause is not None:
        assert elapsed + pause <= retries.deadline_s
        assert pause >= (asked or 0)
        assert pause > 0
