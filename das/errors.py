"""Errors that a person caused and can mend.

Every one carries a sentence that says what was wrong, where, and what to do. The command line prints it
without a traceback and exits with 2; the API turns it into a problem document.
"""


class DasError(Exception):
    """Something the user asked for can't be done; the message is written for that user."""


class SettingsError(DasError):
    """A setting or an option has a value that can't be used."""


class ModelError(DasError):
    """The diffusion model can't be loaded, or holds parts that can't be attributed."""


class WorksError(DasError):
    """The training works or their metadata can't be read."""


class BuildError(DasError):
    """A build can't start or go on."""


class IndexFormatError(DasError):
    """An attribution index is damaged, unfinished or of another format."""


class ExtensionError(DasError):
    """An extension can't be loaded, clashes with another, or does what it may not."""


class EvidenceError(DasError):
    """A report is none, was changed, isn't signed as it should be, or can't be computed again."""


class ImageRefused(DasError):
    """An upload that isn't a picture we accept. `code` is a stable slug for machines."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
