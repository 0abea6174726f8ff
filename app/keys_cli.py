"""`das keys`: make, list, revoke and exchange API keys, and links that let a person in."""

import json
import re
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.lengths import length_of
from das.errors import SettingsError
from das.tables import print_table
from jobs.credentials import Kind, Scope
from jobs.settings import Settings, get_settings

if TYPE_CHECKING:
    from jobs.keys import ApiKey, IssuedKey, Keys

NEVER = "never"


class State(StrEnum):
    """What becomes of a key."""

    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


Name = Annotated[str, typer.Argument(help="Whose it is or what it is for; shown in lists.")]
KeyId = Annotated[str, typer.Argument(help="The key's id or its beginning, as `das keys list` shows it.")]
Scopes = Annotated[
    list[Scope], typer.Option("--scope", help="What it may do; give it several times for several.")
]
Indexes = Annotated[
    list[str] | None,
    typer.Option("--index", help="Keep it to this index, by id or name; several times for several."),
]
RightsHolders = Annotated[
    list[str] | None,
    typer.Option("--rights-holder", help="Whom it speaks for: it sees works that only they may see."),
]
Quota = Annotated[
    int | None, typer.Option("--quota", help="Questions a day; without, what DAS_QUOTA says.", min=1)
]
Works = Annotated[
    int | None,
    typer.Option(
        "--works",
        help="Different works that it may be shown in a day; without, what DAS_REVEALED_WORKS_PER_DAY says.",
        min=1,
    ),
]
KeepUploads = Annotated[
    str | None,
    typer.Option(
        "--keep-uploads",
        help="How long pictures are kept after their question's end, such as 1h; 0: until then. Without, what"
        " DAS_KEEP_UPLOADS_SECONDS says.",
    ),
]
KeepResults = Annotated[
    str | None,
    typer.Option(
        "--keep-results",
        help="How long after its end a question is erased, such as 30d. Without, what DAS_KEEP_RESULTS_SECONDS says.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add `das keys` to `das`."""
    keys = typer.Typer(help="API keys, and links for people.", no_args_is_help=True)
    keys.command("create")(create_command)
    keys.command("link")(link_command)
    keys.command("list")(list_command)
    keys.command("revoke")(revoke_command)
    keys.command("rotate")(rotate_command)
    app.add_typer(keys, name="keys")


def create_command(
    name: Name,
    scope: Scopes = [Scope.ASK, Scope.READ],  # noqa: B006
    index: Indexes = None,
    expires: Annotated[
        str, typer.Option(help="How long it works, such as 90d or 12h; never: until revoked.")
    ] = NEVER,
    quota: Quota = None,
    works: Works = None,
    rights_holder: RightsHolders = None,
    keep_uploads: KeepUploads = None,
    keep_results: KeepResults = None,
) -> None:
    """Make a key. It is printed once and kept nowhere: only its hash is."""
    kept = _kept(keep_uploads, keep_results)
    _tell(_make(Kind.KEY, name, scope, index, expires, quota, works, rights_holder, kept))


def link_command(
    name: Name,
    scope: Scopes = [Scope.ASK],  # noqa: B006
    index: Indexes = None,
    expires: Annotated[str, typer.Option(help="How long it works, such as 7d or 12h.")] = "7d",
    quota: Quota = None,
    works: Works = None,
    rights_holder: RightsHolders = None,
    keep_uploads: KeepUploads = None,
    keep_results: KeepResults = None,
) -> None:
    """Make a link that lets one person into the page without an account. Reading their own answers is part of it."""
    # Who asks on the page reads the answer there.
    kept = _kept(keep_uploads, keep_results)
    issued = _make(Kind.LINK, name, [*scope, Scope.READ], index, expires, quota, works, rights_holder, kept)
    _tell(issued, f"{address_of_page(get_settings())}/sign-in/{issued.secret}")


def list_command(
    state: Annotated[State | None, typer.Option(help="Only those in this state.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, for machines.")] = False,
) -> None:
    """List keys and links, the newest first, without their secrets."""
    from jobs.models import utc_now

    found = _keys().each(None if state is None else str(state))
    rows = (described(key, key.state(utc_now())) for key in found)
    if as_json:
        for row in rows:
            typer.echo(json.dumps(row))
        return
    shown = [
        (
            row["prefix"],
            row["name"],
            row["state"],
            " ".join(row["scopes"]),
            " ".join(row["indexes"] or ["all"]),
            row["expires_at"] or NEVER,
            row["last_used_at"] or "–",
        )
        for row in rows
    ]
    columns = ("Key", "Name", "State", "Scopes", "Indexes", "Expires", "Last used")
    print_table(columns, shown, whole=("Key",))


def revoke_command(key: KeyId) -> None:
    """End a key or link, and all that is signed in with it."""
    revoked = _keys().revoke(_id(key))
    typer.echo(f"{revoked.prefix} ({revoked.name}) doesn't work any more.")


def rotate_command(
    key: KeyId,
    overlap: Annotated[
        str,
        typer.Option(help="How long the old one still works beside the new one, such as 7d; 0: not at all."),
    ] = "7d",
) -> None:
    """Make a key that replaces another: it sees the same questions and may do the same."""
    issued = _keys().rotate(_id(key), timedelta() if overlap == "0" else duration(overlap, "--overlap"))
    if issued.key.kind == Kind.LINK:
        _tell(issued, f"{address_of_page(get_settings())}/sign-in/{issued.secret}")
    else:
        _tell(issued)


def duration(text: str, option: str) -> timedelta:
    """The length of time that a text such as `7d`, `12h`, `30m` or `45s` means; raises SettingsError."""
    length = length_of(text)
    if length is None:
        raise SettingsError(f"{option} {text!r} isn't a length of time: write it as 7d, 12h, 30m or 45s")
    return length


def described(key: "ApiKey", state: str) -> dict[str, Any]:
    """What is told of a key: everything but its digest."""
    moments = {
        name: getattr(key, name) for name in ("created_at", "expires_at", "revoked_at", "last_used_at")
    }
    return {
        "id": key.id,
        "prefix": key.prefix,
        "kind": key.kind,
        "name": key.name,
        "state": state,
        "scopes": key.scopes,
        "indexes": key.indexes,
        "daily_quota": key.daily_quota,
        "daily_works": key.daily_works,
        "rights_holders": key.rights_holders or [],
        "keep_uploads": key.keep_uploads,
        "keep_results": key.keep_results,
        "replaces": key.replaces,
        **{name: None if at is None else at.isoformat(timespec="seconds") for name, at in moments.items()},
    }


def address_of_page(settings: Settings) -> str:
    """Where people reach the page, as far as the settings tell."""
    if settings.public_url:
        return settings.public_url
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def _keys() -> "Keys":
    from jobs.database import Database, upgrade
    from jobs.keys import Keys

    settings = get_settings()
    upgrade(settings)
    return Keys(Database(settings, pooled=False))


def _make(
    kind: Kind,
    name: str,
    scopes: list[Scope],
    indexes: list[str] | None,
    expires: str,
    quota: int | None,
    works: int | None,
    rights_holders: list[str] | None,
    kept: dict[str, timedelta | None],
) -> "IssuedKey":
    from jobs.keys import NewKey

    wanted = NewKey(
        name=name,
        kind=kind,
        scopes=frozenset(scopes),
        indexes=tuple(dict.fromkeys(indexes)) if indexes else None,
        daily_quota=quota,
        daily_works=works,
        expires_in=None if expires == NEVER and kind is Kind.KEY else duration(expires, "--expires"),
        rights_holders=tuple(dict.fromkeys(rights_holders or ())),
        **kept,
    )
    issued = _keys().create(wanted)
    _warn_of_unserved(wanted.indexes or ())
    return issued


def _warn_of_unserved(named: tuple[str, ...]) -> None:
    """Say which of a key's indexes aren't here: it may be to come, or be misspelt."""
    if not named:
        return
    from app.catalogue import Catalogue

    # Where there is none at all they may be served by another machine.
    here = {name for served in Catalogue.open(get_settings()) for name in (served.id, served.name)}
    for name in named:
        if here and name not in here:
            typer.echo(
                f"No index {name} is in DAS_INDEX_DIR now; there is {', '.join(sorted(here))}. The key works for it"
                " once it is.",
                err=True,
            )


def _kept(uploads: str | None, results: str | None) -> dict[str, timedelta | None]:
    return {
        "keep_uploads": timedelta() if uploads == "0" else _span(uploads, "--keep-uploads"),
        "keep_results": _span(results, "--keep-results"),
    }


def _span(text: str | None, option: str) -> timedelta | None:
    return None if text is None else duration(text, option)


def _id(given: str) -> str:
    """The id in what somebody typed: the id, its prefix, or by mistake the whole key."""
    found = re.fullmatch(r"(?:dasl?_)?([^_]*)(?:_.*)?", given)
    return given if found is None else found[1]


def _tell(issued: "IssuedKey", shown: str | None = None) -> None:
    key = issued.key
    until = "until it is revoked" if key.expires_at is None else f"until {key.expires_at:%Y-%m-%d %H:%M} UTC"
    typer.echo(
        f"{key.prefix} ({key.name}): {', '.join(key.scopes)}, on {', '.join(key.indexes or ['every index'])},"
        f" {until}. Keep what follows now, it can't be shown again:",
        err=True,
    )
    typer.echo(shown or issued.secret)
