"""What the foot of every page says of pictures: where they stay, and for how long those of whoever looks at it."""

from urllib.parse import urlsplit

from starlette.requests import Request

from app.language import Language
from jobs.keeping import Keeping, Times
from jobs.keys import ApiKey
from jobs.settings import Settings


def seen_with(request: Request, key: ApiKey | None) -> None:
    """Note the key that a request shows, None without one, for the page that answers it."""
    request.state.seen_with = (key,)


def about_pictures(request: Request, settings: Settings, keeping: Keeping, language: Language) -> str:
    """Where pictures stay and when they are erased: by the visitor's key, or by what holds for who comes without."""
    seen: tuple[ApiKey | None] | None = getattr(request.state, "seen_with", None)
    key = None if seen is None else seen[0]
    said = [_where(settings, language)]
    if key is not None:
        said.append(times_in_words(keeping.of_key(key.keep_uploads, key.keep_results), language))
    else:
        local = not settings.keys_required
        said.append(times_in_words(keeping.without_key(local=local), language))
        if not local:
            said.append(language("kept.unless_key"))
    return " ".join(said)


def _where(settings: Settings, language: Language) -> str:
    # Whoever reaches a service that has no name beyond its machine sits at that machine.
    elsewhere = urlsplit(settings.resolved_blob_url).netloc or settings.reached_from_beyond
    return language("kept.with_service" if elsewhere else "kept.here")


def times_in_words(times: Times, language: Language) -> str:
    """When pictures and answers are erased."""
    uploads = None if times.uploads is None else times.uploads.total_seconds()
    results = None if times.results is None else times.results.total_seconds()
    if results is None:
        if uploads is None:
            return language("kept.until_deleted")
        if uploads == 0:
            return language("kept.picture_at_once")
        return language("kept.picture", uploads=language.span(uploads))
    # A picture goes with its question at the latest.
    if uploads is None or uploads >= results:
        return language("kept.together", results=language.span(results))
    if uploads == 0:
        return language("kept.at_once", results=language.span(results))
    return language("kept.apart", uploads=language.span(uploads), results=language.span(results))
