"""The section on works that come and go, from what `das bench changes` told."""

from typing import Any

from measure.results.cells import table

_AIM, _AIM_OF = 0.05, 0.01
"""At most this part of the build's time, for this part of the works."""


def changes_section(told: dict[str, Any]) -> str:
    """Seconds of removing and adding beside those of the build, and what of them doesn't grow with the works."""
    names = {"build": "building", "remove": "removing", "add": "adding"}
    body = []
    for name, words in names.items():
        one, stages = told[name], told[name]["stages_s"]
        others = sum(
            value for stage, value in stages.items() if stage not in {"loading", "gradients", "estimating"}
        )
        part = "–" if name == "build" else f"{told[f'{name}_to_build']:.0%}"
        cpu = "–" if name == "build" else f"{told[f'{name}_to_build_cpu']:.0%}"
        times = [f"{one['wall_s']:.0f} s", part, f"{one['cpu_s']:.0f} s", cpu]
        body.append([words, *times, f"{stages['gradients']:.1f} s", f"{others:.1f} s"])
    features_s = {name: told[name]["stages_s"]["gradients"] for name in names}
    parts = {name: features_s[name] / features_s["build"] for name in names}
    work_s, fixed = _law(told)
    # fixed + 1 % of n × s ≤ 5 % of (the build's fixed + n × s); the build starts and loads as adding does.
    enough = max(one - _AIM * fixed["add"] for one in fixed.values()) / (work_s * (_AIM - _AIM_OF))
    head = ["", "wall", "of building", "CPU", "of building", "features", "verifying, kernel, files"]
    return f"""
## Works that come and go

`{told["command"]}` ([changes.json](changes.json)): {told["changed"]} of {told["works"]} works of {told["size"]} px \
removed, and as many others added, each by its command, preset {told["preset"]},
{told["model"]["attributed"] / 1e6:.1f} M parameters; the load of the machine's {told["machine"]["cores"]} cores was \
{told["machine"]["load_average_before"]:.1f} before it began.

{table(head, body)}
The aim, under {_AIM * 100:g} % of building for {_AIM_OF * 100:g} % of the works, isn't met with so few works of so \
small a network. The features of the works that change are {parts["add"]:.1%} to {parts["remove"]:.1%} of the build's;
starting Python, loading the model, checking its hooks and writing the kernel's factors (k = {told["dimension"]:,}) \
take about {fixed["add"]:.0f} s of CPU time when adding and {fixed["remove"]:.0f} s when removing, \
whatever the works are.
With {work_s * 1e3:.0f} ms a work in the build, both meet the aim from about {round(enough, -2):,.0f} works.
That is computed and wasn't run.
"""


def _law(told: dict[str, Any]) -> tuple[float, dict[str, float]]:
    """CPU seconds of a work in the build, and those that adding and removing take without a work."""
    building, adding = told["build"]["cpu_s"], told["add"]["cpu_s"]
    # Both start and load: building = fixed + works × s, adding = fixed + changed × s.
    work_s = (building - adding) / (told["works"] - told["changed"])
    return work_s, {name: told[name]["cpu_s"] - told["changed"] * work_s for name in ("add", "remove")}
