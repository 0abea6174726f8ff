"""Opt-outs, by a client that waits. Made by client/generate.py of async_opt_outs.py; don't edit."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from das_client import models as m
from das_client.call import Call, path
from das_client.reading import Reading

WHERE = "/v1/opt-outs"


class OptOuts(Reading):
    """Opt-outs. `token`: of who asked without a key, as `opt_out` gave it."""

    def opt_out(
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
        return self._read(m.NewlyReceivedOptOut, Call("POST", WHERE, body=body, repeats=False))

    def opt_outs(self, *, state: str | None = None) -> Iterator[m.OptOut]:
        """Your opt-outs, the newest first; with the scope `admin` everybody's."""
        for page in self._pages(m.OptOutList, WHERE, {"state": state}):
            yield from page.items

    def opt_out_state(self, opt_out_id: str, *, token: str | None = None) -> m.OptOut:
        """How far an opt-out is."""
        call = Call("GET", path(WHERE, opt_out_id), headers=_holding(token))
        return self._read(m.OptOut, call)

    def withdraw_opt_out(self, opt_out_id: str, *, token: str | None = None) -> m.OptOut:
        """Take an opt-out back: what it hid is shown again."""
        where = path(WHERE, opt_out_id) + "/withdraw"
        return self._read(m.OptOut, Call("POST", where, headers=_holding(token), repeats=False))

    def erase_opt_out(self, opt_out_id: str, *, token: str | None = None) -> None:
        """Erase what is known of who asked; what is hidden stays hidden."""
        self._send(Call("DELETE", path(WHERE, opt_out_id), headers=_holding(token)))

    def verify_opt_out(self, opt_out_id: str) -> m.OptOut:
        """Find it right: its works are hidden from now on. This and what follows takes the scope `admin`."""
        return self._read(m.OptOut, Call("POST", path(WHERE, opt_out_id) + "/verify", repeats=False))

    def apply_opt_out(
        self, opt_out_id: str, *, left_out_at: datetime | None = None, removed_at: datetime | None = None
    ) -> m.OptOut:
        """Say when its works were left out of an index, or gone from the model."""
        given = {"left_out_at": left_out_at, "removed_at": removed_at}
        body = {name: moment.isoformat() for name, moment in given.items() if moment is not None}
        return self._read(m.OptOut, Call("POST", path(WHERE, opt_out_id) + "/apply", body=body))

    def reject_opt_out(self, opt_out_id: str, reason: str) -> m.OptOut:
        """Refuse it with a reason; what it hid is shown again."""
        call = Call("POST", path(WHERE, opt_out_id) + "/reject", body={"reason": reason}, repeats=False)
        return self._read(m.OptOut, call)


def _holding(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Opt-Out-Token": token}
