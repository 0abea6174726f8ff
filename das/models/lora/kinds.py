"""Which kind of adapter the tensors of a file are: their names' ends tell, layer by layer."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from das.errors import ModelError

LORA, LOHA, LOKR = "LoRA", "LoHa", "LoKr"

_ROLES = tuple(
    (re.compile(pattern), role)
    for pattern, role in (
        (r"\.lora_down\.weight$", "down"),
        (r"\.lora_up\.weight$", "up"),
        (r"\.lora_mid\.weight$", "mid"),
        (r"\.lora_A(\.[\w-]+)?\.weight$", "down"),
        (r"\.lora_B(\.[\w-]+)?\.weight$", "up"),
        (r"\.lora_B(\.[\w-]+)?\.bias$", "up_bias"),
        (r"\.lora_up\.bias$", "up_bias"),
        (r"(\.lora_linear_layer|[._]lora)?\.down\.weight$", "down"),
        (r"(\.lora_linear_layer|[._]lora)?\.up\.weight$", "up"),
        (r"\.(dora_scale|lora_magnitude_vector(\.[\w-]+)?(\.weight)?)$", "magnitude"),
        (r"(\.lora_linear_layer|[._]lora)?\.alpha$", "alpha"),
        (r"\.(hada_w1_a|hada_w1_b|hada_w2_a|hada_w2_b|hada_t1|hada_t2)(\.[\w-]+)?$", ""),
        (r"\.(lokr_w1|lokr_w1_a|lokr_w1_b|lokr_w2|lokr_w2_a|lokr_w2_b|lokr_t2)(\.[\w-]+)?$", ""),
    )
)
"""Ends of tensors' names, and what the tensor is; "": what the end itself says."""

_REFUSED = tuple(
    (re.compile(pattern), kind)
    for pattern, kind in (
        (
            r"\.(oft_blocks|oft_diag|oft_R|oft_r|boft_R|boft_s|rescale)\b",
            "an OFT or BOFT adapter, which rotates weights",
        ),
        (r"\.(a1|a2|b1|b2)\.weight$", "a GLoRA adapter"),
        (r"\.(on_input|ia3_l)\b", "an IA³ adapter, which scales activations"),
        (r"vera_lambda|\.vera_[AB]\b", "a VeRA adapter"),
        (
            r"\.(diff|diff_b|w_norm|b_norm|set_weight)$",
            'differences of whole weights (LyCORIS\' "full", or norms)',
        ),
        (r"lora_embedding_[AB]", "a LoRA of an embedding table"),
        (
            r"bundle_emb|emb_params|string_to_param|learned_embeds|^clip_[lg]$",
            "a textual inversion's embeddings",
        ),
        (r"(query_norm|key_norm)\.scale$", "a control LoRA of BFL, which also replaces the network's norms"),
        (r"ip_adapter|image_proj\.", "an IP-Adapter"),
        (r"\.scalar$", "a LyCORIS adapter with a trained factor (use_scalar) that wasn't merged at saving"),
        (r"control_model\.|lora_controlnet|input_hint_block", "a ControlNet or its LoRA"),
    )
)
"""What is in files beside low-rank matrices, by its true name."""

