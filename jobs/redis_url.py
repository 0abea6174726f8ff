"""DAS_REDIS_URL: what may stand in it, what each of our two clients makes of it, and what its faults mean.

No sentence made here holds any part of the URL but its scheme: the rest may be a password.
"""

from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import redis
from redis.connection import parse_url

SCHEMES = ("redis", "rediss", "unix")
_FORMS = "redis://HOST:PORT/NUMBER, rediss://… for TLS or unix:///PATH"


def fault_of(url: str) -> str | None:
    """What is wrong with the form of a URL, as a sentence; None if nothing is."""
    scheme = url.partition("://")[0].lower() if "://" in url else ""
    if not scheme:
        return f"it has no scheme; write {_FORMS}"
    if scheme == "sentinel":
        return f"sentinel:// isn't supported; name the server itself, or a proxy that follows it: {_FORMS}"
    if scheme not in SCHEMES:
        return f"the scheme of a Redis or Valkey server isn't {scheme}://; write {_FORMS}"
    try:
        parts = urlsplit(url)
        parse_url(url)
        _ = parts.port
    except ValueError:
        # Its text may quote the port, which is a piece of the password where that holds a bare '/', '#' or '?'.
        return (
            "it can't be taken apart; write every character of the password that isn't a letter or digit as"
            f" its percent code, and the address as {_FORMS}"
        )
    if scheme == "unix":
        return None if parts.path.strip("/") else "unix:// needs the path of a socket: unix:///PATH"
    number = parts.path.strip("/")
    if number and not number.isdecimal():
        return "what follows the port is the number of a database, such as /0"
    return None


def for_celery(url: str) -> str:
    """The same server in the form that Celery takes.

    It differs in three things: how a Unix socket is written, that the database's number may not be in the query, and
    that Celery would take any certificate where redis-py takes only a valid one.
    """
    parts, found = urlsplit(url), parse_url(url)
    query = {"ssl_cert_reqs": "required"} if parts.scheme == "rediss" else {}
    query |= {
        name: value for name, value in parse_qsl(parts.query) if name not in ("db", "username", "password")
    }
    number = found.get("db", 0)
    userinfo = ":".join(quote(str(found.get(part) or ""), safe="") for part in ("username", "password"))
    at = "" if userinfo == ":" else f"{userinfo}@"
    if parts.scheme == "unix":
        return f"redis+socket://{at}{quote(found['path'])}?{urlencode({**query, 'virtual_host': number})}"
    address = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{at}{address}/{number}{'?' if query else ''}{urlencode(query)}"


def lasting_fault(error: Exception) -> str | None:
    """What an error of a connection means, if waiting won't mend it: the setting or the server has to change."""
    said = str(error)
    if isinstance(error, redis.AuthenticationWrongNumberOfArgsError) or "without any password" in said:
        return "the server wants no password, and the URL has one: take it out"
    if "WRONGPASS" in said or "invalid password" in said or "invalid username" in said:
        return "the server refuses the user or the password in it"
    if isinstance(error, redis.AuthenticationError) or "NOAUTH" in said:
        return "the server wants a password: write it as redis://:PASSWORD@HOST:PORT/NUMBER"
    if "DB index is out of range" in said or "invalid DB index" in said:
        return "the server has no database of the number at its end; a plain server has 0 to 15"
    if isinstance(error, redis.exceptions.NoPermissionError):
        return f"its user may not do what is needed ({said})"
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return (
            "the server's certificate can't be verified: name the file of its authority with"
            " ?ssl_ca_certs=FILE at the end"
        )
    if "SSL" in said:
        return "the server doesn't speak TLS there: write redis:// instead of rediss://, or name its TLS port"
    return None
