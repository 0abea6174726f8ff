"""What Prometheus is told: of this process, and of the whole service by the rows of its database."""
