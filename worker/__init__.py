"""The Celery workers: they take queued jobs in batches and let `das` compute the answers."""
