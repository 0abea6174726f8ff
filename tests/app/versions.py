"""What tests of versions ask of a service, and the sign of life of a worker that they play."""

from starlette.testclient import TestClient

from app.service import Service


def loads(service: Service, *ids: str) -> None:
    """A worker's sign of life that says what it has loaded."""
    info = {"engine": "ready", "indexes": [*ids], "loaded": [*ids]}
    service.store.workers.heartbeat("a-worker", info)


def readiness(client: TestClient) -> str:
    return str(client.get("/readyz").json()["checks"]["index"]["detail"])
