"""The data sources of an index, laid out as the EU's public summary of training content (Art. 53(1)(d) AI Act) asks.

The order and the titles are those of the AI Office's template of 24 July 2025, adopted as C(2025) 8311. An index
knows the works that it was built from and nothing of a model's earlier training: only what follows from its table is
filled in, all else is open.
"""

from collections import Counter
from urllib.parse import urlsplit

from das.manifest import Manifest
from das.plurals import counted
from das.rights.table import COLUMN
from das.rights.values import MEANINGS, RESERVED, VALUES
from das.works import Works

OPEN = "**TO BE FILLED IN**"
_MOST_LISTED = 1_000
_SIZES = ((1_000_000, "less than 1 million images"), (1_000_000_000, "1 million to 1 billion images"))
_CARRIERS = ("text", "audio", "video")


def summary_of(manifest: Manifest, works: Works) -> str:
    """The summary as Markdown, with what the index can't know marked `OPEN`."""
    domains = Counter(_domain(url) for url in works.column("source_url"))
    named = {name: count for name, count in domains.items() if name is not None}
    return "\n".join(
        [
            f"# Public summary of training content: {manifest.name}",
            "",
            "A draft for Article 53(1)(d) of Regulation (EU) 2024/1689, in the order of the AI Office's template."
            f" Filled in is what the attribution index {manifest.id} knows of the works that it was built from. It"
            " doesn't know what the model, or the model that it was trained further from, was trained on besides:"
            f" whoever publishes this adds it, and checks all of it. What is open says {OPEN}.",
            "",
            *_general(manifest, works),
            *_sources(works, named),
            *_processing(works),
        ]
    )


def _general(manifest: Manifest, works: Works) -> list[str]:
    model = manifest.model
    size = next((words for most, words in _SIZES if len(works) < most), "more than 1 billion images")
    prompts = sum(1 for prompt in works.column("prompt") if prompt)
    return [
        "## 1. General information",
        "",
        "### 1.1 Provider",
        "",
        f"- Name and contact: {OPEN}",
        f"- Authorised representative, where there is one: {OPEN}",
        "",
        "### 1.2 Model",
        "",
        f"- Versioned name: {OPEN} (the index was built with {_cell(_last(model.source))},"
        f" {model.identity.get('class', 'of an unknown class')}, weights {model.digest[:12]})",
        "- Modified from: "
        + (
            f"the LoRA {' and '.join(_cell(_last(lora.source)) for lora in model.loras)} on that model; its own"
            f" training: {OPEN}"
            if model.loras
            else OPEN
        ),
        f"- Placed on the Union market on: {OPEN}",
        "",
        "### 1.3 Modalities and size",
        "",
        f"- Images: {counted(len(works), 'picture')} in this index ({size}), shown"
        f" {manifest.works.trained:,} times an epoch",
        *(
            [
                "- Left out of this index, though the model was trained on them:"
                f" {counted(manifest.removed, 'picture')}"
            ]
            if manifest.removed
            else []
        ),
        f"- Captions: {prompts:,} of the pictures have one" if prompts else "- Captions: none are recorded",
        *(f"- Other {name}: {OPEN}" for name in _CARRIERS),
        f"- Types of content (photographs, visual artworks, …): {OPEN}",
        f"- Latest date of acquisition: {OPEN} (the index was built on {manifest.build.created_at[:10]})",
        f"- Languages and other characteristics: {OPEN}",
        "",
    ]


def _sources(works: Works, named: dict[str, int]) -> list[str]:
    without = len(works) - sum(named.values())
    return [
        "## 2. List of data sources",
        "",
        "Which of these each work came by isn't recorded in an index; the tables of all works stand below them.",
        "",
        f"### 2.1 Publicly available datasets\n\n{OPEN}",
        "",
        "### 2.2 Private non-publicly available datasets obtained from third parties",
        "",
        f"- Commercially licensed by rightsholders or their representatives: {OPEN}",
        f"- From other third parties: {OPEN}",
        "",
        f"### 2.3 Data crawled and scraped from online sources\n\nCrawlers, their behaviour and the period: {OPEN}",
        "",
        f"### 2.4 User data\n\n{OPEN}",
        "",
        f"### 2.5 Synthetic data\n\n{OPEN}",
        "",
        f"### 2.6 Other sources of data\n\n{OPEN}",
        "",
        "### What the index knows of all of them",
        "",
        f"Domains of the recorded addresses, {without:,} works have none:",
        "",
        *_table("domain", "works", named),
        "",
        "Licences, as the works' metadata give them:",
        "",
        *_table("licence", "works", Counter(value or "none given" for value in works.column("licence"))),
        "",
        "Rights holders, as the works' metadata give them:",
        "",
        *_table(
            "rights holder",
            "works",
            Counter(value or "none given" for value in works.column("rights_holder")),
        ),
        "",
    ]


def _processing(works: Works) -> list[str]:
    lines = [
        "## 3. Data processing aspects",
        "",
        "### 3.1 Respect of reservations of rights from the text and data mining exception",
        "",
    ]
    if COLUMN not in works.table.column_names:
        lines += [f"Signals weren't read when this index was built: {OPEN}", ""]
    else:
        counts = Counter(works.column(COLUMN))
        reserved = sum(counts[value] for value in RESERVED)
        lines += [
            f"Of the works in the index {reserved:,} carry a signal, in their file (XMP, C2PA) or metadata, that"
            " reserves mining or training or parts of it. Whether a work without one is reserved elsewhere (in"
            " robots.txt, in terms of use) isn't known here.",
            "",
            *_table("signal", "works", {value: counts[value] for value in VALUES if counts[value]}),
            f"| none | {counts[None]:,} |",
            "",
            *(f"- {value}: {MEANINGS[value]}" for value in VALUES if counts[value]),
            "",
        ]
    return [
        *lines,
        f"- Measures taken before and during training to respect reservations: {OPEN}",
        f"- Signatory of the Code of Practice: {OPEN}",
        "",
        f"### 3.2 Removal of illegal content\n\n{OPEN}",
        "",
        f"### 3.3 Other information (optional)\n\n{OPEN}",
        "",
    ]


def _table(what: str, number: str, counts: dict[str, int] | Counter[str]) -> list[str]:
    """A table, most first."""
    order = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    if what == "signal":
        order = list(counts.items())
    lines = [
        f"| {what} | {number} |",
        "|---|---|",
        *(f"| {_cell(name)} | {n:,} |" for name, n in order[:_MOST_LISTED]),
    ]
    if rest := order[_MOST_LISTED:]:
        lines.append(f"| {len(rest):,} others | {sum(n for _, n in rest):,} |")
    return lines


def _domain(url: str | None) -> str | None:
    try:
        return urlsplit(url or "").hostname
    except ValueError:
        return None


def _cell(text: str) -> str:
    """A text as a cell of a table: of one line, and no markup of its own."""
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").split())


def _last(source: str) -> str:
    return source.rstrip("/").rpartition("/")[2]
