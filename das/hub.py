"""Whether the model hub can be asked at all: found out in a second, where its client would try for a minute."""

import socket
import threading
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from das.errors import ModelError
from das.sources import may_be_hub_id

SECONDS = 0.8
"""A name is looked up and a connection opened in a tenth of this; both fail at once without a network."""

_PORTS = {"http": 80, "https": 443}


def unreachable() -> str | None:
    """Why the hub can't be asked; None where it can, as far as opening a connection tells."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    proxies = getproxies()
    scheme = urlsplit(constants.ENDPOINT).scheme
    address = urlsplit(proxies.get(scheme) or proxies.get("all") or constants.ENDPOINT)
    host = address.hostname or "huggingface.co"
    try:
        port = address.port or _PORTS.get(address.scheme, 443)
    except ValueError:
        return f"the address of the hub, {host}, has no usable port"
    opened: list[bool] = []
    # A look-up has no time limit of its own.
    attempt = threading.Thread(target=_open, args=(host, port, opened), daemon=True)
    attempt.start()
    attempt.join(SECONDS)
    return None if opened else f"there is no network to {host}"


def _open(host: str, port: int, opened: list[bool]) -> None:
    try:
        socket.create_connection((host, port), SECONDS).close()
        opened.append(True)
    except (OSError, ValueError, UnicodeError):
        return


def check_reachable(name: str) -> None:
    """Raise ModelError unless a hub id is in the hub's cache on this machine, or the hub can be asked for it."""
    if not may_be_hub_id(name):
        raise ModelError(f"There is no model {name!r}: no such directory, and no hub id (owner/name).")
    if cached(name) or (why := unreachable()) is None:
        return
    raise ModelError(
        f"No diffusion model could be loaded from {name!r}: there is no such directory here, the hub's cache on this"
        f" machine hasn't got it, and the hub can't be asked: {why}."
    )


def cached(repository: str) -> bool:
    """Whether something of a hub's repository is in the cache on this machine."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}" / "snapshots"
    return folder.is_dir() and any(folder.iterdir())
