"""Settings of how workers share and bound their work; a part of `jobs.settings.Settings`."""

from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings


class WorkSettings(BaseSettings):
    """What shares a pass, and how long a worker may take for what."""

    bulk_size: int = Field(
        default=2,
        ge=1,
        description="Most pictures of batches that share one backward pass, for which a question that comes"
        " meanwhile waits. On a GPU, where a pass of eight takes little longer than one of two, use more.",
    )
    batch_size: int = Field(
        default=8,
        ge=1,
        description="Most waiting pictures of the same index and options that share one backward pass.",
    )
    linger_seconds: float = Field(
        default=0.02,
        ge=0,
        le=0.02,
        description="How long a worker whose last pass was of several questions waits for further ones to share the"
        " next, unless it is full already. 0: not at all.",
    )
    search_workers: int = Field(
        default=1,
        ge=1,
        description="Among how many of the workers that hold an index the search of a question about all its works is"
        " divided, so that each reads a section of the features. Small indexes, whose features every worker keeps in"
        " memory, aren't divided. 1: a worker searches alone.",
    )
    lease_seconds: float = Field(
        default=10.0,
        gt=0,
        description="How long a worker holds a job without a sign of life; renewed three times as often.",
    )
    max_attempts: int = Field(
        default=3,
        ge=1,
        description="How often a job is started before it is given up; a killed worker uses one up.",
    )
    soft_time_limit_seconds: float = Field(
        default=600.0,
        gt=0,
        description="Time for one batch, after which its pictures are tried alone or given up.",
    )
    hard_time_limit_seconds: float = Field(
        default=660.0,
        gt=0,
        description="Time for one batch, after which the worker's process is killed and replaced.",
    )
    model_load_seconds: float = Field(
        default=900.0,
        gt=0,
        description="Time a worker's process may take to load its model before it is replaced.",
    )

    memory_budget_gb: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="How many GB (of 10⁹ bytes) a worker's loaded indexes may take with their models: of the GPU, or"
        " of the process's own memory on a CPU. Then it keeps those that were used last, and loads another when a"
        " question needs it. Unset: every index is loaded at the start and stays.",
    )

    @model_validator(mode="after")
    def _limits_in_order(self) -> Self:
        if self.hard_time_limit_seconds <= self.soft_time_limit_seconds:
            raise ValueError("hard_time_limit_seconds must be longer than soft_time_limit_seconds")
        return self
