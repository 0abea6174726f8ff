"""Settings of what is shown to whom and of what is kept for how long; a part of `jobs.settings.Settings`."""

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings

DAY_S = 86_400

WorkVisibility = Literal["public", "signed-in", "rights-holder", "never"]


class RecordSettings(BaseSettings):
    """Opt-outs, visibility of works, retention."""

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
    keep_uploads_seconds: int | None = Field(
        default=None,
        ge=0,
        le=36_500 * DAY_S,
        description="How many seconds a picture is kept after its question has ended, unless its key has a time of"
        " its own; the answer stays. Unset: a day, or until it is deleted if it was sent without a key.",
    )
    keep_results_seconds: int | None = Field(
        default=None,
        ge=60,
        le=36_500 * DAY_S,
        description="How many seconds after its end a question is erased with its answer and decisions, unless its"
        " key has a time of its own. Unset: 90 days, or never by itself if it was asked without a key.",
    )
    keep_audit_seconds: int = Field(
        default=400 * DAY_S,
        ge=DAY_S,
        le=36_500 * DAY_S,
        description="How many seconds the entries of the audit log are kept.",
    )
