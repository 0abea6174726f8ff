"""What a batch has asked and been answered, on disk: killed at any moment, nothing is lost and nothing asked twice.

Two files. OUT has a line of JSON for each answer. OUT.asked has, while the batch isn't complete, a line for each
question with the Idempotency-Key that it is asked under, written before it is sent: asked again under that key, it is
the same question.
"""

import json
import os
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from das_client.errors import UsageError

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows, where two batches into one file aren't told apart
    fcntl = None  # type: ignore[assignment]

Asked = tuple[str, str]
"""A picture's name, and the digest of its bytes with what was asked about it."""


class Ledger:
    """Use it as a context; raises `UsageError` where the files can't be used."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self._journal = out.with_name(out.name + ".asked")
        self._done: set[Asked] = set()
        self._keys: dict[Asked, str] = {}
        self._files: list[IO[bytes]] = []
        self._turn = threading.Lock()

    def __enter__(self) -> Self:
        try:
            for path in (self._journal, self.out):
                path.parent.mkdir(parents=True, exist_ok=True)
                self._files.append(path.open("a+b"))
                self._lock(self._files[-1])
        except OSError as error:
            self.close()
            raise UsageError(f"{path} can't be written: {error.strerror}") from error
        try:
            self._done = {_asked(line, self.out) for line in self._lines(self._files[1], self.out)}
            for line in self._lines(self._files[0], self._journal):
                self._keys[_asked(line, self._journal)] = str(line.get("key"))
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        while self._files:
            self._files.pop().close()

    def answered(self, asked: Asked) -> bool:
        """Whether the answer is in the results."""
        return asked in self._done

    def key(self, asked: Asked) -> str:
        """The key to ask under: that of an earlier try, else a new one, which is on disk when this returns."""
        if asked not in self._keys:
            self._keys[asked] = str(uuid.uuid4())
            name, digest = asked
            self._append(self._files[0], {"picture": name, "digest": digest, "key": self._keys[asked]})
        return self._keys[asked]

    def renew(self, asked: Asked) -> str:
        """Another key: what was asked under the first is gone."""
        self._keys.pop(asked, None)
        return self.key(asked)

    def write(self, asked: Asked, answer: dict[str, Any]) -> None:
        """Add an answer to the results; it is on disk when this returns."""
        name, digest = asked
        self._append(self._files[1], {"picture": name, "digest": digest, "answer": answer})
        self._done.add(asked)

    def complete(self) -> None:
        """Nothing is missing any more, so nothing has to be remembered beside the results."""
        self._journal.unlink(missing_ok=True)

    def _append(self, file: IO[bytes], line: dict[str, Any]) -> None:
        try:
            # ASCII: whatever is in a title stays within its line, in an editor and in a terminal.
            with self._turn:
                file.write(json.dumps(line).encode("ascii") + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UsageError(f"{file.name} can't be written: {error.strerror}") from error

    def _lines(self, file: IO[bytes], path: Path) -> Iterator[dict[str, Any]]:
        """The lines of a file. What a killed process left of its last one is cut off."""
        file.seek(0)
        whole = 0
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                break
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                value = None
            if not isinstance(value, dict):
                raise UsageError(f"line {number} of {path} isn't of a batch's: name another file with --out")
            whole += len(line)
            yield value
        file.truncate(whole)
        file.seek(0, os.SEEK_END)

    def _lock(self, file: IO[bytes]) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"another batch is writing {self.out}; wait for it, or name another file"
            ) from error


def _asked(line: dict[str, Any], path: Path) -> Asked:
    name, digest = line.get("picture"), line.get("digest")
    if not isinstance(name, str) or not isinstance(digest, str):
        raise UsageError(f"{path} isn't a batch's: name another file with --out")
    return name, digest
