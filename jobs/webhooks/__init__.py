"""Webhooks: endpoints that hear of what happens, the outbox that is written as it happens, and its deliveries."""
