"""Settings of what is shown to whom, and whom to write to; a part of `jobs.settings.Settings`."""

import re
from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings

WorkVisibility = Literal["public", "signed-in", "rights-holder", "never"]

# It becomes a link: nothing that could be more than an address has a place in it.
CONTACT = re.compile(r"[A-Za-z0-9._+-]{1,64}@[A-Za-z0-9.-]{1,200}|https?://[A-Za-z0-9][!#-;=?-Z_a-z~]{0,500}")


class RecordSettings(BaseSettings):
    """Opt-outs, visibility of works, and the operator's contact."""

    work_visibility: WorkVisibility = Field(
        default="public",
        description="Who may see a work whose metadata have no `visibility` of its own: `public` (whoever may read"
        " answers), `signed-in` (who shows a key), `rights-holder` (a key of its rights holder's) or `never`.",
    )
    opt_outs_hide: Literal["received", "verified"] = Field(
        default="verified",
        description="When the works of an opt-out are hidden: once the operator has `verified` it, or as soon as it"
        " is `received`.",
    )
    opt_outs_open: bool = Field(
        default=False,
        description="Whether people without a key may ask to be left out, where the service needs keys.",
    )
    opt_out_rate_limit: str | None = Field(
        default="10/hour",
        description="Opt-outs from one address without a key, in the form of `DAS_RATE_LIMIT`.",
    )
    contact: str | None = Field(
        default=None,
        description="Whom to write to about answers and opt-outs, as the page says it: an e-mail address, or the"
        " address of a page (http or https).",
    )

    @field_validator("contact")
    @classmethod
    def _an_address(cls, value: str | None) -> str | None:
        if value is not None and not CONTACT.fullmatch(value):
            raise ValueError(
                "has to be an e-mail address, such as works@example.org, or a page's, such as"
                " https://example.org/contact, in ASCII"
            )
        return value
