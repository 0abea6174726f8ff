"""Mutated inputs, each in a process that has a bound on memory and dies of an input that takes too long."""

import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
ADDRESS_SPACE_BYTES = 4 << 30
"""What a child may map, and what its own children may: a bomb ends the child, not the machine."""

HOSTILE = [
    b"[" * 500,
    b"{",
    b'"',
    b"\0",
    b"-1",
    b"9" * 30,
    b"\xff\xfe",
    b"1e999",
    b"\r",
    b"\xe2\x80\xae",
    b"%s",
]
VALUES = [
    "-1", "0", "1e400", "9" * 40, "nan", "true", "null", '""', "[]", "{}", '"../../.."', '"/dev/zero"', '"/dev/null"',
    '"a\\u0000b"', '"' + "x" * 5000 + '"', "[" * 200 + "]" * 200, '["p", "p", "p"]', '{"path": "p"}', "0x10", "1_000",
    '"\\ud800"', "2026-01-01", "-0.0", "1e-300", '"p/"', '"~"', '"."',
]  # fmt: skip
"""What a setting can be set to, whether its reader expects a number, a text or a mapping."""


def mutated(data: bytes, rng: random.Random, *, lines: bool = False) -> bytes:
    """The bytes with some changed, doubled, cut out or cut off; if `lines`, mostly with a setting replaced."""
    if lines and rng.random() < 0.7:
        return _other_value(data, rng)
    changed = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(max(1, len(changed)))
        match rng.randrange(5):
            case 0:
                changed[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del changed[at : at + rng.randint(1, 40)]
            case 2:
                changed[at:at] = changed[at : at + rng.randint(1, 40)]
            case 3:
                changed[at:at] = rng.choice(HOSTILE)
            case _:
                del changed[rng.randrange(max(1, len(data))) :]
    return bytes(changed)


def _other_value(data: bytes, rng: random.Random) -> bytes:
    """A text of one setting on a line, with the values of one or two of them replaced."""
    lines = data.decode().split("\n")
    settings = [number for number, line in enumerate(lines) if re.search(r"[=:] *\S", line)]
    for number in rng.sample(settings, min(len(settings), rng.randint(1, 2))):
        name, sign, _ = re.split(r"([=:]) *(?=\S)", lines[number], maxsplit=1)
        comma = "," if lines[number].endswith(",") else ""
        lines[number] = f"{name}{sign} {rng.choice(VALUES)}{comma}"
    return "\n".join(lines).encode()


def tell(inputs: Iterable[bytes], check: Callable[[bytes], str], seconds: float) -> None:
    """Try each input and print what became of them as JSON: outcomes, the slowest, by how many kB the peak grew.

    An exception of `check` ends the process with its traceback, and an input that takes longer than `seconds` ends it
    by a signal, wherever it hangs.
    """
    before = _peak_kb()
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    for data in inputs:
        began = time.perf_counter()
        signal.setitimer(signal.ITIMER_REAL, seconds)
        outcomes[check(data)] += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        slowest = max(slowest, time.perf_counter() - began)
    sys.stdout.write(
        json.dumps({"outcomes": outcomes, "slowest_s": slowest, "grown_kb": _peak_kb() - before}) + "\n"
    )


def _peak_kb() -> int:
    """The largest memory of this process so far, or of one that it started, in kB."""
    return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def in_child(script: str, *arguments: object, timeout: float) -> dict[str, Any]:
    """Run a script that ends with `tell`, and return what it told.

    Raises:
        AssertionError: it died, with its last words.
    """

    def bounded() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    ended = subprocess.run(
        [sys.executable, script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        preexec_fn=bounded,
    )
    slow = "an input took too long" if ended.returncode == -signal.SIGALRM else ""
    assert ended.returncode == 0, f"{slow or ended.returncode}: {ended.stderr[-3000:]}"
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found
