"""A running service under load: people who poll and people who upload, from a process of their own, over HTTP."""
