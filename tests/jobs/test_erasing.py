"""After erasing, nothing of a question is left in any file under the data directory, while the service runs on."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from sqlalchemy import text

from das.images import decode_png, encode_png
from jobs.models import Job
from jobs.settings import Settings
from jobs.store import JobStore

Ask = Callable[..., Job]
HELD = ("photographs@3f9c2a",)
# Long enough that no other file holds them by chance.
WORDS = st.text("abcdefghijklmnopqrstuvwxyz éß€", min_size=12, max_size=2000)


def found_in(data_dir: Path, secrets: list[bytes]) -> list[tuple[str, bytes]]:
    """Which files hold which of the secrets."""
    files = [path for path in data_dir.rglob("*") if path.is_file()]
    return [(path.name, secret[:40]) for path in files for secret in secrets if secret in path.read_bytes()]


@examples(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    prompt=WORDS,
    tag=st.text("abcdefghij", min_size=12, max_size=200),
    seed=st.integers(0, 999),
    ended=st.booleans(),
)
def test_no_byte_of_it_is_left(
    settings: Settings, store: JobStore, ask: Ask, prompt: str, tag: str, seed: int, ended: bool
) -> None:
    png = encode_png(np.random.default_rng(seed).integers(0, 256, (24, 24, 3), dtype=np.uint8))
    sha256 = f"{seed:064x}"
    job = ask(image=png, prompt=prompt, client_tag=tag, input={"sha256": sha256})
    if ended:
        (claimed,) = store.leases.claim("worker", 1, HELD)
        store.leases.finish(claimed.token, {"works": [], "summary": prompt}, {})
    secrets = [png, decode_png(png).tobytes()[:64], prompt.encode(), tag.encode(), sha256.encode()]
    assert found_in(settings.data_dir, [png]), "the test looks in the right place"
    store.erase(job.id)
    assert found_in(settings.data_dir, secrets) == []


def test_what_a_reader_holds_in_the_log_is_forgotten_when_it_has_done(
    settings: Settings, store: JobStore, ask: Ask
) -> None:
    secret = "a very particular prompt"
    job = ask(prompt=secret)
    with store.database.read() as session:
        session.execute(text("SELECT count(*) FROM jobs")).all()
        store.erase(job.id)
        assert store.database.to_forget
        assert [name for name, _ in found_in(settings.data_dir, [secret.encode()])]
    store.database.forget_again()
    assert not store.database.to_forget
    assert found_in(settings.data_dir, [secret.encode()]) == []
