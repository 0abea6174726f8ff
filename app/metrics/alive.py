"""`python -m app.metrics.alive`: whether the `das io-worker` beside it does its duties; a health check."""

import http.client
import sys
import time

from prometheus_client.parser import text_string_to_metric_families

from app.metrics.meters import LAST_DONE
from das.errors import DasError
from jobs.settings import get_settings

# The duty that comes round most often. One that waits for the database stands as well.
DUTY = "deliver"
STALE_S = 60.0
# A scrape waits for database and broker for some seconds.
PATIENCE_S = 8.0


def fault(port: int | None) -> str | None:
    """Why the process whose metrics are on this port isn't well; None if it is."""
    if port is None:
        return "DAS_METRICS_PORT isn't set, so nobody can look"
    # Past any proxy of the environment.
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        return f"nothing answers on port {port} ({error})"
    finally:
        connection.close()
    done = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == LAST_DONE and sample.labels.get("duty") == DUTY
    ]
    if not done:
        return "it hasn't looked yet for what is to be delivered"
    since = time.time() - max(done)
    return None if since < STALE_S else f"it last looked for what is to be delivered {since:.0f} s ago"


def main() -> int:
    """Exits with 1, and a sentence, where it isn't well."""
    try:
        found = fault(get_settings().metrics_port)
    except DasError as error:
        found = str(error)
    if found is not None:
        print(found, file=sys.stderr)  # noqa: T201
    return 0 if found is None else 1


if __name__ == "__main__":
    sys.exit(main())
