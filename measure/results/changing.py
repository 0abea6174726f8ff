"""The section on works that come and go, from what `das bench changes` told."""

from typing import Any

from measure.results.cells import table

_AIM, _AIM_OF = 0.05, 0.01
"""At most this part of the build's time, for this part of the works."""


def changes_section(runs: list[dict[str, Any]]) -> str:
    """Seconds of removing and adding beside those of the build, and what of them doesn't grow with the works.

    Of every run, that with the fewest works first; nothing where there is none.
    """
    if not runs:
        return ""
    runs = sorted(runs, key=lambda told: told["works"])
    names = {"build": "building", "remove": "removing", "add": "adding"}
    body = []
    for told in runs:
        for name, words in names.items():
            one, stages = told[name], told[name]["stages_s"]
            others = sum(
                value
                for stage, value in stages.items()
                if stage not in {"loading", "gradients", "estimating"}
            )
            which = f"{words} {told['works']:,}" if name == "build" else f"{words} {told['changed']:,}"
            part = "–" if name == "build" else f"{told[f'{name}_to_build']:.1%}"
            cpu = "–" if name == "build" else f"{told[f'{name}_to_build_cpu']:.1%}"
            times = [f"{one['wall_s']:.0f} s", part, f"{one['cpu_s']:.0f} s", cpu]
            load = f"{told['machine']['load_average_before']:.1f}" if name == "build" else ""
            body.append([which, *times, f"{stages['gradients']:.1f} s", f"{others:.1f} s", load])
    head = [
        "",
        "wall",
        "of building",
        "CPU",
        "of building",
        "features",
        "verifying, kernel, files",
        "load before",
    ]
    told = runs[-1]
    fewest = runs[0]
    parts = [
        fewest[name]["stages_s"]["gradients"] / fewest["build"]["stages_s"]["gradients"] for name in names
    ][1:]
    work_s, fixed = _law(fewest)
    # fixed + 1 % of n × s ≤ 5 % of (the build's fixed + n × s); the build starts and loads as adding does.
    enough = max(one - _AIM * fixed["add"] for one in fixed.values()) / (work_s * (_AIM - _AIM_OF))
    return f"""
## Works that come and go

`{told["command"]}` and the same with other numbers of works of {told["size"]} px: a part is removed, and as many \
others are added, each by its command, preset {told["preset"]},
{told["model"]["attributed"] / 1e6:.1f} M parameters.

{table(head, body)}
The aim, under {_AIM * 100:g} % of building for {_AIM_OF * 100:g} % of the works, is \
{" and ".join(f"{_met(one)} with {one['works']:,}" for one in runs)}. With {fewest["works"]:,} the features of the \
works that change are {min(parts):.1%} to {max(parts):.1%} of the build's;
starting Python, loading the model, checking its hooks and writing the kernel's factors (k = {told["dimension"]:,}) \
take about {fixed["add"]:.0f} s of CPU time when adding and {fixed["remove"]:.0f} s when removing, \
whatever the works are.
At its {work_s * 1e3:.0f} ms a work in the build, both would meet the aim from about {round(enough, -2):,.0f} works.
"""


def _met(told: dict[str, Any]) -> str:
    return "met" if max(told["remove_to_build"], told["add_to_build"]) <= _AIM else "not met"


def _law(told: dict[str, Any]) -> tuple[float, dict[str, float]]:
    """CPU seconds of a work in the build, and those that adding and removing take without a work."""
    building, adding = told["build"]["cpu_s"], told["add"]["cpu_s"]
    # Both start and load: building = fixed + works × s, adding = fixed + changed × s.
    work_s = (building - adding) / (told["works"] - told["changed"])
    return work_s, {name: told[name]["cpu_s"] - told["changed"] * work_s for name in ("add", "remove")}
