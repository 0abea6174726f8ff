"""The client. `client.py`, which waits instead of awaiting, is made of this file by `client/generate.py`."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Any, Literal, Unpack

from das_client import models as m
from das_client.async_batches import AsyncBatches
from das_client.async_endpoints import AsyncEndpoints
from das_client.async_opt_outs import AsyncOptOuts
from das_client.async_reading import HELD_S
from das_client.call import Call, Picture, path, with_picture
from das_client.errors import NotFinished, ProblemError, QuestionEnded, ServiceUnreachable, UsageError
from das_client.events import LAST, Event, Reader
from das_client.retries import RETRIED_STATUSES

ENDED = frozenset({"succeeded", "failed", "cancelled", "erased"})
ReportFormat = Literal["json", "html", "pdf"]


class AsyncClient(AsyncBatches, AsyncEndpoints, AsyncOptOuts):
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

    async def ask(
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
        asked = await self._read(m.Attribution, call)
        if wait <= 0 or asked.state in ENDED:
            return _answered(asked, wait)
        return await self.wait_for(asked.id, max(0.0, wait - (time.monotonic() - began)))

    async def wait_for(self, attribution_id: str, wait: float = 600.0) -> m.Attribution:
        """The answer to a question that was asked, after `wait` seconds at most. Raises as `ask`."""
        began = time.monotonic()
        while True:
            left = wait - (time.monotonic() - began)
            found = await self.attribution(attribution_id, wait=max(0.0, min(left, HELD_S)))
            if found.state in ENDED:
                return _answered(found, wait)
            if left <= 0:
                raise NotFinished(attribution_id, wait)
            # Where the service holds nothing back, it isn't asked in a circle.
            await asyncio.sleep(0.1)

    async def attribution(self, attribution_id: str, *, wait: float | None = None) -> m.Attribution:
        """A question as it stands. `wait`: held back for so many seconds, 30 at most, until it is finished."""
        call = Call(
            "GET", path("/v1/attributions", attribution_id), {"wait": wait or None}, held_s=wait or 0.0
        )
        return await self._read(m.Attribution, call)

    async def attributions(
        self,
        *,
        state: str | None = None,
        client_tag: str | None = None,
        created_after: datetime | None = None,
    ) -> AsyncIterator[m.AttributionSummary]:
        """Your questions in short, the newest first."""
        query = {"state": state, "client_tag": client_tag, "created_after": created_after}
        async for page in self._pages(m.AttributionList, "/v1/attributions", query):
            for item in page.items:
                yield item

    async def events(self, attribution_id: str, *, last_event_id: str | None = None) -> AsyncIterator[Event]:
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
                async with self._open(call) as response:
                    if response.status_code == 204:
                        return
                    async for line in response.aiter_lines():
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
            await asyncio.sleep(pause)

    async def cancel(self, attribution_id: str) -> m.Attribution:
        """Stop working on a question; its picture is kept until it is erased."""
        return await self._read(
            m.Attribution, Call("POST", path("/v1/attributions", attribution_id) + "/cancel")
        )

    async def erase(self, attribution_id: str) -> None:
        """Erase a question with its picture and its answer."""
        await self._send(Call("DELETE", path("/v1/attributions", attribution_id)))

    async def picture(self, attribution_id: str) -> bytes:
        """The picture that was asked about, as it was normalised: a PNG."""
        return await self._bytes(path("/v1/attributions", attribution_id) + "/image")

    async def report(self, attribution_id: str, format: ReportFormat = "json") -> bytes:
        """The answer as evidence. The JSON is sealed: keep its bytes as they are."""
        if format not in ("json", "html", "pdf"):
            raise UsageError(f"a report is json, html or pdf, not {format!r}")
        return await self._bytes(path("/v1/attributions", attribution_id) + f"/report.{format}")

    async def report_key(self) -> m.ReportKey:
        """The public key that reports are signed with."""
        return await self._read(m.ReportKey, Call("GET", "/v1/report-key"))

    # ---- Links to answers ----

    async def share(self, attribution_id: str, **options: Unpack[m.ShareOptions]) -> m.NewlyMadeShareLink:
        """A link by which somebody without a key reads an answer; its `url` is in this answer only."""
        body = {n: v.isoformat() if isinstance(v, datetime) else v for n, v in options.items()}
        where = path("/v1/attributions", attribution_id) + "/shares"
        return await self._read(m.NewlyMadeShareLink, Call("POST", where, body=body, repeats=False))

    async def shares(self, attribution_id: str) -> list[m.ShareLink]:
        """Every link to an answer, the newest first."""
        where = path("/v1/attributions", attribution_id) + "/shares"
        return (await self._read(m.ShareLinkList, Call("GET", where))).items

    async def revoke_share(self, attribution_id: str, share_id: str) -> None:
        """Withdraw a link."""
        where = path("/v1/attributions", attribution_id) + path("/shares", share_id)
        await self._send(Call("DELETE", where))

    # ---- Moderation ----

    async def decide(
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
        made = await self._read(
            m.Decision, Call("POST", path("/v1/decisions"), headers=headers, held_s=held, **about)
        )
        while wait > 0 and made.state == "pending":
            left = wait - (time.monotonic() - began)
            if left <= 0:
                raise NotFinished(made.id, wait)
            made = await self.decision(made.id, wait=min(left, HELD_S))
        return made

    async def decision(self, decision_id: str, *, wait: float | None = None) -> m.Decision:
        """A decision as it stands. `wait` as in `attribution`."""
        call = Call("GET", path("/v1/decisions", decision_id), {"wait": wait or None}, held_s=wait or 0.0)
        return await self._read(m.Decision, call)

    async def decisions(
        self,
        *,
        policy: str | None = None,
        outcome: str | None = None,
        reviewed: bool | None = None,
        state: str | None = None,
        attribution: str | None = None,
    ) -> AsyncIterator[m.Decision]:
        """Decisions, the newest first."""
        query = {
            "policy": policy, "outcome": outcome, "reviewed": reviewed, "state": state, "attribution": attribution,
        }  # fmt: skip
        async for page in self._pages(m.DecisionList, "/v1/decisions", query):
            for item in page.items:
                yield item

    async def review(
        self, decision_id: str, outcome: Literal["clear", "block"], note: str | None = None
    ) -> m.Decision:
        """A person's word on a decision."""
        call = Call(
            "POST", path("/v1/decisions", decision_id) + "/review", body={"outcome": outcome, "note": note}
        )
        return await self._read(m.Decision, call)

    async def policies(self) -> list[m.PolicySummary]:
        """All policies."""
        return (await self._read(m.PolicyList, Call("GET", "/v1/policies"))).items

    async def policy(self, policy_id: str, *, version: int | None = None) -> m.PolicyCard:
        """A policy with the rules of one version: by default the active, or else the newest."""
        return await self._read(
            m.PolicyCard, Call("GET", path("/v1/policies", policy_id), {"version": version})
        )

    async def put_policy(self, policy: Mapping[str, Any] | str, *, dry_run: bool = False) -> m.PolicyCard:
        """Keep a policy (a mapping, or its text in YAML or JSON) and have it decide, or try it beside the active."""
        document = policy if isinstance(policy, str) else dict(policy)
        call = Call("POST", "/v1/policies", body={"policy": document, "dry_run": dry_run})
        return await self._read(m.PolicyCard, call)

    async def activate_policy(
        self, policy_id: str, version: int | None, *, dry_run: bool = False
    ) -> m.PolicyCard:
        """Have a version decide, or with `dry_run` be tried (None: none any more)."""
        body = {"version": version, "dry_run": dry_run}
        return await self._read(
            m.PolicyCard, Call("POST", path("/v1/policies", policy_id) + "/activate", body=body)
        )

    async def backtest(
        self, policy_id: str, *, cursor: str | None = None, **options: Unpack[m.BacktestOptions]
    ) -> m.Backtest:
        """One page of how a version would have decided; give its `next_cursor` for older answers."""
        body = {**options, "cursor": cursor}
        given = {n: v.isoformat() if isinstance(v, datetime) else v for n, v in body.items() if v is not None}
        return await self._read(
            m.Backtest, Call("POST", path("/v1/policies", policy_id) + "/backtest", body=given)
        )

    # ---- Indexes and works ----

    async def indexes(self) -> list[m.IndexSummary]:
        """The indexes that can be asked; the first is the default."""
        return (await self._read(m.IndexList, Call("GET", "/v1/indexes"))).items

    async def index(self, index_id: str) -> m.IndexCard:
        """One index with its card."""
        return await self._read(m.IndexCard, Call("GET", path("/v1/indexes", index_id)))

    async def works(self, index_id: str, *, tdm: str | None = None) -> AsyncIterator[m.Work]:
        """The works of an index, in its order; `tdm`: those with that rights signal, `none` those without any."""
        async for page in self._pages(m.WorkList, path("/v1/indexes", index_id) + "/works", {"tdm": tdm}):
            for item in page.items:
                yield item

    async def work(self, work_id: str, *, index: str | None = None) -> m.Work:
        """One training work."""
        return await self._read(m.Work, Call("GET", path("/v1/works", work_id), {"index": index}))

    async def thumbnail(self, work_id: str, *, index: str | None = None) -> bytes:
        """A work's small picture."""
        return await self._bytes(path("/v1/works", work_id) + "/thumbnail", {"index": index})

    # ---- Keys and the service itself ----

    async def keys(self, *, state: str | None = None) -> AsyncIterator[m.Key]:
        """Keys and links, without secrets, the newest first. This and all about keys takes the scope `admin`."""
        async for page in self._pages(m.KeyList, "/v1/api-keys", {"state": state}):
            for item in page.items:
                yield item

    async def create_key(
        self, name: str, scopes: list[str], **options: Unpack[m.KeyOptions]
    ) -> m.NewlyMadeKey:
        """A new key; its `secret` is in this answer only."""
        call = Call("POST", "/v1/api-keys", body={"name": name, "scopes": scopes, **options}, repeats=False)
        return await self._read(m.NewlyMadeKey, call)

    async def rotate_key(self, key_id: str, *, overlap_s: int = 7 * 86400) -> m.NewlyMadeKey:
        """A key that replaces another; both work for `overlap_s` seconds."""
        call = Call(
            "POST", path("/v1/api-keys", key_id) + "/rotate", body={"overlap": overlap_s}, repeats=False
        )
        return await self._read(m.NewlyMadeKey, call)

    async def revoke_key(self, key_id: str) -> None:
        """End a key or link."""
        await self._send(Call("DELETE", path("/v1/api-keys", key_id)))

    async def quota(self) -> m.Quota:
        """How much of your limits is used up."""
        return await self._read(m.Quota, Call("GET", "/v1/quota"))

    async def version(self) -> m.Version:
        """Which version of the service it is."""
        return await self._read(m.Version, Call("GET", "/version"))


def _answered(attribution: m.Attribution, wait: float) -> m.Attribution:
    if wait > 0 and attribution.state != "succeeded":
        raise QuestionEnded(attribution)
    return attribution
