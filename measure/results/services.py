"""The section on services side by side, as `das bench services` told of two each."""

from typing import Any

from measure.results.cells import table


def services_section(told: list[dict[str, Any]]) -> str:
    """One client's answers of two services in turn; nothing where none were compared."""
    if not told:
        return ""
    head = ["what differs", "p50", "p50 of the other", "ratio", "scoring", "of the other", "load before"]
    body = [
        [
            one.get("note", one["command"]),
            f"{one['first']['p50_ms']:.0f} ms",
            f"{one['second']['p50_ms']:.0f} ms",
            f"**{one['ratio']:.2f}** ({one['ratio_low']:.2f} to {one['ratio_high']:.2f})",
            f"{one['first']['parts_ms']['scoring']:.0f} ms",
            f"{one['second']['parts_ms']['scoring']:.0f} ms",
            f"{one['machine']['load_average_before']:.1f}",
        ]
        for one in told
    ]
    first = told[0]
    return f"""
## Services side by side

`{first["command"]}`: one client that asks both in turn, {first["rounds"]} rounds of {first["seconds"]:g} s each; \
medians, ratios with their range over the rounds.

{table(head, body)}"""
