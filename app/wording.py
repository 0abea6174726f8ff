"""The page's words and numbers: what each state is called, what each stage says, how a share is written."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from app.redaction import hidden_id
from app.schemas import Attribution, Copy, CopyMatch, Group, InModel, Quality, Share
from das.answer import percent as percent_in_words

LICENCES = {
    "CC0-1.0": "CC0 1.0",
    "CC-BY-4.0": "CC BY 4.0",
    "CC-BY-SA-4.0": "CC BY-SA 4.0",
    "LicenseRef-public-domain": "Public domain",
}
STEPS = {
    "orientation": "turned upright",
    "icc": "colour profile converted to sRGB",
    "icc-damaged": "damaged colour profile ignored",
    "cmyk": "CMYK converted to sRGB",
    "lab": "Lab converted to sRGB",
    "grey": "grey widened to colour",
    "palette": "palette resolved",
    "16-bit": "16 bits a channel reduced to 8",
    "32-bit": "32 bits a channel reduced to 8",
    "float": "floating-point values reduced to 8 bits",
    "alpha": "transparency laid over white",
    "first-frame": "first frame of the animation taken",
}


COPY_VERDICTS = {
    "copy": "yes, nearly the same picture",
    "near": "perhaps, a picture close to one",
    "none": "no",
    "unclear": "can't be told, the picture has too little structure",
}


@dataclass(frozen=True)
class StageLine:
    """One line of the progress list. `state`: done, now or later."""

    name: str
    state: str
    note: str
    done: int = 0
    total: int = 0


def headline(a: Attribution) -> str:
    """The one sentence on top."""
    if a.state == "succeeded":
        return unbroken(a.summary or "The works are ranked below.")
    if a.state == "failed":
        return "This question couldn't be answered."
    if a.state == "cancelled":
        return "This question was cancelled."
    if a.progress.attempt > 1 or (a.state == "queued" and a.progress.attempt > 0):
        return "Measuring, for another time…"
    return "Waiting for its turn…" if a.state == "queued" and (a.progress.waiting or 0) > 1 else "Measuring…"


def sentences(a: Attribution) -> list[str]:
    """What has to be said below the headline."""
    model_claim = None if a.input.declared is None else a.input.declared.summary
    said = [] if model_claim is None else [model_claim]
    if a.state == "failed" and a.error is not None:
        said.append(a.error.message)
    if a.state == "cancelled":
        said.append("Nothing was measured. The picture is kept until it is deleted.")
    if a.state == "queued" and a.progress.attempt > 0:
        said.append(
            "The worker on it was lost, so it is being tried again"
            f" (attempt {a.progress.attempt + 1}). Nothing has to be done."
        )
    elif a.state == "running" and a.progress.attempt > 1:
        said.append(
            f"An earlier worker was lost; this is attempt {a.progress.attempt}. Nothing has to be done."
        )
    if a.copied is not None and a.copied.summary is not None:
        said.append(a.copied.summary)
    if a.state == "succeeded" and a.quality is not None:
        said.append(_quality_sentence(a.quality))
    if a.state in ("succeeded", "failed", "cancelled"):
        said.extend(note for note in a.notes if note != model_claim)
    return said


def announcement(a: Attribution) -> str:
    """What a screen reader is told when it changes; without counting every step aloud."""
    if a.state in ("queued", "running"):
        now = next((line for line in stages(a) if line.state == "now"), None)
        return f"{headline(a)} {now.name if now else ''}".strip()
    return headline(a)


def stages(a: Attribution) -> list[StageLine]:
    """The four stages, in their order, with where the question is."""
    running = a.state == "running"
    progress = a.progress
    screened = a.lookalikes is not None
    features_over = progress.stage == "scored" or (progress.total > 0 and progress.done >= progress.total)
    received = StageLine("Received", "done", f"{a.input.format}, {a.input.width} × {a.input.height} pixels")
    compared = StageLine(
        "Compared",
        "done" if screened else "now",
        "look-alikes found" if screened else "looking for look-alikes",
    )
    if not running:
        waiting = progress.waiting or 1
        note = "waiting for a worker" if waiting == 1 else f"waiting for a worker; {waiting} questions wait"
        return [received, compared, StageLine("Measured", "now", note), StageLine("Ranked", "later", "")]
    counted = f"{progress.done} of {progress.total} steps" if progress.total else "beginning"
    if progress.eta_s and not features_over:
        counted += f", about {max(1, round(progress.eta_s))} s left"
    features = StageLine(
        "Measured", "done" if features_over else "now", counted, progress.done, progress.total
    )
    return [received, compared, features, StageLine("Ranked", "now" if features_over else "later", "")]


def works_title(a: Attribution) -> str:
    """What the ranked works are called: influence on a picture takes that the model made it."""
    if a.in_model is None or a.in_model.verdict == "likely":
        return "Works with most influence"
    return "Works that would have most influence, had the model made the picture"


def shares_of(a: Attribution) -> str:
    """What the shares are shares of."""
    if a.candidates is None:
        return ""
    if a.candidates.mode == "all":
        among = f"all {thousands(a.candidates.count)} training works on record here"
    else:
        among = f"the {thousands(a.candidates.count)} works that look most like the picture"
    intervals = ""
    if any(group.low is not None for groups in (a.groups or {}).values() for group in groups):
        intervals = (
            " The intervals (95 %) say how far a share would move if it were computed with more steps of the model's"
            " training noise, not what training again would do."
        )
    return (
        f"Shares are parts of the influence measured among {among}. They say nothing about works outside.{intervals}"
        " An answer is evidence of what the model learned from, and no verdict."
    )


def details(a: Attribution) -> list[tuple[str, str]]:
    """The facts at the foot of an answer."""
    asked = (
        ""
        if a.candidates is None or a.candidates.asked == a.candidates.mode
        else f" (asked for: {a.candidates.asked})"
    )
    steps = ", ".join(STEPS.get(step, step) for step in a.input.normalisation) or "nothing had to be changed"
    facts = [
        ("Question", a.id),
        ("Index", a.index),
        ("Method", a.method),
        (
            "Candidates",
            f"{a.candidates.mode}, {thousands(a.candidates.count)} works{asked}"
            if a.candidates
            else "not known yet",
        ),
        ("Asked", a.created_at.strftime("%-d %B %Y, %H:%M:%S UTC")),
        ("Picture", f"{a.input.format}, {a.input.width} × {a.input.height} pixels"),
        ("Normalisation", steps),
        ("SHA-256 of the file", a.input.sha256),
        (
            "Quality of the ranking",
            "not measured for this method of the index" if a.quality is None else _quality_fact(a.quality),
        ),
    ]
    if a.state == "succeeded":
        facts.append(("Made by the index's model", _origin_fact(a.in_model)))
        facts.append(("Copy of a work", _copy_fact(a.copied)))
    if a.client_tag:
        facts.append(("Tag", a.client_tag))
    if a.prompt is not None:
        facts.append(("Prompt", a.prompt or "an empty one"))
    if a.seed is not None:
        facts.append(("Seed", str(a.seed)))
    if a.timings_ms:
        spent = ", ".join(
            f"{_timing(name)} {value:,.0f} ms" for name, value in a.timings_ms.items() if value >= 0.5
        )
        facts.append(("Time", spent))
    if a.progress.attempt > 1:
        facts.append(("Attempts", str(a.progress.attempt)))
    return facts


def declared(a: Attribution) -> list[tuple[str, str]]:
    """What the picture says of itself, as terms and what is said; empty where it says nothing."""
    said = a.input.declared
    if said is None:
        return []
    loras = [_lora_fact(one.name, one.hash, one.weight) for one in said.loras]
    facts = [
        ("Tool", said.tool),
        ("Prompt", "an empty one" if said.prompt == "" else said.prompt),
        ("Negative prompt", said.negative_prompt),
        ("Seed", None if said.seed is None else str(said.seed)),
        ("Steps", None if said.steps is None else thousands(said.steps)),
        ("Sampler", said.sampler),
        ("Guidance", None if said.guidance is None else f"{said.guidance:g}"),
        ("Model", said.model),
        ("Hash of the model", said.model_hash),
        ("LoRA" if len(loras) == 1 else "LoRAs", "; ".join(loras) or None),
        ("Made by a trained model", "yes, says its C2PA manifest" if said.ai_generated else None),
        ("Read from", said.source),
        ("Cut, as too long", ", ".join(said.cut).replace("_", " ") or None),
    ]
    return [(term, value) for term, value in facts if value is not None]


def _lora_fact(name: str, digest: str | None, weight: float | None) -> str:
    fact = name if weight is None else f"{name} at {weight:g}"
    return fact if digest is None else f"{fact}, hash {digest}"


def _origin_fact(in_model: InModel | None) -> str:
    if in_model is None:
        return "not known: the index has no reference generations"
    held_out = ""
    if in_model.p_value_held_out is not None:
        held_out = f"; p = {in_model.p_value_held_out:.3f} against pictures that it was not trained on"
    return (
        f"{in_model.verdict}, p = {in_model.p_value:.3f} as it is and {in_model.p_value_re_encoded:.3f} were it"
        f" re-encoded, against {thousands(in_model.references)} pictures that the model made{held_out}"
    )


def _copy_fact(copied: Copy | None) -> str:
    if copied is None:
        return "not known: works weren't hashed when the index was built, or when this was answered"
    if copied.score is None:
        return COPY_VERDICTS[copied.verdict]
    likest = "the work most like it" if copied.work_id is None else "that work"
    verdict = COPY_VERDICTS[copied.verdict]
    if copied.method == "sscd":
        return f"{verdict}; SSCD's cosine with {likest} is {copied.score:.2f}"
    return f"{verdict}; {copied.score:.2f} of the PDQ hash is that of {likest}"


def copy_label(match: CopyMatch) -> str:
    """What stands beside a work that the picture is a copy of, or near to."""
    mirror = ", mirrored" if match.mirrored else ""
    return f"{'Nearly the same picture' if match.verdict == 'copy' else 'A picture close to it'}{mirror}"


def _quality_sentence(quality: Quality) -> str:
    """How far the ranking can be relied on, and how far any could."""
    said = (
        f"Asked about {thousands(quality.queries)} pictures and held against models trained again on"
        f" {thousands(quality.subsets)} subsets of the works, this index's ranking reached a linear datamodelling"
        f" score of {quality.lds:.1f} % (95 % interval: {quality.low:.1f} to {quality.high:.1f} %)"
    )
    if quality.ceiling is None:
        return f"{said}."
    return f"{said}; a second real retraining reaches {quality.ceiling:.1f} %."


def _quality_fact(quality: Quality) -> str:
    fact = f"LDS {quality.lds:.1f} % ({quality.low:.1f} to {quality.high:.1f} %)"
    if quality.ceiling is not None:
        fact += f", ceiling {quality.ceiling:.1f} %"
    return f"{fact}, measured on {quality.measured_at.strftime('%-d %B %Y')}"


def _timing(name: str) -> str:
    return name.replace("_", " ")


def percent(share: float | None) -> str:
    """A share as the summaries write it; a dash for what isn't known."""
    return "–" if share is None else unbroken(percent_in_words(share))


