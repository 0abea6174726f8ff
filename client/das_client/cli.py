"""The commands: `das-client ask`, `batch`, `report`; with das-attribution installed also `das ask` and `das batch`.

Exit codes: 0, all is answered; 1, some picture has no answer, and standard error says why; 2, nothing could be begun,
or the service was gone, or it lets the key in no more; 130, interrupted.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from das_client import batch, table
from das_client.client import Client
from das_client.errors import DasClientError, ServiceUnreachable, UsageError
from das_client.ledger import Ledger
from das_client.many import AT_ONCE, ask_many
from das_client.retries import Retries
from das_client.sources import sources

MISSING, FAILED, INTERRUPTED = 1, 2, 130
# A full queue is waited for; commands have nothing better to do.
PATIENCE = Retries(attempts=4, deadline_s=3600.0)
MOST_AT_ONCE = 64


def main(arguments: Sequence[str] | None = None, program: str = "das-client") -> NoReturn:
    """Run a command and end with its exit code."""
    code = run(sys.argv[1:] if arguments is None else arguments, program)
    if code == INTERRUPTED:
        # Requests in other threads may go on for minutes; what was answered is on disk.
        os._exit(code)
    sys.exit(code)


def run(arguments: Sequence[str], program: str) -> int:
    """Run a command; returns its exit code."""
    told = parser(program).parse_args(arguments)
    try:
        with Client(told.url, told.key, retries=PATIENCE) as client:
            return int(told.command(client, told))
    except DasClientError as error:
        _say(f"error: {error}")
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has seen enough.
        sys.stderr.close()
        return 0


def parser(program: str) -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        program, description="Ask a DAS Attribution service.", epilog=(__doc__ or "").split("\n\n")[1]
    )
    commands = made.add_subparsers(required=True, metavar="COMMAND")

    asking = argparse.ArgumentParser(add_help=False)
    asking.add_argument(
        "--prompt", help="what the picture was generated from, for models conditioned on text"
    )
    asking.add_argument("--index", help="which index to ask; default: the service's first")
    asking.add_argument("--top", type=_count(100_000), default=20, help="how many works to rank (20)")
    asking.add_argument("--wait", type=_seconds, default=600.0, help="seconds to wait for an answer (600)")
    asking.add_argument(
        "--at-once", type=_count(MOST_AT_ONCE), default=AT_ONCE, help=f"pictures at a time ({AT_ONCE})"
    )
    reaching = argparse.ArgumentParser(add_help=False)
    reaching.add_argument("--url", help="the service's address; default: DAS_URL, or http://127.0.0.1:8000")
    reaching.add_argument(
        "--key", help="an API key; default: DAS_API_KEY, which others on this machine can't see"
    )

    ask = commands.add_parser("ask", parents=[asking, reaching], help="which works pictures owe most to")
    ask.add_argument("pictures", nargs="+", metavar="FILE|URL")
    ask.add_argument("--json", action="store_true", help="a line of JSON for each picture")
    ask.set_defaults(command=_ask)

    many = commands.add_parser(
        "batch", parents=[asking, reaching], help="the same for many pictures, into a file"
    )
    many.add_argument("pictures", nargs="+", type=Path, metavar="FOLDER|ZIP|FILE")
    many.add_argument(
        "--out", type=Path, required=True, help="results, a line of JSON each; gone on with where it exists"
    )
    many.set_defaults(command=_batch)

    report = commands.add_parser("report", parents=[reaching], help="an answer as evidence, into a file")
    report.add_argument("id", help="of the question, att_…")
    report.add_argument("--format", choices=["json", "html", "pdf"], default="json")
    report.add_argument("--out", type=Path, help="default: ID.FORMAT")
    report.set_defaults(command=_report)
    return made


def _ask(client: Client, told: argparse.Namespace) -> int:
    code = 0
    outcomes = ask_many(client, told.pictures, at_once=told.at_once, wait_s=told.wait, **_options(told))
    waiting = {}
    following = 0
    for outcome in outcomes:
        # In the order in which they were given, each as soon as those before it have been told.
        waiting[outcome.place] = outcome
        while following in waiting:
            ready = waiting.pop(following)
            following += 1
            if ready.error is not None:
                if isinstance(ready.error, ServiceUnreachable):
                    raise ready.error
                _say(f"{told.pictures[ready.place]}: {ready.error}")
                code = MISSING
            elif ready.answer is not None:
                _print(_json(told.pictures[ready.place], ready.answer) if told.json else _shown(ready, told))
    return code


def _batch(client: Client, told: argparse.Namespace) -> int:
    pictures = sources(told.pictures)
    if not pictures:
        raise UsageError("there is no picture in what was named")
    with Ledger(told.out) as ledger:
        count = batch.run(
            client, pictures, ledger, _options(told), at_once=told.at_once, wait_s=told.wait, tell=_say
        )
        if not count.missing:
            ledger.complete()
    _say(
        f"{count.answered} answered into {told.out}, {count.already} were there already"
        + (f", {count.missing} are missing: run it again for those" if count.missing else "")
    )
    return MISSING if count.missing else 0


def _report(client: Client, told: argparse.Namespace) -> int:
    data = client.report(told.id, told.format)
    out: Path = told.out or Path(f"{told.id}.{told.format}")
    try:
        out.write_bytes(data)
    except OSError as error:
        raise UsageError(f"{out} can't be written: {error.strerror}") from error
    _print(str(out))
    return 0


def _options(told: argparse.Namespace) -> dict[str, Any]:
    given = {"prompt": told.prompt, "index": told.index, "top_k": told.top}
    return {name: value for name, value in given.items() if value is not None}


def _shown(outcome: Any, told: argparse.Namespace) -> str:
    head = f"{table.plain(told.pictures[outcome.place])}\n" if len(told.pictures) > 1 else ""
    return head + table.answer(outcome.answer) + ("\n" if len(told.pictures) > 1 else "")


def _json(picture: Any, answer: Any) -> str:
    # ASCII, since a terminal obeys some of the other characters.
    return json.dumps({"picture": str(picture), "answer": answer.model_dump(mode="json", by_alias=True)})


def _print(text: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding) + "\n")
    sys.stdout.flush()


def _say(text: str) -> None:
    sys.stderr.write(table.plain(text) + "\n")


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= 86400 * 30:
        raise argparse.ArgumentTypeError(f"{text} has to be more than 0, and a month at most")
    return value


def _count(most: int) -> Any:
    def count(text: str) -> int:
        if not 1 <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text} has to be from 1 to {most}")
        return int(text)

    return count