_NEEDED = {
    LORA: ({"down", "up"}, {"mid", "up_bias"}),
    LOHA: ({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}, {"hada_t1", "hada_t2"}),
    LOKR: (set(), {f"lokr_{name}" for name in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")}),
}
"""By kind the tensors that it must have, and those that it may have besides, magnitudes and alpha apart."""


@dataclass
class Piece:
    """What a file holds for one of its layers.

    Attributes:
        name: the layer, as the file calls it, prefix included.
        tensors: by role.
        names: the whole names of the tensors, by role.
    """

    name: str
    tensors: dict[str, Tensor] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    alpha: float | None = None

    @property
    def kind(self) -> str:
        """LoRA, LoHa or LoKr."""
        if any(role.startswith("hada") for role in self.tensors):
            return LOHA
        return LOKR if any(role.startswith("lokr") for role in self.tensors) else LORA

    @property
    def described(self) -> str:
        """The kind with what it has besides: "DoRA", "LoRA in the CP form", "LoHa with DoRA's magnitudes"."""
        kind = self.kind
        dora = "magnitude" in self.tensors
        name = (
            ("DoRA" if dora else LORA) if kind == LORA else f"{kind} with DoRA's magnitudes" if dora else kind
        )
        return f"{name} in the CP form" if self.tensors.keys() & {"mid", "hada_t1", "lokr_t2"} else name

    @property
    def rank(self) -> int | None:
        """What alpha is divided by; None where a LoKr is of two whole matrices, which alpha doesn't scale."""
        for role, dimension in (("down", 0), ("hada_w1_b", 0), ("lokr_w1_b", 0), ("lokr_w2_b", 0)):
            if role in self.tensors:
                return int(self.tensors[role].shape[dimension])
        return None


def split_name(name: str) -> tuple[str, str] | None:
    """The layer that a tensor's name is of, and what the tensor is; None where its end says nothing known."""
    for pattern, role in _ROLES:
        if match := pattern.search(name):
            return name[: match.start()], role or match[1]
    return None


def pieces(tensors: Mapping[str, Tensor], source: object) -> list[Piece]:
    """A file's tensors by layer, each of a known kind and whole.

    Raises:
        ModelError: it is another kind of adapter, which the message names; or a layer lacks a part.
    """
    found: dict[str, Piece] = {}
    unknown = []
    for name, tensor in sorted(tensors.items()):
        split = split_name(name)
        if split is None or not split[0]:
            unknown.append(name)
            continue
        layer, role = split
        piece = found.setdefault(layer, Piece(layer))
        if role in piece.names:
            raise ModelError(
                f"{source} has two tensors of one meaning: {shown(piece.names[role])} and {shown(name)}."
            )
        piece.names[role] = name
        if role == "alpha":
            piece.alpha = _number(tensor, name, source)
        else:
            piece.tensors[role] = tensor
    if unknown:
        raise ModelError(_refusal(unknown, len(tensors), source))
    if not found:
        raise ModelError(f"{source} holds no tensors.")
    for piece in found.values():
        _check_whole(piece, source)
    return list(found.values())


def shown(name: str) -> str:
    """A name out of a file, fit to be printed."""
    clean = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name[:150])
    return clean + ("…" if len(name) > 150 else "")


def _number(tensor: Tensor, name: str, source: object) -> float:
    if tensor.numel() != 1 or not bool(tensor.isfinite().all()):
        raise ModelError(f"{source}: {shown(name)} should be one finite number.")
    return float(tensor)


def _refusal(unknown: list[str], count: int, source: object) -> str:
    for pattern, kind in _REFUSED:
        if of_kind := [name for name in unknown if pattern.search(name)]:
            return (
                f"{source} is, or holds, {kind}: {len(of_kind)} of its {count} tensors, such as"
                f" {shown(of_kind[0])}. {_ATTRIBUTED}"
            )
    named = [name for name in unknown if name.endswith((".weight", ".bias"))]
    if named:
        return (
            f"{source} holds whole weights, {len(named)} of its {count} tensors, such as {shown(named[0])}: a model"
            f" or a part of one, not only a LoRA. {_ATTRIBUTED}"
        )
    return (
        f"{source} has {len(unknown)} tensors (of {count}) whose names say nothing known of LoRAs, such as"
        f" {shown(unknown[0])}. {_ATTRIBUTED}"
    )


_ATTRIBUTED = "What can be attributed are LoRA, DoRA, LoHa and LoKr (docs/loras.md)."


def _check_whole(piece: Piece, source: object) -> None:
    roles = piece.tensors.keys() - {"magnitude"}
    needed, further = _NEEDED[piece.kind]
    what = f"{source}: {shown(piece.name)}, a {piece.described},"
    if missing := needed - roles:
        raise ModelError(f"{what} lacks its {_listed(missing)}; the file is incomplete.")
    if strange := roles - needed - further:
        raise ModelError(f"{what} has {_listed(strange)} besides, which belongs to another kind of adapter.")
    if piece.kind == LOKR:
        for half in ("1", "2"):
            pair = {f"lokr_w{half}_a", f"lokr_w{half}_b"}
            if (f"lokr_w{half}" in roles) == bool(pair & roles) or len(pair & roles) == 1:
                raise ModelError(
                    f"{what} needs lokr_w{half}, or both of {_listed(pair)}; the file is incomplete."
                )
        if "lokr_t2" in roles and "lokr_w2" in roles:
            raise ModelError(f"{what} has lokr_t2 beside a whole lokr_w2, which belongs to no known form.")
    if piece.kind == LOHA and len(roles & {"hada_t1", "hada_t2"}) == 1:
        raise ModelError(f"{what} has one of hada_t1 and hada_t2; the CP form has both.")
    for role, tensor in piece.tensors.items():
        if not tensor.is_floating_point():
            raise ModelError(
                f"{source}: {shown(piece.names[role])} is of {str(tensor.dtype).removeprefix('torch.')}, which isn't"
                " a floating-point type; quantised LoRAs aren't read."
            )
        if tensor.numel() == 0 or not bool(tensor.float().isfinite().all()):
            raise ModelError(
                f"{source}: {shown(piece.names[role])} is empty, or holds numbers that aren't finite."
            )


_WORDS = {
    "down": "down matrix (lora_down or lora_A)",
    "up": "up matrix (lora_up or lora_B)",
    "mid": "lora_mid",
    "up_bias": "bias of lora_B",
}


def _listed(roles: Iterable[str]) -> str:
    return ", ".join(sorted(_WORDS.get(role, role) for role in roles))
