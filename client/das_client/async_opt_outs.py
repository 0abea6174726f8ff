"""Requests that works be left out. `opt_outs.py` is made of this file by `client/generate.py`."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime

from das_client import models as m
from das_client.async_reading import AsyncReading
from das_client.call import Call, path

WHERE = "/v1/opt-outs"


class AsyncOptOuts(AsyncReading):
    """Opt-outs. `token`: of who asked without a key, as `opt_out` gave it."""

    async def opt_out(
        self,
        contact: str,
        *,
        works: Sequence[str] | None = None,
        creator: str | None = None,
        index: str | None = None,
        statement: str | None = None,
    ) -> m.NewlyReceivedOptOut:
        """Ask that works be left out: these, or all of a creator's.

        Args:
            contact: how the operator reaches who asks.
            works: their ids, as answers have them.
            creator: in their place the creator's name, as answers have it.
            index: id or name of the index; default: the first.
            statement: what shows that the works are theirs.
        """
        body = {
            "contact": contact,
            "works": None if works is None else list(works),
            "creator": creator,
            "index": index,
            "statement": statement,
        }
        return await self._read(m.NewlyReceivedOptOut, Call("POST", WHERE, body=body, repeats=False))

    async def opt_outs(self, *, state: str | None = None) -> AsyncIterator[m.OptOut]:
        """Your opt-outs, the newest first; with the scope `admin` everybody's."""
        async for page in self._pages(m.OptOutList, WHERE, {"state": state}):
            for item in page.items:
                yield item

    async def opt_out_state(self, opt_out_id: str, *, token: str | None = None) -> m.OptOut:
        """How far an opt-out is."""
        call = Call("GET", path(WHERE, opt_out_id), headers=_holding(token))
        return await self._read(m.OptOut, call)

    async def withdraw_opt_out(self, opt_out_id: str, *, token: str | None = None) -> m.OptOut:
        """Take an opt-out back: what it hid is shown again."""
        where = path(WHERE, opt_out_id) + "/withdraw"
        return await self._read(m.OptOut, Call("POST", where, headers=_holding(token), repeats=False))

    async def erase_opt_out(self, opt_out_id: str, *, token: str | None = None) -> None:
        """Erase what is known of who asked; what is hidden stays hidden."""
        await self._send(Call("DELETE", path(WHERE, opt_out_id), headers=_holding(token)))

    async def verify_opt_out(self, opt_out_id: str) -> m.OptOut:
        """Find it right: its works are hidden from now on. This and what follows takes the scope `admin`."""
        return await self._read(m.OptOut, Call("POST", path(WHERE, opt_out_id) + "/verify", repeats=False))

    async def apply_opt_out(
        self, opt_out_id: str, *, left_out_at: datetime | None = None, removed_at: datetime | None = None
    ) -> m.OptOut:
        """Say when its works were left out of an index, or gone from the model."""
        given = {"left_out_at": left_out_at, "removed_at": removed_at}
        body = {name: moment.isoformat() for name, moment in given.items() if moment is not None}
        return await self._read(m.OptOut, Call("POST", path(WHERE, opt_out_id) + "/apply", body=body))

    async def reject_opt_out(self, opt_out_id: str, reason: str) -> m.OptOut:
        """Refuse it with a reason; what it hid is shown again."""
        call = Call("POST", path(WHERE, opt_out_id) + "/reject", body={"reason": reason}, repeats=False)
        return await self._read(m.OptOut, call)


def _holding(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Opt-Out-Token": token}
