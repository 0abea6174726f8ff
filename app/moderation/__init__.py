"""Policies: rules in YAML or JSON that turn an answer into clear, review, block or indeterminate. No database."""
