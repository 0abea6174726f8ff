"""Settings of what is shown to whom; a part of `jobs.settings.Settings`."""

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings

WorkVisibility = Literal["public", "signed-in", "rights-holder", "never"]


class RecordSettings(BaseSettings):
    """Opt-outs and visibility of works."""

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
