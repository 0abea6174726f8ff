"""The client that waits. Made by client/generate.py of async_client.py; don't edit."""

import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Literal, Unpack

from das_client import models as m
from das_client.batches import Batches
from das_client.call import Call, Picture, path, with_picture
from das_client.endpoints import Endpoints
from das_client.errors import NotFinished, ProblemError, QuestionEnded, ServiceUnreachable, UsageError
from das_client.events import LAST, Event, Reader
from das_client.opt_outs import OptOuts
from das_client.reading import HELD_S
from das_client.retries import RETRIED_STATUSES

ENDED = frozenset({"succeeded", "failed", "cancelled", "erased"})
ReportFormat = Literal["json", "html", "pdf"]


class Client(Batches, Endpoints, OptOuts):
    """A DAS Attribution service.

    Args (all may be left out):
        url: its address; else that of DAS_URL, else http://127.0.0.1:8000.
        key: an API key; else that of DAS_API_KEY, else none. It is sent to `url` alone: redirections aren't followed.
        retries: how patient it is.
        timeout_s: how long the service may say nothing at all.
        transport: of httpx, for other ways to the service.

    Everything raises `ProblemError` where the service refuses, `ServiceUnreachable` where it doesn't answer, and
    `UsageError` for what can't be sent.
    """

    # ---- Questions ----

    def ask(
        self,
        picture: Picture,
        *,
        wait: float = 600.0,
        idempotency_key: str | None = None,
        **options: Unpack[m.AskOptions],
    ) -> m.Attribution:
        """Which works a picture owes most to.

        Args:
            picture: a path, an address, bytes, or a file opened for reading bytes.
            wait: seconds for the answer; 0: don't wait, and come back with the question as it was accepted.
            idempotency_key: a name for this question; sent again under it, even by another process within a day, it
                is asked once. Default: a new one.
            options: the API's fields beside the picture, such as `prompt`, `index`, `top_k`.

        Raises:
            NotFinished: it goes on; `wait_for` its `id`.
            QuestionEnded: it failed or was cancelled.
        """
        began = time.monotonic()
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        held = max(0, int(min(wait, HELD_S)))
        if held:
            headers["Prefer"] = f"wait={held}"
        call = Call(
            "POST", path("/v1/attributions"), headers=headers, held_s=held, **with_picture(picture, options)
        )
        asked = self._read(m.Attribution, call)
        if wait <= 0 or asked.state in ENDED:
            return _answered(asked, wait)
        return self.wait_for(asked.id, max(0.0, wait - (time.monotonic() - began)))

    def wait_for(self, attribution_id: str, wait: float = 600.0) -> m.Attribution:
        """The answer to a question that was asked, after `wait` seconds at most. Raises as `ask`."""
        began = time.monotonic()
        while True:
            left = wait - (time.monotonic() - began)
            found = self.attribution(attribution_id, wait=max(0.0, min(left, HELD_S)))
            if found.state in ENDED:
                return _answered(found, wait)
            if left <= 0:
                raise NotFinished(attribution_id, wait)
            # Where the service holds nothing back, it isn't asked in a circle.
            time.sleep(0.1)

    def attribution(self, attribution_id: str, *, wait: float | None = None) -> m.Attribution:
        """A question as it stands. `wait`: held back for so many seconds, 30 at most, until it is finished."""
        call = Call(
            "GET", path("/v1/attributions", attribution_id), {"wait": wait or None}, held_s=wait or 0.0
        )
        return self._read(m.Attribution, call)

    def attributions(
        self,
        *,
        state: str | None = None,
        client_tag: str | None = None,
        created_after: datetime | None = None,
    ) -> Iterator[m.AttributionSummary]:
        """Your questions in short, the newest first."""
        query = {"state": state, "client_tag": client_tag, "created_after": created_after}
        for page in self._pages(m.AttributionList, "/v1/attributions", query):
            yield from page.items

    def events(self, attribution_id: str, *, last_event_id: str | None = None) -> Iterator[Event]:
        """What happens to a question, as it happens, until it is finished; a broken connection is opened again.

        Args:
            last_event_id: of an `Event` that was seen; those after it are told. Default: all.
        """
        reader = Reader(last_id=last_event_id)
        failures, began = 0, time.monotonic()
        while True:
            headers = {"Accept": "text/event-stream"}
            if reader.last_id is not None:
                headers["Last-Event-ID"] = reader.last_id
            call = Call("GET", path("/v1/attributions", attribution_id) + "/events", headers=headers)
            reader.begin()
            error: ServiceUnreachable | ProblemError | None = None
            try:
                with self._open(call) as response:
                    if response.status_code == 204:
                        return
                    for line in response.iter_lines():
                        for event in reader.lines(line):
                            failures, began = 0, time.monotonic()
                            yield event
                            if event.name in LAST:
                                return
            except ServiceUnreachable as broken:
                error = broken
            except ProblemError as refused:
                if refused.status not in RETRIED_STATUSES:
                    raise
                error = refused
            asked = error.retry_after_s if isinstance(error, ProblemError) else None
            failures += error is not None and asked is None
            pause = (
                self._retries.pause(failures, time.monotonic() - began, asked) if error else reader.retry_s
            )
            if pause is None:
                assert error is not None
                raise error
            time.sleep(pause)

    def cancel(self, attribution_id: str) -> m.Attribution:
        """Stop working on a question; its picture is kept until it is erased."""
        return self._read(m.Attribution, Call("POST", path("/v1/attributions", attribution_id) + "/cancel"))

    def erase(self, attribution_id: str) -> None:
        """Erase a question with its picture and its answer."""
        self._send(Call("DELETE", path("/v1/attributions", attribution_id)))

    def picture(self, attribution_id: str) -> bytes:
        """The picture that was asked about, as it was normalised: a PNG."""
        return self._bytes(path("/v1/attributions", attribution_id) + "/image")

    def report(self, attribution_id: str, format: ReportFormat = "json") -> bytes:
        """The answer as evidence. The JSON is sealed: keep its bytes as they are."""
        if format not in ("json", "html", "pdf"):
            raise UsageError(f"a report is json, html or pdf, not {format!r}")
        return self._bytes(path("/v1/attributions", attribution_id) + f"/report.{format}")

    def report_key(self) -> m.ReportKey:
        """The public key that reports are signed with."""
        return self._read(m.ReportKey, Call("GET", "/v1/report-key"))

    # ---- Links to answers ----

    def share(self, attribution_id: str, **options: Unpack[m.ShareOptions]) -> m.NewlyMadeShareLink:
        """A link by which somebody without a key reads an answer; its `url` is in this answer only."""
        body = {n: v.isoformat() if isinstance(v, datetime) else v for n, v in options.items()}
        where = path("/v1/attributions", attribution_id) + "/shares"
        return self._read(m.NewlyMadeShareLink, Call("POST", where, body=body, repeats=False))

    def shares(self, attribution_id: str) -> list[m.ShareLink]:
        """Every link to an answer, the newest first."""
        where = path("/v1/attributions", attribution_id) + "/shares"
        return (self._read(m.ShareLinkList, Call("GET", where))).items

    def revoke_share(self, attribution_id: str, share_id: str) -> None:
        """Withdraw a link."""
        where = path("/v1/attributions", attribution_id) + path("/shares", share_id)
        self._send(Call("DELETE", where))

    # ---- Moderation ----

    def decide(
        self,
        policy: str,
        picture: Picture | None = None,
        *,
        attribution: str | None = None,
        wait: float = 600.0,
        idempotency_key: str | None = None,
        **options: Unpack[m.AskOptions],
    ) -> m.Decision:
        """What a policy says of a picture, or of a question that was asked already (`attribution`). Else as `ask`."""
        if (picture is None) == (attribution is None):
            raise UsageError("give a picture or an attribution's id to decide about, one of them")
        began = time.monotonic()
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        held = max(0, int(min(wait, HELD_S)))
        if held:
            headers["Prefer"] = f"wait={held}"
        about: dict[str, Any] = {"body": {"policy": policy, "attribution": attribution}}
        if picture is not None:
            about = with_picture(picture, {"policy": policy, **options})
        made = self._read(
            m.Decision, Call("POST", path("/v1/decisions"), headers=headers, held_s=held, **about)
        )
        while wait > 0 and made.state == "pending":
            left = wait - (time.monotonic() - began)
            if left <= 0:
                raise NotFinished(made.id, wait)
            made = self.decision(made.id, wait=min(left, HELD_S))
        return made

    def decision(self, decision_id: str, *, wait: float | None = None) -> m.Decision:
        """A decision as it stands. `wait` as in `attribution`."""
        call = Call("GET", path("/v1/decisions", decision_id), {"wait": wait or None}, held_s=wait or 0.0)
        return self._read(m.Decision, call)

    def decisions(
        self,
        *,
        policy: str | None = None,
        outcome: str | None = None,
        reviewed: bool | None = None,
        state: str | None = None,
        attribution: str | None = None,
    ) -> Iterator[m.Decision]:
        """Decisions, the newest first."""
        query = {
            "policy": policy, "outcome": outcome, "reviewed": reviewed, "state": state, "attribution": attribution,
        }  # fmt: skip
        for page in self._pages(m.DecisionList, "/v1/decisions", query):
            yield from page.items

    def review(
        self, decision_id: str, outcome: Literal["clear", "block"], note: str | None = None
    ) -> m.Decision:
        """A person's word on a decision."""
        call = Call(
            "POST", path("/v1/decisions", decision_id) + "/review", body={"outcome": outcome, "note": note}
        )
        return self._read(m.Decision, call)

    def policies(self) -> list[m.PolicySummary]:
        """All policies."""
        return (self._read(m.PolicyList, Call("GET", "/v1/policies"))).items

    def policy(self, policy_id: str, *, version: int | None = None) -> m.PolicyCard:
        """A policy with the rules of one version: by default the active, or else the newest."""
        return self._read(m.PolicyCard, Call("GET", path("/v1/policies", policy_id), {"version": version}))

    def put_policy(self, policy: Mapping[str, Any] | str, *, dry_run: bool = False) -> m.PolicyCard:
        """Keep a policy (a mapping, or its text in YAML or JSON) and have it decide, or try it beside the active."""
        document = policy if isinstance(policy, str) else dict(policy)
        call = Call("POST", "/v1/policies", body={"policy": document, "dry_run": dry_run})
        return self._read(m.PolicyCard, call)

    def activate_policy(self, policy_id: str, version: int | None, *, dry_run: bool = False) -> m.PolicyCard:
        """Have a version decide, or with `dry_run` be tried (None: none any more)."""
        body = {"version": version, "dry_run": dry_run}
        return self._read(
            m.PolicyCard, Call("POST", path("/v1/policies", policy_id) + "/activate", body=body)
        )

    def backtest(
        self, policy_id: str, *, cursor: str | None = None, **options: Unpack[m.BacktestOptions]
    ) -> m.Backtest:
        """One page of how a version would have decided; give its `next_cursor` for older answers."""
        body = {**options, "cursor": cursor}
        given = {n: v.isoformat() if isinstance(v, datetime) else v for n, v in body.items() if v is not None}
        return self._read(m.Backtest, Call("POST", path("/v1/policies", policy_id) + "/backtest", body=given))

    # ---- Indexes and works ----

    def indexes(self) -> list[m.IndexSummary]:
        """The indexes that can be asked; the first is the default."""
        return (self._read(m.IndexList, Call("GET", "/v1/indexes"))).items

    def index(self, index_id: str) -> m.IndexCard:
        """One index with its card."""
        return self._read(m.IndexCard, Call("GET", path("/v1/indexes", index_id)))

    def works(self, index_id: str, *, tdm: str | None = None) -> Iterator[m.Work]:
        """The works of an index, in its order; `tdm`: those with that rights signal, `none` those without any."""
        for page in self._pages(m.WorkList, path("/v1/indexes", index_id) + "/works", {"tdm": tdm}):
            yield from page.items

    def work(self, work_id: str, *, index: str | None = None) -> m.Work:
        """One training work."""
        return self._read(m.Work, Call("GET", path("/v1/works", work_id), {"index": index}))

    def thumbnail(self, work_id: str, *, index: str | None = None) -> bytes:
        """A work's small picture."""
        return self._bytes(path("/v1/works", work_id) + "/thumbnail", {"index": index})

    # ---- Keys and the service itself ----

    def keys(self, *, state: str | None = None) -> Iterator[m.Key]:
        """Keys and links, without secrets, the newest first. This and all about keys takes the scope `admin`."""
        for page in self._pages(m.KeyList, "/v1/api-keys", {"state": state}):
            yield from page.items

    def create_key(self, name: str, scopes: list[str], **options: Unpack[m.KeyOptions]) -> m.NewlyMadeKey:
        """A new key; its `secret` is in this answer only."""
        call = Call("POST", "/v1/api-keys", body={"name": name, "scopes": scopes, **options}, repeats=False)
        return self._read(m.NewlyMadeKey, call)

    def rotate_key(self, key_id: str, *, overlap_s: int = 7 * 86400) -> m.NewlyMadeKey:
        """A key that replaces another; both work for `overlap_s` seconds."""
        call = Call(
            "POST", path("/v1/api-keys", key_id) + "/rotate", body={"overlap": overlap_s}, repeats=False
        )
        return self._read(m.NewlyMadeKey, call)

    def revoke_key(self, key_id: str) -> None:
        """End a key or link."""
        self._send(Call("DELETE", path("/v1/api-keys", key_id)))

    def quota(self) -> m.Quota:
        """How much of your limits is used up."""
        return self._read(m.Quota, Call("GET", "/v1/quota"))

    def version(self) -> m.Version:
        """Which version of the service it is."""
        return self._read(m.Version, Call("GET", "/version"))


def _answered(attribution: m.Attribution, wait: float) -> m.Attribution:
    if wait > 0 and attribution.state != "succeeded":
        raise QuestionEnded(attribution)
    return attribution
