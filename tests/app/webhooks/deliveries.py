"""What the service tells of an endpoint's deliveries."""

from tests.app.receivers import until

ENDPOINTS = "/v1/webhook-endpoints"


def delivery(client, made, number=0):
    return client.get(made["links"]["deliveries"]).json()["items"][number]


def settled(client, made, state, number=0):
    def look():
        found = delivery(client, made, number)
        return found if found["state"] == state else None

    return until(look)


def tried(client, made, times):
    def look():
        found = delivery(client, made)
        return found if len(found["attempts"]) >= times else None

    return until(look)
