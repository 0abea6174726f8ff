"""Log lines in JSON: their fields, and that nothing gets past them."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from jobs.logs import LineFormatter, passing_on
from jobs.process import SupervisedProcess
from jobs.settings import Settings

PROGRAM = """
import gc, logging, sys, threading, warnings
from pathlib import Path
from jobs.logs import configure_logging
from jobs.settings import Settings

configure_logging(Settings(_env_file=None, log_format=sys.argv[1]))
logging.getLogger("kombu.x").error("told %s", "words", extra={"job_id": "att_1", "path": Path("/p"), "size": 3})
warnings.warn("it is old", DeprecationWarning, stacklevel=1)
thread = threading.Thread(target=lambda: 1 / 0, name="a-thread")
thread.start(); thread.join()

class Odd:
    def __del__(self):
        raise ValueError("while it goes")

Odd()
raise RuntimeError("nobody caught\\nthis: redis://:hunter2@h/0")
"""


def run(log_format: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", PROGRAM, log_format],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    return done.stderr


def test_everything_that_python_would_print_is_a_line() -> None:
    lines: list[dict[str, Any]] = [json.loads(line) for line in run("json").splitlines()]
    told, warning, thread, ignored, uncaught = lines
    assert told.pop("at").endswith("+00:00")
    assert told == {
        "level": "error",
        "logger": "kombu.x",
        "message": "told words",
        "job_id": "att_1",
        "path": "/p",
        "size": 3,
    }
    assert (warning["level"], warning["logger"]) == ("warning", "py.warnings")
    assert "DeprecationWarning: it is old" in warning["message"]
    assert thread["message"] == "uncaught exception in the thread a-thread"
    assert "ZeroDivisionError" in thread["exception"]
    assert "while it goes" in ignored["exception"]
    assert uncaught["level"] == "critical"
    assert uncaught["exception"].endswith("RuntimeError: nobody caught\nthis: redis://***@h/0")


def test_people_get_the_same_as_text() -> None:
    text = run("text")
    assert "ERROR   kombu.x: told words\n" in text
    assert "CRITICAL jobs.logs: uncaught exception\nTraceback" in text
    assert "hunter2" not in text


def test_what_a_child_writes_past_its_log_becomes_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(_env_file=None, data_dir=tmp_path, log_format="json")
    line = '{"at": "now", "level": "info", "logger": "x", "message": "é"}'
    script = f"import os; print({line!r}, flush=True); os.write(2, b'Fatal: \\xff\\n\\n[1]\\nno end')"
    child = SupervisedProcess(
        "child", lambda: [sys.executable, "-c", script], on_line=passing_on(settings, "child")
    )
    child.start()
    deadline = time.monotonic() + 90
    while "child (pid" not in caplog.text:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    child.stop()
    assert capsys.readouterr().err.splitlines()[0] == line
    wrapped = [record for record in caplog.records if getattr(record, "child", None) == "child"]
    assert [record.getMessage() for record in wrapped[:3]] == ["Fatal: \ufffd", "[1]", "no end"]
    assert json.loads(LineFormatter().format(wrapped[0]))["child"] == "child"
    assert passing_on(settings.model_copy(update={"log_format": "text"}), "child") is None
