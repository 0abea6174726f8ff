"""Telling the metrics: as an answer, and on a port of their own."""

from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.exposition import choose_encoder

from das.errors import SettingsError
from jobs.settings import Settings


def written(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """Everything in the registry in the form that an Accept header asks for, and the form's media type."""
    encode, media_type = choose_encoder(accept)
    return encode(registry), media_type


def open_port(settings: Settings, registry: CollectorRegistry) -> WSGIServer | None:
    """Answer on `DAS_METRICS_PORT`, in threads of its own and without keys; None where it isn't set.

    Raises:
        SettingsError: the port can't be opened.
    """
    if settings.metrics_port is None:
        return None
    try:
        server, _ = start_http_server(settings.metrics_port, settings.metrics_host, registry)
    except OSError as error:
        raise SettingsError(
            f"port {settings.metrics_port} on {settings.metrics_host} can't be opened for metrics"
            f" ({error.strerror or error}): let DAS_METRICS_PORT and DAS_METRICS_HOST name a free one"
        ) from error
    return server
