"""Who asks. Every use case takes a `Caller`, and sees and changes that caller's questions only.

A route says what its caller must be allowed by one of `Asking`, `Reading`, `Deciding` and `Administering`; which key
a request shows is read by `app.access`.
"""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, cast

from fastapi import Depends
from starlette.requests import Request

from app.language import ENGLISH, Language, language_of
from app.problems import Problem
from jobs.audit import Actor
from jobs.credentials import Scope
from jobs.models import LOCAL_OWNER
from jobs.opt_outs import WITHOUT_KEY

if TYPE_CHECKING:
    from app.access import Access

# What whoever comes without a key may do where none is needed. Keys are made by those alone who have one for it: else
# somebody could make one today, and come in by it when the operator asks for keys tomorrow.
WITHOUT_A_KEY = frozenset({Scope.ASK, Scope.READ, Scope.DECIDE})


@dataclass(frozen=True)
class Caller:
    """Whoever sent a request. `owner` is the name that their questions are stored under.

    `address` is where they ask from. `key` is the public part of their key and `name` what that is called, None for
    who came without one; `indexes` are the ids and names of those that they may see and ask, None for all. Answers
    are told in their `language`.
    """

    owner: str
    address: str = field(default="", compare=False)
    request_id: str | None = field(default=None, compare=False)
    scopes: frozenset[Scope] = WITHOUT_A_KEY
    indexes: frozenset[str] | None = None
    key: str | None = None
    name: str | None = None
    daily_quota: int | None = None
    daily_works: int | None = None
    language: Language = field(default=ENGLISH, compare=False)
    rights_holders: frozenset[str] = frozenset()
    """Whose works their key lets them see that only the rights holder may, as `das.names.folded` has them."""

    @property
    def actor(self) -> Actor:
        """Who they are in the audit log."""
        return Actor(self.key or self.owner, self.request_id)

    def needs(self, scope: Scope) -> None:
        """See that this caller may do what takes a scope; raises `Problem`: key-required or scope-missing."""
        if scope in self.scopes:
            return
        if self.key is None:
            raise key_required(
                f"This takes a key with the scope {scope}: das keys create NAME --scope {scope}."
            )
        raise Problem(
            "scope-missing",
            f"The key {self.key} doesn't have the scope {scope}, which this takes; it has"
            f" {', '.join(sorted(self.scopes))}.",
            {"WWW-Authenticate": f'{CHALLENGE}, error="insufficient_scope", scope="{scope}"'},
        )


LOCAL = Caller(LOCAL_OWNER)
CHALLENGE = 'Bearer realm="das"'


def key_required(why: str) -> Problem:
    """The 401 for a request without a key."""
    return Problem("key-required", why, {"WWW-Authenticate": CHALLENGE})


async def caller_of(request: Request) -> Caller:
    """The caller of a request; raises `Problem` where its key doesn't let it in."""
    # Async, since FastAPI would give anything else a turn of a thread, in every request.
    access = cast("Access", request.app.state.service.access)
    return replace(await access.caller(request), language=language_of(request))


@dataclass(frozen=True)
class Needs:
    """A dependency: the caller of a request, who may do what takes this scope."""

    scope: Scope

    async def __call__(self, caller: Annotated[Caller, Depends(caller_of)]) -> Caller:
        caller.needs(self.scope)
        return caller


@dataclass(frozen=True)
class NeedsOrAdministers(Needs):
    """The same, or who administers the service."""

    async def __call__(self, caller: Annotated[Caller, Depends(caller_of)]) -> Caller:
        if Scope.ADMIN not in caller.scopes:
            caller.needs(self.scope)
        return caller


@dataclass(frozen=True)
class NeedsOrComesWithout:
    """The same where a key is shown; who shows none may come too, if the service is open for that.

    `opt_out_token`: who holds the token of an opt-out comes in as well. `anybody`: who shows nothing does too, to be
    asked for that token on a page.
    """

    scope: Scope
    opt_out_token: bool = False
    anybody: bool = False

    async def __call__(self, request: Request) -> Caller:
        access = cast("Access", request.app.state.service.access)
        caller = await access.visitor(request, self.opt_out_token, self.anybody)
        if caller.owner != WITHOUT_KEY and Scope.ADMIN not in caller.scopes:
            caller.needs(self.scope)
        return caller


async def opener_of(request: Request) -> Caller:
    """Whoever opens a share, which takes no key and no scope; raises `Problem` for a key that doesn't work."""
    access = cast("Access", request.app.state.service.access)
    return await access.visitor(request, by_token=False, anybody=True)


Opening = Annotated[Caller, Depends(opener_of)]
Asking = Annotated[Caller, Depends(Needs(Scope.ASK))]
Reading = Annotated[Caller, Depends(Needs(Scope.READ))]
Deciding = Annotated[Caller, Depends(Needs(Scope.DECIDE))]
Looking = Annotated[Caller, Depends(NeedsOrAdministers(Scope.READ))]
OptingOut = Annotated[Caller, Depends(NeedsOrComesWithout(Scope.ASK))]
HoldingToken = Annotated[Caller, Depends(NeedsOrComesWithout(Scope.READ, opt_out_token=True))]
Following = Annotated[Caller, Depends(NeedsOrComesWithout(Scope.READ, anybody=True))]
Administering = Annotated[Caller, Depends(Needs(Scope.ADMIN))]
