"""The real application on a socket, for the client to ask."""

from tests.app.conftest import live, picture, settings

__all__ = ["live", "picture", "settings"]