def between(one: Share | Group) -> str:
    """The interval of a share, such as `15 to 26 %`; empty where none was measured."""
    if one.low is None or one.high is None:
        return ""
    return unbroken(f"{percent_in_words(one.low).removesuffix(' %')} to {percent_in_words(one.high)}")


def unbroken(text: str) -> str:
    """A text whose numbers stay on one line with their percent signs."""
    return text.replace(" %", "\u00a0%")


def top(value: float) -> str:
    """A percentile from the other end: 99.2 is the top 0.8 %, and nothing is less than the top 0.1 %."""
    return f"top {percent(max(0.001, (100 - value) / 100))}"


def factor(value: float | None) -> str:
    """How many times a creator's share exceeds their part of the works."""
    if value is None:
        return "–"
    return f"{value:,.0f}×" if value >= 10 else f"{value:.1f}×"


def thousands(value: int) -> str:
    return f"{value:,}"


def licence(text: str) -> str:
    """A licence as people write it."""
    return LICENCES.get(text, text)


RIGHTS = {
    "prohibited": "Mining reserved",
    "prohibited-except-search": "Mining reserved, except for search",
    "prohibited-ai": "AI training reserved",
    "prohibited-generative-ai": "Generative training reserved",
    "constrained": "Mining under conditions",
    "allowed": "Mining allowed",
    "unspecified": "Mining not specified",
}


def rights(tdm: str) -> str:
    """What a work's owner says of text and data mining, beside its licence."""
    return RIGHTS.get(tdm, tdm)


def is_web(url: str | None) -> bool:
    """Whether an address from an index's metadata may become a link; anything but http(s) could run a script."""
    if not url:
        return False
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.netloc)


FILTERS = {
    "percent": percent,
    "between": between,
    "top": top,
    "factor": factor,
    "thousands": thousands,
    "licence": licence,
    "is_web": is_web,
    "rights": rights,
    "copy_label": copy_label,
    "hidden_work": hidden_id,
}
