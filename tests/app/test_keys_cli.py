"""`das keys` as a command, on a database of its own."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from app.keys_cli import duration
from das.errors import SettingsError

SECRET = re.compile(r"dasl?_[2-9b-z]{12}_[A-Za-z0-9_-]{43}")


@pytest.fixture
def das(tmp_path: Path):
    def das(*arguments: str, code: int = 0, **settings: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "DAS_DATA_DIR": str(tmp_path / "data"), "COLUMNS": "300", **settings}
        done = subprocess.run(
            [sys.executable, "-c", "from das.cli import main; main()", "keys", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done

    return das


def rows(das):
    return [json.loads(line) for line in das("list", "--json").stdout.splitlines()]


def test_a_keys_life(das):
    made = das(
        "create",
        "render farm",
        "--index",
        "photographs",
        "--index",
        "photographs",
        "--expires",
        "90d",
        "--keep-uploads",
        "0",
        "--keep-results",
        "30d",
    )
    secret = made.stdout.strip()
    assert SECRET.fullmatch(secret)
    # What is printed beside it may be logged: the secret goes to the standard output alone.
    assert secret not in made.stderr
    (row,) = rows(das)
    assert (row["name"], row["state"], row["kind"]) == ("render farm", "active", "key")
    assert (row["scopes"], row["indexes"]) == (["ask", "read"], ["photographs"])
    assert (row["keep_uploads"], row["keep_results"]) == (0, 30 * 86_400)
    assert secret.startswith(row["prefix"])
    assert secret not in das("list").stdout

    replaced = das("rotate", row["prefix"], "--overlap", "1d").stdout.strip()
    assert SECRET.fullmatch(replaced)
    newest, oldest = rows(das)
    assert (newest["replaces"], oldest["state"], newest["state"]) == (row["id"], "active", "active")

    # Whoever pastes the whole key ends it just the same, and it isn't printed again.
    ended = das("revoke", replaced)
    assert replaced not in ended.stdout + ended.stderr
    assert [each["state"] for each in rows(das)] == ["revoked", "active"]
    assert [
        json.loads(line)["prefix"] for line in das("list", "--json", "--state", "active").stdout.splitlines()
    ] == [row["prefix"]]


@pytest.mark.parametrize(
    ("settings", "address"),
    [
        ({}, "http://127.0.0.1:8000"),
        ({"DAS_HOST": "0.0.0.0", "DAS_PORT": "8123"}, "http://127.0.0.1:8123"),
        ({"DAS_PUBLIC_URL": "https://das.example.org/"}, "https://das.example.org"),
    ],
)
def test_a_link_leads_to_the_page(das, settings, address):
    shown = das("link", "Ada", **settings).stdout.strip()
    assert re.fullmatch(rf"{re.escape(address)}/sign-in/(dasl_\S+)", shown)
    (row,) = rows(das)
    assert (row["kind"], row["scopes"]) == ("link", ["ask", "read"])
    assert row["expires_at"] is not None


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("create", "x", "--expires", "soon"), "--expires 'soon' isn't a length of time: write it as 7d"),
        (("link", "x", "--expires", "never"), "isn't a length of time"),
        (("create", "x", "--scope", "admin", "--index", "a"), "can't be kept to some indexes"),
        (("create", ""), "a key's name has 1 to 200 characters"),
        (("revoke", "nobody"), "there is no key 'nobody'; `das keys list` names them all"),
        (("rotate", "bcdfghjkmnpq", "--overlap", "-1d"), "--overlap '-1d' isn't a length of time"),
        (("create", "x", "--keep-results", "soon"), "--keep-results 'soon' isn't a length of time"),
        (("create", "x", "--keep-results", "5s"), "questions are kept for a minute to 3660 days"),
        (("link", "x", "--scope", "admin"), "a link can't have the scope admin"),
    ],
)
def test_a_mistake_is_a_sentence(das, arguments, why):
    assert why in " ".join(das(*arguments, code=2).stderr.split())


@pytest.mark.parametrize(("text", "seconds"), [("45s", 45), ("30m", 1800), ("12h", 43200), ("7d", 604800)])
def test_lengths_of_time(text, seconds):
    assert duration(text, "--expires").total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "7", "d", "0d", "7 d", "1.5h", "-1d", "7D", "٧d", "9999999999d"])
def test_what_isnt_a_length_of_time(text):
    with pytest.raises(SettingsError, match="isn't a length of time"):
        duration(text, "--expires")


def test_a_key_for_an_index_that_is_not_here_is_made_and_said(das, tiny_index):
    made = das("create", "farm", "--index", "tiny", "--index", "DAS", DAS_INDEX_DIR=str(tiny_index))
    assert SECRET.fullmatch(made.stdout.strip())
    assert "No index DAS is in DAS_INDEX_DIR now; there is tiny, tiny@" in made.stderr
    assert "No index tiny" not in made.stderr
    assert "No index" not in das("create", "farm", "--index", "DAS", DAS_INDEX_DIR="/nowhere").stderr
