"""`python -m app.openapi`: write docs/openapi.json, the API's description that a test compares with the code.

The models of das-client are made of it, so they are written as well.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from app.main import create_app
from jobs.settings import Settings

ROOT = Path(__file__).parent.parent
SNAPSHOT = ROOT / "docs" / "openapi.json"


def description() -> dict[str, Any]:
    """The OpenAPI document; it depends on no setting."""
    return create_app(Settings()).openapi()


def write(path: Path = SNAPSHOT) -> None:
    """Write the document to `path`."""
    path.write_text(json.dumps(description(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
    subprocess.run([sys.executable, ROOT / "client" / "generate.py"], check=True)
