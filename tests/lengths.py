"""How long a test may go on: short in `make test`, long in `make test-long`."""

from hypothesis import HealthCheck, settings

LONG = "long"
"""The profile of `make test-long` (pytest's option --hypothesis-profile)."""
LONG_FACTOR = 25
"""So many times the examples in the long run."""

settings.register_profile(
    "short", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
settings.register_profile(LONG, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)


def examples(count: int) -> settings:
    """For above `@given`: `count` examples, always the same; in the long run many more, of a new seed each time."""
    long = settings.get_current_profile_name() == LONG
    return settings(max_examples=count * (LONG_FACTOR if long else 1))
