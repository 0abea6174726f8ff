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
from jobs.credentials import Scope
from jobs.models import LOCAL_OWNER

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
    scopes: frozenset[Scope] = WITHOUT_A_KEY
    indexes: frozenset[str] | None = None
    key: str | None = None
    name: str | None = None
    daily_quota: int | None = None
    language: Language = field(default=ENGLISH, compare=False)

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


Asking = Annotated[Caller, Depends(Needs(Scope.ASK))]
Reading = Annotated[Caller, Depends(Needs(Scope.READ))]
Deciding = Annotated[Caller, Depends(Needs(Scope.DECIDE))]
Administering = Annotated[Caller, Depends(Needs(Scope.ADMIN))]
