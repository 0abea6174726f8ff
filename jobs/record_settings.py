"""Settings of what is shown to whom, kept for how long, and whom to write to; a part of `jobs.settings.Settings`."""

import re
from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings

DAY_S = 86_400

WorkVisibility = Literal["public", "signed-in", "rights-holder", "never"]

# It becomes a link: nothing that could be more than an address has a place in it.
CONTACT = re.compile(r"[A-Za-z0-9._+-]{1,64}@[A-Za-z0-9.-]{1,200}|https?://[A-Za-z0-9][!#-;=?-Z_a-z~]{0,500}")


class RecordSettings(BaseSettings):
    """Opt-outs, visibility of works, rounding, retention, and the operator's contact."""

    work_visibility: WorkVisibility = Field(
        default="public",
        description="Who may see a work whose metadata have no `visibility` of its own: `public` (whoever may read"
        " answers), `signed-in` (who shows a key), `rights-holder` (a key of its rights holder's) or `never`.",
    )
    hide_exposed: float | None = Field(
        default=None,
        ge=0,
        le=100,
        description="How many percent of an index's works, those of the highest `exposure`, are shown to their rights"
        " holder at most. Unset: 1 in an index none of whose works is `public`, else 0.",
    )
    share_step: float | None = Field(
        default=None,
        ge=1e-4,
        le=0.5,
        description="What shares are rounded to wherever an answer is told, such as `0.01` for whole percents; one"
        " below half of it is told as less than that. Policies decide by the exact ones. Unset: shares as measured.",
    )
    share_floor: float | None = Field(
        default=None,
        ge=1e-4,
        le=0.5,
        description="Shares below this, such as `0.005`, are told as less than it and not as a number; with a step it"
        " is raised to where shares are rounded up. Unset: none but those below half of `DAS_SHARE_STEP`.",
    )
    revealed_works_per_day: int | None = Field(
        default=None,
        ge=1,
        description="How many different works one key may be shown in 24 hours, unless it has a number of its own;"
        " further ones are told as withheld. All who come without a key share one budget, but for this machine itself"
        " where no keys are needed. Unset: any.",
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
