"""How often sd-scripts shows regularisation pictures: as many in all as there are works, whatever their repeats."""

from das.trainingsets.collection import REGULARISATION, Collection, Work


def balance(works: list[Work], into: Collection) -> list[Work]:
    """Works with the repeats of their regularisation pictures as sd-scripts sets them.

    It goes through them in order until they are as many as the works with their repeats: first each with its own
    repeats, then, round by round, once more. Those that are never reached aren't trained on, and are left out.
    """
    regular = [work for work in works if work.row.get("group") == REGULARISATION]
    wanted = sum(work.row.get("repeats", 1) for work in works) - sum(
        work.row.get("repeats", 1) for work in regular
    )
    if not regular or not wanted:
        return works
    shown = 0
    reached = 0
    for work in regular:
        if shown >= wanted:
            break
        shown, reached = shown + work.row.get("repeats", 1), reached + 1
    rounds, rest = divmod(max(0, wanted - shown), reached)
    for number, work in enumerate(regular[:reached]):
        work.row["repeats"] = work.row.get("repeats", 1) + rounds + (number < rest)
    if rounds or rest:
        message = (
            "regularisation pictures are shown as often as all works, as by sd-scripts; their repeats say so"
        )
        into.remark(regular[0].file, "repeats-balanced", message)
    for work in regular[reached:]:
        message = "sd-scripts shows no more regularisation pictures than works, and doesn't reach this one"
        into.leave_out(work.file, "not-reached", message)
    left = {id(work) for work in regular[reached:]}
    return [work for work in works if id(work) not in left]
