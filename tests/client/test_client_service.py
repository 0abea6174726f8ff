"""The client and its commands against the real application; the worker's part is played."""

import asyncio
import io
import json
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from app.moderation.examples import POLICY_DOCUMENT
from das_client import (
    AsyncClient,
    Client,
    NotFinished,
    ProblemError,
    QuestionEnded,
    UsageError,
    ask_many,
    async_ask_many,
    cli,
)
from jobs.settings import Settings
from tests.app.conftest import Live


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"api_keys": "required", "queue_limit": 100})


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of three pictures and a file that is none."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(3)
    for number in range(3):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


def test_every_way_to_give_a_picture(client: Client, worker: object, picture: bytes, tmp_path: Path) -> None:
    file = tmp_path / "p.png"
    file.write_bytes(picture)
    with file.open("rb") as opened:
        answers = [
            client.ask(given, top_k=3, client_tag="ways") for given in (picture, file, str(file), opened)
        ]
    for answer in answers:
        assert answer.state == "succeeded"
        assert [work.rank for work in answer.works or []] == [1, 2, 3]
        assert answer.links.self == f"/v1/attributions/{answer.id}"
    assert [item.id for item in client.attributions(client_tag="ways")] == [answer.id for answer in answers][
        ::-1
    ]
    with pytest.raises(ProblemError) as refused:
        client.ask("https://127.0.0.1/x.png")
    assert (refused.value.status, refused.value.code, refused.value.reason) == (
        422,
        "address-refused",
        "not-public",
    )
    for bad in (tmp_path / "none.png", tmp_path, io.StringIO("x")):
        with pytest.raises(UsageError):
            client.ask(bad)  # type: ignore[arg-type]


def test_a_questions_life(client: Client, picture: bytes) -> None:
    asked = client.ask(picture, wait=0, idempotency_key="life")
    assert asked.state == "queued"
    assert client.ask(picture, wait=0, idempotency_key="life").id == asked.id
    with pytest.raises(NotFinished) as raised:
        client.wait_for(asked.id, 0.3)
    assert raised.value.id == asked.id
    assert client.cancel(asked.id).state == "cancelled"
    with pytest.raises(QuestionEnded, match="cancelled") as ended:
        client.wait_for(asked.id)
    assert ended.value.attribution.id == asked.id
    assert [event.name for event in client.events(asked.id)][-1] == "cancelled"
    client.erase(asked.id)
    with pytest.raises(ProblemError) as gone:
        client.attribution(asked.id)
    assert (gone.value.status, gone.value.code) == (410, "erased")


def test_answers_reports_and_events(client: Client, worker: object, picture: bytes) -> None:
    answer = client.ask(picture)
    names = [event.name for event in client.events(answer.id)]
    assert (names[0], names[-1]) == ("created", "succeeded")
    assert client.picture(answer.id).startswith(b"\x89PNG")
    assert json.loads(client.report(answer.id))["seal"]["digest"].startswith("sha256:")
    assert b"<html" in client.report(answer.id, "html")
    assert answer.works
    assert client.work(answer.works[0].work_id).title == answer.works[0].title
    assert client.thumbnail(answer.works[0].work_id)
    (index,) = client.indexes()
    assert client.index(index.id).works == index.works == len(list(client.works(index.id)))
    assert client.quota().requests.used > 0
    assert client.version().name == "das-attribution"


def test_policies_and_decisions(client: Client, worker: object, picture: bytes) -> None:
    card = client.put_policy(POLICY_DOCUMENT)
    assert (card.id, card.version) == ("publish", 1)
    assert [policy.id for policy in client.policies()] == ["publish"]
    decision = client.decide("publish", picture)
    assert (decision.state, decision.policy_version) == ("decided", 1)
    again = client.decide("publish", attribution=decision.attribution)
    assert again.attribution == decision.attribution
    assert client.review(decision.id, "block", "No.").final == "block"
    assert decision.id in {found.id for found in client.decisions(policy="publish", reviewed=True)}
    assert client.backtest("publish", against="reviews").examined >= 1
    assert client.activate_policy("publish", 1).active_version == 1
    with pytest.raises(UsageError):
        client.decide("publish")


def test_keys(client: Client, live: Live) -> None:
    made = client.create_key("another", ["read"], expires_in=3600)
    with Client(live.url, made.secret) as other:
        assert list(other.attributions()) == []
        with pytest.raises(ProblemError) as refused:
            other.ask(b"x")
    assert (refused.value.status, refused.value.code) == (403, "scope-missing")
    replaced = client.rotate_key(made.id, overlap_s=0)
    client.revoke_key(replaced.id)
    keys = client.keys()
    assert {key.state for key in keys if key.name == "another"} == {"revoked", "expired"}


def test_links_to_an_answer(client: Client, live: Live, key: str, worker: object, picture: bytes) -> None:
    answer = client.ask(picture)
    made = client.share(answer.id, leave_out=["creators"], works=2, expires_in=3600, label="a lawyer")
    page = httpx.get(made.url, headers={"Accept": "text/html"})
    assert page.status_code == 200
    assert answer.works is not None
    assert answer.works[0].title is not None
    assert answer.works[0].title not in page.text
    (listed,) = client.shares(answer.id)
    assert (listed.id, listed.views, listed.leave_out) == (made.id, 1, ["creators", "thumbnails"])
    client.revoke_share(answer.id, made.id)
    assert httpx.get(made.url).status_code == 404
    assert [one.state for one in client.shares(answer.id)] == ["revoked"]


