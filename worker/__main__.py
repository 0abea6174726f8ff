"""`python -m worker`: one worker with the settings of the environment. `das serve` starts it in this way."""

import sys

from jobs.database import upgrade
from jobs.settings import get_settings
from worker.app import run


def main() -> int:
    """Run a worker until it is told to end; returns the exit code.

    Raises:
        DasError: a setting can't be used, or nothing says where the broker is.
    """
    from worker.engine import AttributionEngine

    settings = get_settings()
    upgrade(settings)
    return run(settings, AttributionEngine)


if __name__ == "__main__":
    sys.exit(main())
