"""`python -m das_client`."""

from das_client.cli import main

main()
