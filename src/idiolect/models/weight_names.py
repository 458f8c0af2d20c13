"""Weight names in both directions: one table per family, from which the inverse is derived.

A rule pairs the name in a published checkpoint with ours. `{n}` is a layer number and `*` is
`weight` or `bias`. A tuple means that the published tensor fuses several of ours, in that order:

    Rule("h.{n}.attn.c_attn.*", (".. query.*", ".. key.*", ".. value.*"), transpose=True)

The parts may have different numbers of rows. With `per_head` (GPT-NeoX), they alternate by
attention head.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

__all__ = ["NameTable", "Rule", "WeightSource", "matches"]


@dataclass(frozen=True)
class Rule:
    """One row of a name table."""

    theirs: str
    """The name in the checkpoint, without the architecture's prefix."""
    ours: str | tuple[str, ...]
    """The name in the network; several if the published tensor is fused."""
    transpose: bool = False
    """Whether the published matrix is (in, out), as in GPT-2. Biases are not affected."""
    per_head: bool = False
    """Whether a fused tensor contains all parts of the first attention head, then of the next, …"""
    row: bool = False
    """Whether the published tensor has a leading dimension of one (BART's `final_logits_bias`)."""
    bare: bool = False
    """Whether the name never has the architecture's prefix, as for task heads."""
    gated: bool | None = None
    """Apply the rule only to gated, or only to ungated, feed-forward layers."""


@dataclass(frozen=True)
class WeightSource:
    """The published tensor that contains one of ours."""

    name: str
    """Name in the checkpoint, without the architecture's prefix."""
    full_name: str
    """Name with the prefix, as it is saved."""
    part: int
    """Index of our part in a fused tensor."""
    names: tuple[str, ...]
    """Our names of all its parts; one if the tensor is not fused."""
    blocks: int
    """How often the sequence of parts is repeated in a fused tensor: once, or once per head."""
    rule: Rule

    @property
    def parts(self) -> int:
        """Number of parts; 1 if the tensor is not fused."""
        return len(self.names)

    def stored_shape(self, shapes: Mapping[str, torch.Size]) -> torch.Size:
        """Return the shape of the checkpoint's tensor, given the shapes of ours by name."""
        rows = sum(shapes[name][0] for name in self.names)
        shape = [rows, *shapes[self.names[self.part]][1:]]
        if self.rule.transpose and len(shape) == 2:
            shape.reverse()
        return torch.Size([1, *shape] if self.rule.row else shape)

    def extract(self, tensor: Tensor, sizes: Sequence[int] = ()) -> Tensor:
        """Convert the checkpoint's tensor to ours, as a view if that is as fast.

        A transposed view of a matrix with more rows than columns is as fast as a contiguous one.
        Otherwise it is 1.3 to 1.5 times slower, so it is copied.

        Args:
            tensor: The checkpoint's tensor.
            sizes: The number of rows of each part, if the tensor is fused.
        """
        if self.rule.row:
            tensor = tensor.squeeze(0)
        if self.rule.transpose and tensor.dim() == 2:
            tensor = tensor.t()
        if self.parts == 1:
            wide = tensor.dim() < 2 or tensor.shape[0] > tensor.shape[1]
            return tensor if wide else tensor.contiguous()
        return self.split(tensor, sizes)

    def split(self, rows: Tensor, sizes: Sequence[int]) -> Tensor:
        """Return our rows of a fused tensor; `join` is the inverse.

        Args:
            rows: The fused tensor.
            sizes: The number of rows of each part.
        """
        start, end = (sum(sizes[:n]) // self.blocks for n in (self.part, self.part + 1))
        return self._blocks(rows)[:, start:end].flatten(0, 1)

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Fuse the rows of all parts, in the order of the rule."""
        return torch.cat([self._blocks(part) for part in parts], dim=1).flatten(0, 1)

    def _blocks(self, rows: Tensor) -> Tensor:
        return rows.reshape(self.blocks, -1, *rows.shape[1:])

    def combine(self, parts: Sequence[Tensor]) -> Tensor:
        """Convert our tensors, in the order of the rule, to the checkpoint's."""
        tensor = self.join(parts) if self.parts > 1 else parts[0]
        if self.rule.transpose and tensor.dim() == 2:
            tensor = tensor.t()
        return (tensor.unsqueeze(0) if self.rule.row else tensor).contiguous()


def matches(template: str, name: str) -> bool:
    """Return whether a name matches the template of a rule.

    >>> matches("h.{n}.ln_1.*", "h.11.ln_1.bias")
    True
    """
    return _pattern(template).fullmatch(name) is not None


class NameTable:
    """The rules of a family for one architecture, with its prefix on the body's names.

    Args:
        rules: The rules.
        prefix: The architecture's prefix.
        gated: Whether feed-forward layers are gated.
        heads: The number of attention heads.
    """

    def __init__(self, rules: Iterable[Rule], *, prefix: str, gated: bool, heads: int) -> None:
        self.prefix = prefix
        self.heads = heads
        self._forward: list[tuple[re.Pattern[str], Rule, int]] = []
        for rule in rules:
            if rule.gated not in (None, gated):
                continue
            ours = (rule.ours,) if isinstance(rule.ours, str) else rule.ours
            for part, name in enumerate(ours):
                self._forward.append((_pattern(name), rule, part))

    def source(self, ours: str) -> WeightSource:
        """Find the published tensor that contains one of ours.

        Raises:
            KeyError: No rule matches it (an error in the table).
        """
        for pattern, rule, part in self._forward:
            match = pattern.fullmatch(ours)
            if match:
                parts = (rule.ours,) if isinstance(rule.ours, str) else rule.ours
                names = tuple(_fill(one, match) for one in parts)
                name = _fill(rule.theirs, match)
                full_name = name if rule.bare else self.prefix + name
                blocks = self.heads if rule.per_head else 1
                return WeightSource(name, full_name, part, names, blocks, rule)
        raise KeyError(ours)


@cache
def _pattern(template: str) -> re.Pattern[str]:
    escaped = re.escape(template).replace(r"\{n\}", r"(?P<n>\d+)")
    return re.compile(escaped.replace(r"\*", "(?P<kind>weight|bias)"))


def _fill(template: str, match: re.Match[str]) -> str:
    """Insert the layer number and `weight` or `bias` of a match into a name.

    >>> _fill("h.{n}.ln_1.*", re.match(r"(?P<n>.) (?P<kind>.*)", "3 bias"))
    'h.3.ln_1.bias'
    """
    groups = match.groupdict()
    return template.replace("{n}", groups.get("n") or "").replace("*", groups.get("kind") or "")
