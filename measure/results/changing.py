"""The section on works that come and go, from what `das bench changes` told."""

from typing import Any

from measure.results.cells import table


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
    fixed, work_s, part_of = _law(told)
    enough = fixed / (work_s * (0.05 - part_of))
    head = ["", "wall", "of building", "CPU", "of building", "features", "verifying, kernel, files"]
    return f"""
## Works that come and go

`{told["command"]}` ([changes.json](changes.json)): {told["changed"]} of {told["works"]} works of {told["size"]} px \
removed, and as many others added, each by its command, preset {told["preset"]},
{told["model"]["attributed"] / 1e6:.1f} M parameters; the load of the machine's {told["machine"]["cores"]} cores was \
{told["machine"]["load_average_before"]:.1f} before it began.

{table(head, body)}
The aim, under 5 % of building for 1 % of the works, isn't met with so few works of so small a network. The features \
of the works that change are {parts["add"]:.1%} to {parts["remove"]:.1%} of the build's;
starting Python, loading the model, checking its hooks and writing the kernel's factors (k = {told["dimension"]:,}) \
take about {fixed:.0f} s of CPU time, whatever the works are.
With {work_s * 1e3:.0f} ms a work in the build, 5 % is met from about {round(enough, -2):,.0f} works; with a work of \
5 s, as on the U-Net of 35.7 M, from about {fixed / (5 * (0.05 - part_of)):,.0f}. That is computed and wasn't run.
"""


def _law(told: dict[str, Any]) -> tuple[float, float, float]:
    """CPU seconds that adding takes without a work, those of a work in the build, and the part that changes."""
    part = told["changed"] / told["works"]
    building, adding = told["build"]["cpu_s"], told["add"]["cpu_s"]
    # Both start and load: building = fixed + works × s, adding = fixed + part × works × s.
    per_work = (building - adding) / (told["works"] - told["changed"])
    return adding - told["changed"] * per_work, per_work, part
