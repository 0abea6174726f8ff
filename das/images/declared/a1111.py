"""AUTOMATIC1111's web UI and its forks (Forge, SD.Next, …), and others that write as it does.

The prompt, a line that begins with `Negative prompt:`, and a last line of `Key: value` pairs.
"""

import itertools
import json
import re
from collections.abc import Iterator

from das.images.declared.blocks import Blocks
from das.images.declared.record import Declared, DeclaredLora, base_name, declared, lora

# Bounded, so that no text takes more than a few passes.
_PAIR = re.compile(r'(\w[\w \-/]{1,60}):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
_LEAST_PAIRS = 3
_MAX_LINE = 50_000
_OF_GENERATORS = frozenset({"Steps", "Sampler", "Seed", "Model hash", "Model"})
_TEMPLATE = re.compile(r"\n(?:Negative )?Template:")
_MOST_TEMPLATES = 10
_NEGATIVE = "Negative prompt:"
_HASHES = re.compile(r"\bHashes: (?=\{)")


def read(blocks: Blocks) -> Declared | None:
    """What the text `parameters`, the comment or the hidden text says in this form; None if it isn't in it."""
    for source, text in blocks.notes("parameters"):
        if (found := parse(text, source)) is not None:
            return found
    return None


def parse(text: str, source: str) -> Declared | None:
    """A text in A1111's form; None for one without the line of pairs, or without a single key of a generator."""
    text = text.replace("\r\n", "\n").strip()
    if text.startswith(("{", "[")):
        return None
    found = _line_of_pairs(text)
    if found is None:
        return None
    above, last, pairs = found
    prompt, negative = _prompts(above)
    hashes = _civitai_hashes(last)
    return declared(
        source,
        tool=_tool(pairs),
        prompt=prompt,
        negative_prompt=negative,
        seed=pairs.get("Seed"),
        steps=pairs.get("Steps"),
        sampler=pairs.get("Sampler"),
        guidance=pairs.get("CFG scale", pairs.get("CFG Scale")),
        model=base_name(pairs.get("Model")),
        model_hash=pairs.get("Model hash", hashes.get("model")),
        loras=_loras(pairs, hashes),
    )


def _line_of_pairs(text: str) -> tuple[str, str, dict[str, str]] | None:
    """What stands above the line of pairs, that line, and its pairs; None where there is none.

    It is the last line, or the one above the templates that sd-dynamic-prompts drew the prompt from.
    """
    ends = [
        len(text),
        *(found.start() for found in itertools.islice(_TEMPLATE.finditer(text), _MOST_TEMPLATES)),
    ]
    for end in ends:
        above, _, last = text[:end].rpartition("\n")
        pairs = dict(_pairs(last)) if len(last) <= _MAX_LINE else {}
        if len(pairs) >= _LEAST_PAIRS and pairs.keys() & _OF_GENERATORS:
            return above, last, pairs
    return None


def _pairs(line: str) -> Iterator[tuple[str, str]]:
    for key, value in _PAIR.findall(line):
        yield key.strip(), _unquoted(value.strip())


def _unquoted(value: str) -> str:
    if len(value) < 2 or not (value.startswith('"') and value.endswith('"')):
        return value
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return found if isinstance(found, str) else value


def _prompts(above: str) -> tuple[str, str | None]:
    positive: list[str] = []
    negative: list[str] | None = None
    for line in (line.strip() for line in above.split("\n")):
        if line.startswith(_NEGATIVE):
            line = line.removeprefix(_NEGATIVE).strip()
            negative = [] if negative is None else negative
        (positive if negative is None else negative).append(line)
    return "\n".join(positive), None if negative is None else "\n".join(negative)


def _tool(pairs: dict[str, str]) -> str:
    version = pairs.get("Version", "")
    if "App" in pairs:
        return pairs["App"]
    if version.startswith(("Fooocus", "ComfyUI")):
        return version.partition(" ")[0]
    if re.match(r"f\d", version):
        return "Stable Diffusion WebUI Forge"
    if re.match(r"v?1\.\d", version):
        return "AUTOMATIC1111"
    return "AUTOMATIC1111 or a fork"


def _civitai_hashes(line: str) -> dict[str, str]:
    """The pair `Hashes`, a JSON object by kind and name that stands there without quotes."""
    found = _HASHES.search(line)
    if found is None:
        return {}
    try:
        value, _ = json.JSONDecoder().raw_decode(line, found.end())
    except (ValueError, RecursionError):
        return {}
    if not isinstance(value, dict):
        return {}
    return {name: digest for name, digest in value.items() if isinstance(digest, str)}


def _loras(pairs: dict[str, str], hashes: dict[str, str]) -> tuple[DeclaredLora, ...]:
    weights = dict(_named(pairs.get("Lora weights", "")))
    named = dict(_named(pairs.get("Lora hashes", "")))
    for name, digest in hashes.items():
        kind, _, own = name.partition(":")
        if kind.lower() in ("lora", "lyco") and own:
            named.setdefault(own, digest)
    found = []
    for name, rest in named.items():
        # Fooocus once wrote `name: hash: weight`.
        digest, _, weight = rest.partition(":")
        found.append(lora(name, digest.strip(), weight or weights.get(name)))
    return tuple(one for one in found if one is not None)


def _named(text: str) -> Iterator[tuple[str, str]]:
    """`name: value, name: value`; a name may hold a comma's neighbour, not a colon."""
    for part in text.split(","):
        name, colon, value = part.partition(":")
        if colon:
            yield name.strip(), value.strip()
