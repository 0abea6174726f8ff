"""Webhooks by Standard Webhooks 1.0.0: what the API takes and gives of them, their signatures, their sending."""
