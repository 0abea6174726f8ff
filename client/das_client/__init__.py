"""A client of DAS Attribution: which training images does a generated image owe most to?

with Client() as das:  # DAS_URL and DAS_API_KEY, or Client(url, key)
    answer = das.ask("generation.png")
"""

from das_client import models, webhooks
from das_client.async_client import AsyncClient
from das_client.call import Picture
from das_client.client import Client
from das_client.errors import (
    DasClientError,
    NotFinished,
    ProblemError,
    QuestionEnded,
    ServiceUnreachable,
    UnexpectedAnswer,
    UsageError,
    WebhookRefused,
)
from das_client.events import Event
from das_client.many import Outcome, ask_many, async_ask_many
from das_client.retries import NEVER, Retries

__all__ = [
    "NEVER",
    "AsyncClient",
    "Client",
    "DasClientError",
    "Event",
    "NotFinished",
    "Outcome",
    "Picture",
    "ProblemError",
    "QuestionEnded",
    "Retries",
    "ServiceUnreachable",
    "UnexpectedAnswer",
    "UsageError",
    "WebhookRefused",
    "ask_many",
    "async_ask_many",
    "models",
    "webhooks",
]