def test_many_pictures_and_one_that_is_none(
    client: Client, live: Live, key: str, worker: object, picture: bytes
) -> None:
    given = [picture, b"no picture", picture, picture]
    outcomes = sorted(ask_many(client, given, at_once=2, top_k=2), key=lambda outcome: outcome.place)
    assert [outcome.answer is not None for outcome in outcomes] == [True, False, True, True]
    assert isinstance(outcomes[1].error, ProblemError)

    async def ask() -> list[bool]:
        async with AsyncClient(live.url, key) as other:
            found = [outcome async for outcome in async_ask_many(other, given, at_once=3)]
        return [outcome.answer is not None for outcome in sorted(found, key=lambda outcome: outcome.place)]

    assert asyncio.run(ask()) == [True, False, True, True]


@pytest.fixture
def das(live: Live, key: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command line, as it runs with address and key from the environment."""
    monkeypatch.setenv("DAS_URL", live.url)
    monkeypatch.setenv("DAS_API_KEY", key)
    return lambda *arguments: cli.run([str(argument) for argument in arguments], "das-client")


def test_ask_prints_a_table_or_json(
    das: Callable[..., int], worker: object, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert das("ask", pictures / "0.png", "--top", 2) == 0
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert lines[0].startswith("No work stands out: the highest-ranked accounts for")
    assert lines[1].split() == list(cli.table.COLUMNS)
    assert [line.split()[0] for line in lines[2:4]] == ["1", "2"]
    (pictures / "no.png").write_bytes(b"no picture")
    assert das("ask", pictures / "no.png", pictures / "0.png", "--json", "--top", 2) == cli.MISSING
    told = capsys.readouterr()
    (line,) = map(json.loads, told.out.splitlines())
    assert line["picture"].endswith("0.png")
    assert len(line["answer"]["works"]) == 2
    assert "no.png" in told.err
    assert "unsupported-image" in told.err


def test_a_batch_asks_only_what_is_missing(
    das: Callable[..., int], worker: Callable[[], int], pictures: Path, tmp_path: Path, client: Client
) -> None:
    out = tmp_path / "results.jsonl"
    assert das("batch", pictures, "--out", out, "--top", 2) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert sorted(Path(line["picture"]).name for line in lines) == ["0.png", "1.png", "2.png"]
    assert worker() == 3
    (pictures / "3.png").write_bytes((pictures / "0.png").read_bytes())
    (pictures / "4.png").write_bytes(b"no picture")
    assert das("batch", pictures, "--out", out, "--top", 2) == cli.MISSING
    assert worker() == 4
    (pictures / "4.png").unlink()
    before = out.read_bytes()
    assert das("batch", pictures, "--out", out, "--top", 2) == 0
    assert (worker(), out.read_bytes()) == (4, before)
    assert not out.with_name("results.jsonl.asked").exists()
    # Other options are other questions.
    assert das("batch", pictures, "--out", out, "--top", 3) == 0
    assert worker() == 8


def test_a_batch_that_was_killed_asks_nothing_twice(
    das: Callable[..., int], worker: Callable[[], int], pictures: Path, tmp_path: Path, client: Client
) -> None:
    out = tmp_path / "results.jsonl"
    assert das("batch", pictures, "--out", out) == 0
    lines = out.read_bytes().splitlines(keepends=True)
    keys = tmp_path / "journal"
    # As a kill leaves it that came after all was asked, and in the middle of writing the second answer.
    (pictures / "late.png").write_bytes(b"no picture")
    out.write_bytes(b"")
    assert das("batch", pictures, "--out", out) == cli.MISSING
    journal = out.with_name("results.jsonl.asked")
    keys.write_bytes(journal.read_bytes())
    asked = worker()
    answers = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(answers[0] + answers[1][:50])
    (pictures / "late.png").unlink()
    assert das("batch", pictures, "--out", out) == 0
    assert worker() == asked, "the same questions were found again by their keys"
    ids = [json.loads(line)["answer"]["id"] for line in out.read_bytes().splitlines()]
    assert sorted(ids) == sorted(json.loads(line)["answer"]["id"] for line in answers)
    assert len(lines) == 3


def test_a_report_is_fetched(
    das: Callable[..., int], client: Client, worker: object, picture: bytes, tmp_path: Path
) -> None:
    answer = client.ask(picture)
    assert das("report", answer.id, "--out", tmp_path / "r.json") == 0
    assert json.loads((tmp_path / "r.json").read_bytes())["report"]
    assert das("report", "att_" + "0" * 32) == cli.FAILED


def test_how_commands_end_that_cannot_begin(
    das: Callable[..., int],
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert das("batch", tmp_path / "nowhere", "--out", tmp_path / "r") == cli.FAILED
    empty = tmp_path / "empty"
    empty.mkdir()
    assert das("batch", empty, "--out", tmp_path / "r") == cli.FAILED
    assert das("batch", pictures, "--out", tmp_path / "r", "--key", "das_wrong") == cli.FAILED
    assert "key-refused" in capsys.readouterr().err
    assert das("ask", pictures / "0.png", "--url", "nonsense") == cli.FAILED
    with pytest.raises(SystemExit) as ended:
        das("ask", pictures / "0.png", "--top", 0)
    assert ended.value.code == cli.FAILED
