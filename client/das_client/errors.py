"""What can go wrong, each with a sentence for the person who meets it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from das_client.models import Attribution


class DasClientError(Exception):
    """Anything that this package raises by itself."""


class UsageError(DasClientError):
    """An argument, an environment variable or a picture can't be used."""


class ServiceUnreachable(DasClientError):
    """No answer was had: no connection, one that broke off, or none in time. The cause is `__cause__`."""


class UnexpectedAnswer(DasClientError):
    """The answer isn't one of a DAS Attribution service; something else may listen at that address."""


class ProblemError(DasClientError):
    """The service refused, with a problem document (RFC 9457).

    Attributes:
        status: of HTTP.
        code: the stable slug of the kind of error, such as `queue-full`; None where no service of ours said it.
        type, title, detail: as the document has them.
        request_id: names the request in the service's log.
        reason: for refused pictures and addresses, a stable slug.
        errors: for invalid requests, each with `detail` and one of `pointer`, `parameter`, `header`.
        retry_after_s: seconds to wait before it is worth trying again; None where nothing was said.
        document: all of it.
    """

    def __init__(self, status: int, document: Mapping[str, Any], retry_after_s: float | None = None) -> None:
        self.status = status
        self.document = dict(document)
        self.code: str | None = _text(document, "code")
        self.type = _text(document, "type") or "about:blank"
        self.title = _text(document, "title") or f"HTTP status {status}"
        self.detail = _text(document, "detail") or self.title
        self.request_id = _text(document, "request_id")
        self.reason = _text(document, "reason")
        errors = document.get("errors")
        self.errors: list[dict[str, Any]] = (
            [e for e in errors if isinstance(e, dict)] if isinstance(errors, list) else []
        )
        self.retry_after_s = retry_after_s
        super().__init__(f"{self.detail} ({status}{f', {self.code}' if self.code else ''})")


class QuestionEnded(DasClientError):
    """The question failed, was cancelled or was erased, so there is no answer. `attribution` is how it stands."""

    def __init__(self, attribution: "Attribution") -> None:
        why = attribution.error.message if attribution.error is not None else f"it was {attribution.state}"
        super().__init__(f"{attribution.id} has no answer: {why}")
        self.attribution = attribution


class NotFinished(DasClientError):
    """The time that was given ran out before the answer was there. `id` names what to look at again."""

    def __init__(self, what: str, waited_s: float) -> None:
        super().__init__(
            f"{what} isn't finished after {waited_s:g} seconds; it goes on, ask for it again later"
        )
        self.id = what


class WebhookRefused(DasClientError):
    """A webhook isn't authentic: not signed with one of the secrets, too old, or not as the standard has it."""


def _text(document: Mapping[str, Any], name: str) -> str | None:
    value = document.get(name)
    return value if isinstance(value, str) else None
