"""Secret settings from files: `DAS_DATABASE_URL_FILE` names the file whose content `DAS_DATABASE_URL` is.

So that a password stands neither in a container's environment, which its inspection shows, nor in a compose file.
"""

import os
from pathlib import Path
from typing import Any, get_args

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource

from das.errors import SettingsError

# A URL and a key take a few hundred characters. What is longer is another file.
LONGEST = 10_000


def holds_a_secret(name: str, field: FieldInfo) -> bool:
    """Whether a setting may come from a file."""
    return name == "database_url" or SecretStr in (field.annotation, *get_args(field.annotation))


class SecretFiles(PydanticBaseSettingsSource):
    """The source of these settings. A setting's own variable goes before its file."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """The content of the setting's file, without the line end that an editor leaves; None without one.

        Raises:
            SettingsError: the file can't be read, is empty, or isn't a line of text.
        """
        variable = f"DAS_{field_name.upper()}"
        path = os.environ.get(f"{variable}_FILE") if holds_a_secret(field_name, field) else None
        # Who has the value already, a child of `das serve` above all, doesn't need the file.
        if not path or os.environ.get(variable):
            return None, field_name, False
        try:
            text = Path(path).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it isn't text"
            raise SettingsError(f"{variable}_FILE: {path} can't be read ({reason})") from error
        if not text or len(text) > LONGEST or "\n" in text:
            raise SettingsError(f"{variable}_FILE: {path} has to hold one line, the value of {variable}")
        return text, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Every setting that has a file."""
        found = {
            name: self.get_field_value(field, name)[0]
            for name, field in self.settings_cls.model_fields.items()
        }
        return {name: value for name, value in found.items() if value is not None}
