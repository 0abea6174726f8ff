"""Every setting of the service, read from the environment (prefix `DAS_`) or a `.env` file only.

`das config` lists them with these descriptions.
"""

import ipaddress
import os
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from das.durable import is_unfinished
from das.errors import SettingsError
from jobs.masking import masked
from jobs.record_settings import RecordSettings
from jobs.secret_files import SecretFiles
from jobs.work_settings import WorkSettings

MANIFEST = "manifest.json"

# A host as it stands in an address: a name in ASCII, an IPv4 address, or an IPv6 address in brackets.
HOST = r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)"

# A number in a span of time.
SECONDS_OF = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
RATE = rf"([1-9][0-9]{{0,8}})/({'|'.join(SECONDS_OF)})"


def is_loopback(host: str) -> bool:
    """Whether a name or address, in brackets or not, is this machine's own."""
    bare = host.lower().removesuffix(".").removeprefix("[").removesuffix("]")
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return bare == "localhost"


def host_names(listed: str) -> list[str]:
    """The names in a text that separates them by commas."""
    return [name for part in listed.split(",") if (name := part.strip())]


class Settings(WorkSettings, RecordSettings):
    """What can be set. Every field is also the environment variable `DAS_` and its name in capitals."""

    model_config = SettingsConfigDict(
        env_prefix="DAS_",
        env_file=".env",
        # As `${DAS_MODEL_DIR:-}` in a compose file gives it; an empty path would be the working directory.
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        # A value that can't be used may hold a password.
        hide_input_in_errors=True,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, dotenv_settings, SecretFiles(settings_cls)

    data_dir: Path = Field(
        default=Path("var"),
        description="Directory for everything the service writes: database, pictures, the broker's log.",
    )
    index_dir: Path = Field(
        default=Path("index"),
        description="An attribution index made by `das build`, or a directory that holds several of them.",
    )
    database_url: str | None = Field(
        default=None,
        description="SQLAlchemy URL of the database, such as `postgresql+psycopg://user@host/das`."
        " Unset: an SQLite file in the data directory.",
    )
    redis_url: SecretStr | None = Field(
        default=None,
        description="URL of a Redis or Valkey server. Unset: `das serve` starts its own on a Unix socket.",
    )
    blob_url: str | None = Field(
        default=None,
        description="Where normalised uploads are kept: a directory or an fsspec URL such as `s3://bucket/das`."
        " Unset: `blobs` in the data directory.",
    )
    host: str = Field(default="127.0.0.1", description="Address the web service listens on.")
    port: int = Field(
        default=8000, ge=0, le=65535, description="Port the web service listens on; 0 takes a free one."
    )
    metrics_port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="Port on which each API process and `das io-worker` answers `/metrics` without a key, for"
        " Prometheus. Unset: only the API's own port does, to a key with the scope `admin`.",
    )
    metrics_host: str = Field(default="127.0.0.1", description="Address of that port.")
    public_url: str | None = Field(
        default=None,
        description="Address under which people reach the service, where a proxy stands in front of it,"
        " such as `https://das.example.org`.",
    )
    allowed_hosts: str = Field(
        default="",
        description="Further host names, separated by commas, that requests may name in `Host`. Always allowed:"
        " the loopback names and the hosts of `DAS_HOST` and `DAS_PUBLIC_URL`.",
    )
    api_keys: Literal["auto", "required", "off"] = Field(
        default="auto",
        description="Whether requests need an API key. `auto`: unless the service listens on a loopback address and"
        " goes by no other name. `off`: whoever reaches it may see, ask and erase everything.",
    )
    rate_limit: str | None = Field(
        default="3000/minute",
        description="Requests of one key, such as `3000/minute` (or second, hour, day); more are answered with 429."
        " `none`: as many as it likes.",
    )
    address_rate_limit: str | None = Field(
        default="600/minute",
        description="Requests from one address without a key that works, in the same form. This machine itself isn't"
        " held to it where no keys are needed.",
    )
    quota: int | None = Field(
        default=None,
        ge=1,
        description="Questions of one key in a day (UTC), unless the key has its own. Unset: any.",
    )
    session_secret: SecretStr | None = Field(
        default=None,
        min_length=32,
        description="What the cookies of those who are signed in are signed with, the same for every API process."
        " Unset: random bytes in the data directory.",
    )
    webhook_key: SecretStr | None = Field(
        default=None,
        min_length=32,
        description="What the secrets of webhook endpoints are encrypted with in the database, the same for every API"
        " process and `das io-worker`. Unset: random bytes in the data directory.",
    )
    duties: Literal["here", "io-worker"] = Field(
        default="here",
        description="Who does what has to be done now and then (webhooks, lost jobs, due decisions, tidying): `here`,"
        " every API process on the side, or `io-worker`, processes of `das io-worker` alone.",
    )
    max_upload_bytes: int = Field(
        default=25_000_000,
        ge=1,
        description="Largest upload in bytes; more is refused while it is still arriving.",
    )
    bodies_in_flight_bytes: int = Field(
        default=200_000_000,
        ge=1,
        description="Most bytes of uploads that are held at once, half of them from one address; beyond that the"
        " answer is 503. Parsing and decoding take a few times an upload's size besides.",
    )
    head_seconds: float = Field(
        default=10.0,
        gt=0,
        description="Time for a request's head to come, and for its answer to be taken on.",
    )
    body_seconds: float = Field(default=120.0, gt=0, description="Time for an upload to come.")
    body_stall_seconds: float = Field(default=10.0, gt=0, description="Longest pause in an upload.")
    fetch_allow: str = Field(
        default="",
        description="Hosts and networks, separated by commas, that callers may have connected to although they aren't"
        " on the public internet, such as `media.internal, 10.1.0.0/16`; there also by http and on other ports.",
    )
    max_pixels: int = Field(
        default=40_000_000, ge=1, description="Largest picture in pixels, checked before anything is decoded."
    )
    top_k_max: int = Field(default=1000, ge=1, description="Most ranked works that one answer may ask for.")
    queue_limit: int = Field(
        default=200, ge=1, description="Pictures that may wait at once; further ones are answered with 503."
    )
    owner_queue_limit: int | None = Field(
        default=None,
        ge=1,
        description="Pictures of one owner that may wait at once. Unset: as many as may wait in all.",
    )
    streams_limit: int = Field(
        default=1000, ge=1, description="Streams of events that may be open at once; further ones get 503."
    )
    owner_streams_limit: int = Field(
        default=100, ge=1, description="Streams of events of one owner that may be open at once; then 429."
    )
    index_wait_seconds: float = Field(
        default=900.0,
        gt=0,
        description="How long an accepted picture waits while no worker holds its index; then it fails and says so.",
    )
    idempotency_seconds: float = Field(
        default=86_400.0,
        gt=0,
        description="How long an `Idempotency-Key` is remembered: until then, sending a request again makes nothing"
        " new.",
    )
    batch_max_bytes: int = Field(
        default=50_000_000,
        ge=1,
        description="Largest batch of pictures in bytes; never more than half of `DAS_BODIES_IN_FLIGHT_BYTES`.",
    )
    batch_items_limit: int = Field(
        default=1000,
        ge=1,
        description="Pictures of batches that may wait to be read, half of them of one owner; further batches are"
        " answered with 503.",
    )
    rering_seconds: float = Field(
        default=5.0,
        gt=0,
        description="How long a waiting job may stay unclaimed before its bell is rung again.",
    )
    sweep_seconds: float = Field(
        default=1.0, gt=0, description="How often lost bells and expired leases are looked for."
    )
    heartbeat_seconds: float = Field(
        default=3.0,
        gt=0,
        description="How often a worker says that it is alive; three missed beats make it stale.",
    )
    broker_timeout_seconds: float = Field(
        default=5.0, gt=0, description="Longest wait for the broker to connect or to answer."
    )
    database_timeout_seconds: float = Field(
        default=10.0, gt=0, description="Longest wait for another writer to leave the SQLite database."
    )
    device: str = Field(default="cpu", description="Where workers compute: `cpu`, `cuda`, `cuda:1` or `mps`.")
    model_dir: Path | None = Field(
        default=None,
        description="Where the models of the indexes are looked for first, with their LoRAs and CLIP: a directory"
        " that holds them, or the one pipeline. Unset: where each was when its index was built.",
    )
    torch_threads: int | None = Field(
        default=None, ge=1, description="CPU threads of a worker. Unset: one for every core it may use."
    )
    samples_dir: Path | None = Field(
        default=None,
        description="Directory of sample generations that the page offers for a click. Unset: none.",
    )
    report_key_file: Path | None = Field(
        default=None,
        description="The private key (Ed25519, PEM) that reports are signed with; `das report key` makes one. Unset:"
        " reports have a digest and no signature.",
    )
    c2pa_certificate_file: Path | None = Field(
        default=None,
        description="The chain of certificates (PEM, the signer's first) that PDFs of reports are signed with, by"
        " C2PA. Unset: they aren't.",
    )
    c2pa_key_file: Path | None = Field(
        default=None, description="The private key (PEM, without a password) of that certificate."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least important messages that are still logged."
    )
    log_format: Literal["text", "json"] = Field(
        default="text", description="Log lines for people, or one JSON object a line for machines."
    )

    @field_validator(
        "data_dir",
        "index_dir",
        "model_dir",
        "samples_dir",
        "report_key_file",
        "c2pa_certificate_file",
        "c2pa_key_file",
    )
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        # The worker and the broker may run with another working directory than the process that read this.
        return None if value is None else Path(os.path.abspath(value.expanduser()))  # noqa: PTH100

    @field_validator("redis_url")
    @classmethod
    def _usable_redis_url(cls, value: SecretStr | None) -> SecretStr | None:
        # Redis's client takes a moment to import; `das --help` shall not wait for it.
        from jobs.redis_url import fault_of

        fault = None if value is None else fault_of(value.get_secret_value())
        if fault:
            raise ValueError(fault)
        return value

    @field_validator("rate_limit", "address_rate_limit", "opt_out_rate_limit")
    @classmethod
    def _a_rate(cls, value: str | None) -> str | None:
        if value is None or value == "none":
            return None
        if not re.fullmatch(RATE, value):
            raise ValueError(
                f"{value!r} isn't a rate: write it as 100/minute (second, minute, hour or day), or none"
            )
        return value

    @field_validator("public_url")
    @classmethod
    def _an_origin(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(rf"https?://{HOST}(:[0-9]{{1,5}})?/?", value):
            raise ValueError(
                "has to be http:// or https:// with a host of the service's own, in ASCII, and no path:"
                " https://das.example.org"
            )
        return None if value is None else value.rstrip("/")

    @field_validator("allowed_hosts")
    @classmethod
    def _host_names(cls, value: str) -> str:
        for name in host_names(value):
            if not re.fullmatch(HOST, name):
                raise ValueError(
                    f"{name!r} isn't a host: names without scheme, port or *, separated by commas"
                )
        return value

    @field_validator("fetch_allow")
    @classmethod
    def _hosts_and_networks(cls, value: str) -> str:
        for entry in host_names(value):
            try:
                ipaddress.ip_network(entry.strip("[]"))
            except ValueError:
                if not re.fullmatch(HOST, entry) or "[" in entry or re.fullmatch(r"[0-9.]*|0[xX].*", entry):
                    raise ValueError(
                        f"{entry!r} is neither a host nor a network: names without scheme, port or *, addresses, or"
                        " networks such as 10.1.0.0/16, separated by commas"
                    ) from None
        return value

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """What a traceback or a debugger shows: no password."""
        return [
            (name, masked(value) if isinstance(value, str) else value)
            for name, value in super().__repr_args__()
        ]

    @property
    def fetch_allowed(self) -> list[str]:
        """The entries of `fetch_allow`, one by one."""
        return host_names(self.fetch_allow)

    @property
    def allowed_host_names(self) -> list[str]:
        """The hosts in `allowed_hosts`, one by one."""
        return host_names(self.allowed_hosts)

    @property
    def keys_required(self) -> bool:
        """Whether requests need a key: where others than this machine's users can reach the service, by default."""
        return self.api_keys == "required" or (self.api_keys == "auto" and self.reached_from_beyond)

    @property
    def reached_from_beyond(self) -> bool:
        """Whether one of its names isn't this machine's own."""
        names = [self.host, *self.allowed_host_names, urlsplit(self.public_url or "").hostname or self.host]
        return not all(map(is_loopback, names))

    @property
    def largest_batch_bytes(self) -> int:
        """The most bytes that a batch may have: what one address may send at once."""
        return min(self.batch_max_bytes, self.bodies_in_flight_bytes // 2)

    @property
    def resolved_database_url(self) -> str:
        """The database's SQLAlchemy URL, with the default filled in."""
        return self.database_url or f"sqlite:///{self.data_dir / 'das.sqlite3'}"

    @property
    def resolved_blob_url(self) -> str:
        """The blob store's directory or URL, with the default filled in."""
        return self.blob_url or str(self.data_dir / "blobs")

    @property
    def stale_after_seconds(self) -> float:
        """Age from which a worker's last heartbeat no longer counts as a sign of life."""
        return 3 * self.heartbeat_seconds

    def index_directories(self) -> list[Path]:
        """The indexes under `index_dir`: itself, or its sub-directories that hold a manifest, by name.

        Raises:
            SettingsError: there is none.
        """
        if (self.index_dir / MANIFEST).is_file():
            return [self.index_dir]
        places = (path.parent for path in self.index_dir.glob(f"*/{MANIFEST}"))
        found = sorted(place for place in places if not is_unfinished(place.name))
        if not found:
            raise SettingsError(
                f"there is no attribution index in {self.index_dir}: build one with `das build`,"
                " or let DAS_INDEX_DIR name the directory of one"
            )
        return found

    def to_environment(self) -> dict[str, str]:
        """The environment variables that give another process these same settings."""
        environment = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if value is None and name.endswith("rate_limit"):
                value = "none"
            if value is not None:
                shown = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
                environment[f"DAS_{name.upper()}"] = shown
        return environment

    def prepare_data_dir(self) -> Path:
        """Make the data directory, for its owner's eyes only, and see that it can be written.

        Raises:
            SettingsError: it can't be made or written.
        """
        return writable_directory(self.data_dir, "DAS_DATA_DIR")


def writable_directory(path: Path, setting: str) -> Path:
    """Make `path` with its parents if need be and see that files can be made in it.

    Raises:
        SettingsError: it can't; the message names the path, the reason and the setting to change.
    """
    probe = path / f".write-check-{os.getpid()}"
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise SettingsError(
            f"{path} can't be written ({error.strerror or error}): mend its rights or make room,"
            f" or let {setting} name another directory"
        ) from error
    return path


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process, read once.

    Raises:
        SettingsError: a variable has a value that can't be used; the message names each.
    """
    try:
        return Settings()
    except ValidationError as error:
        faults = "; ".join(
            (f"DAS_{'_'.join(map(str, fault['loc'])).upper()}: " if fault["loc"] else "")
            + fault["msg"].removeprefix("Value error, ")
            for fault in error.errors()
        )
        raise SettingsError(f"a setting can't be used: {faults}") from error
