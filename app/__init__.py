"""The web service: API and page."""

# The name of the installed distribution, whose version the service tells.
DISTRIBUTION = "das-attribution"
