"""Self-attention that also looks at a reference, put into any U-Net by attention processors and taken out again.

x: what a layer gets of the picture, r: what the same layer of the reference U-Net got of the reference.

- paper, equation 1: softmax(Q cat(K, K_r)^T / sqrt(d)) cat(V, V_r); Q, K, V of x, K_r and V_r of r.
- released code: (A(x, cat(x, r)) + A(x, x)) / 2, where A(x, y) is the picture's own layer, queries of x, keys and
  values of y.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn import functional

from workbench import check

READINGS = ("paper", "released")
BLOCKS = ("mid", "up")
"""Where the paper joins the two U-Nets."""
Grid = tuple[int, int]


@dataclass(frozen=True)
class Bank:
    """What the reference U-Net has in store for the other one.

    Args:
        tokens: layer -> (B, n, C), the normalised states that the layer got; n = h w of its grid.
        grids: layer -> (h, w).
    """

    tokens: dict[str, torch.Tensor]
    grids: dict[str, Grid]

    def __len__(self) -> int:
        return len(next(iter(self.tokens.values())))

    def maps(self) -> dict[str, torch.Tensor]:
        """Layer -> (B, C, h, w), to look at, as by `wb.lenses.features`."""
        return {name: value.mT.unflatten(2, self.grids[name]) for name, value in self.tokens.items()}

    def __repr__(self) -> str:
        return f"Bank({len(self)} references, {len(self.tokens)} layers, grids {sorted(set(self.grids.values()))})"


def shared_layers(unet: nn.Module, blocks: Sequence[str] = BLOCKS) -> dict[str, nn.Module]:
    """The self-attention layers of some blocks, by name.

    Args:
        unet: with Stable Diffusion's names.
        blocks: some of "down", "mid", "up".

    Raises:
        ValueError: an unknown block, or none of the layers is there.
    """
    for block in blocks:
        check.choice(block, "blocks", ("down", "mid", "up"))
    prefixes = tuple(f"{block}_block" for block in blocks)
    found = {n: m for n, m in unet.named_modules() if n.startswith(prefixes) and n.endswith(".attn1")}
    if not found:
        raise ValueError(f"{type(unet).__name__} has no self-attention in {', '.join(blocks) or 'no block'}.")
    return found


def names_after_reading(unet: nn.Module, blocks: Sequence[str] = BLOCKS) -> set[str]:
    """Weights of a reference U-Net that change nothing: what follows the input of its last shared layer."""
    last = [name for name in shared_layers(unet, blocks) if name.startswith("up_block")][-1]
    block = last.removesuffix("attn1")
    parts = [f"{block}{part}" for part in ("attn1", "norm2", "attn2", "norm3", "ff")]
    parts += [f"{block.split('.transformer_blocks')[0]}.proj_out", "conv_norm_out", "conv_out"]
    number = int(last.split(".")[1])
    parts += [f"up_blocks.{number}.upsamplers", *(f"up_blocks.{k}" for k in range(number + 1, len(unet.up_blocks)))]
    return {name for name in unet.state_dict() if name.startswith(tuple(f"{part}." for part in parts))}


@contextmanager
def listening(unet: nn.Module, size: Grid, blocks: Sequence[str] = BLOCKS) -> Iterator[Bank]:
    """Inside, a `Bank` collects what each shared layer gets; the result of the U-Net is what it always is.

    Args:
        unet: the reference U-Net.
        size: (h, w) of the latents it will be called with.
        blocks: see `shared_layers`.

    Example:
        >>> with listening(unet, latents.shape[-2:]) as bank: unet(latents, 0, states)
    """
    bank = Bank({}, {})
    layers = shared_layers(unet, blocks)

    def make(name: str, processor: Callable) -> Callable:
        return _Listener(processor, name, bank, tuple(size))

    with _processors(layers, make):
        yield bank
    missing = [name for name in layers if name not in bank.tokens]
    if missing:
        raise RuntimeError(f"{missing[0]} was not called while the reference was to be read. Call the U-Net inside.")


@contextmanager
def imitating(
    unet: nn.Module,
    bank: Bank,
    size: Grid,
    *,
    reading: str = "paper",
    projections: Sequence[tuple[nn.Module, nn.Module]] | None = None,
    present: torch.Tensor | None = None,
    blocks: Sequence[str] = BLOCKS,
) -> Iterator[None]:
    """Inside, the U-Net's shared layers also look at the reference; afterwards it is what it was.

    Each layer says so to `wb.record_attention` by its attribute ``key_parts``.

    Args:
        unet: the imitative U-Net.
        bank: of the reference; one item serves a batch of any size.
        size: (h, w) of the latents the U-Net will be called with; the reference's may differ.
        reading: "paper" or "released", see above.
        projections: for the paper: (to_k, to_v) of the reference U-Net's layers, in their order.
        present: (B,), 0 for items whose reference is dropped: they look at themselves only. None drops none.
        blocks: see `shared_layers`.

    Raises:
        ValueError: an unknown reading, or a bank that does not go with the U-Net.

    Source: Chen et al., 2024 (MimicBrush), equation 1, and its released code. Differs in: as many queries as the
        picture has cells, where the release also computes the reference's and cuts them off; the same numbers.
    """
    check.choice(reading, "reading", READINGS)
    layers = shared_layers(unet, blocks)
    _check_bank(bank, layers)
    if reading == "paper" and (projections is None or len(projections) != len(layers)):
        given = "none" if projections is None else len(projections)
        raise ValueError(f"projections is {given}, expected (to_k, to_v) of each of the {len(layers)} shared layers.")
    order = {name: k for k, name in enumerate(layers)}

    def make(name: str, processor: Callable) -> Callable:
        own = (bank.tokens[name], bank.grids[name], present, tuple(size))
        if reading == "released":
            return _Released(processor, *own)
        return _Paper(processor, *own, projections=projections[order[name]])

    try:
        with _processors(layers, make):
            yield
    finally:
        for layer in layers.values():
            vars(layer).pop("key_parts", None)


@contextmanager
def _processors(layers: dict[str, nn.Module], make: Callable[[str, Callable], Callable]) -> Iterator[None]:
    """Inside, other processors; afterwards the old ones, whatever has happened."""
    before = {name: layer.processor for name, layer in layers.items()}
    try:
        for name, layer in layers.items():
            layer.set_processor(make(name, layer.processor))
        yield
    finally:
        for name, layer in layers.items():
            layer.set_processor(before[name])


def _check_bank(bank: Bank, layers: dict[str, nn.Module]) -> None:
    """A bank made by a U-Net of the same kind."""
    missing = [name for name in layers if name not in bank.tokens]
    if missing:
        raise ValueError(f"the bank has nothing for {missing[0]}, expected a reference U-Net of the same layers.")
    for name, layer in layers.items():
        width, wanted = bank.tokens[name].shape[-1], layer.to_q.in_features
        if width != wanted:
            raise ValueError(f"the bank has {width} channels for {name}, expected {wanted}: U-Nets of the same widths.")


def grid_of(places: int, size: Grid) -> Grid:
    """The grid of a layer with so many places, in a U-Net that halves latents of ``size`` several times.

    Raises:
        ValueError: no halving of the size has so many places.
    """
    height, width = size
    while height * width > places and max(height, width) > 1:
        height, width = math.ceil(height / 2), math.ceil(width / 2)
    if height * width != places:
        raise ValueError(
            f"a layer has {places} places, expected those of latents {tuple(size)} (h, w) or of a halving."
        )
    return height, width


class _Listener:
    """Keeps what a layer gets, and lets its own processor do the work."""

    def __init__(self, processor, name: str, bank: Bank, size: Grid):
        self.processor, self.name, self.bank, self.size = processor, name, bank, size

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
        self.bank.tokens[self.name] = hidden_states  # (B, n, C)
        self.bank.grids[self.name] = grid_of(hidden_states.shape[1], self.size)
        return self.processor(attn, hidden_states, encoder_hidden_states, attention_mask, temb)


class _Looking:
    """What both readings share: the reference's tokens for the batch at hand, and who has them.

    Args:
        processor: the layer's own.
        tokens: (1 or B, m, C) of the reference.
        grid: theirs.
        present: (B,) or None.
        size: (h, w) of the picture's latents.
    """

    def __init__(self, processor, tokens: torch.Tensor, grid: Grid, present: torch.Tensor | None, size: Grid):
        self.processor, self.tokens, self.grid, self.present, self.size = processor, tokens, grid, present, size

    def _given(self, attn, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Tokens (B, m, C), and (B,) bool where some reference is dropped."""
        count, tokens = len(hidden_states), self.tokens
        if len(tokens) not in (1, count):
            raise ValueError(f"the bank holds {len(tokens)} references for {count} items, expected one or as many.")
        attn.key_parts = {"image": grid_of(hidden_states.shape[1], self.size), "reference": self.grid}
        present = None if self.present is None or bool((self.present > 0).all()) else self.present > 0
        return tokens.expand(count, -1, -1).to(hidden_states), present


class _Released(_Looking):
    """Half attention to picture and reference, half to the picture alone; the picture's own projections for both."""

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
        tokens, present = self._given(attn, hidden_states)
        alone = self.processor(attn, hidden_states, None, attention_mask, temb)  # (B, n, C)
        both = torch.cat([hidden_states, tokens], 1)  # (B, n + m, C)
        mixed = 0.5 * self.processor(attn, hidden_states, both, None, temb) + 0.5 * alone
        return mixed if present is None else torch.where(present.view(-1, 1, 1), mixed, alone)


class _Paper(_Looking):
    """One softmax over the picture's keys and the reference's, which come from the reference U-Net's projections."""

    def __init__(self, *given, projections: tuple[nn.Module, nn.Module]):
        super().__init__(*given)
        self.to_k, self.to_v = projections

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
        tokens, present = self._given(attn, hidden_states)
        n, m = hidden_states.shape[1], tokens.shape[1]
        query, key, value = (
            _heads(attn, x)
            for x in (
                attn.to_q(hidden_states),
                torch.cat([attn.to_k(hidden_states), self.to_k(tokens)], 1),  # (B, n + m, C)
                torch.cat([attn.to_v(hidden_states), self.to_v(tokens)], 1),
            )
        )
        mask = None
        if present is not None:
            seen = present.view(-1, 1).expand(-1, m)
            mask = torch.cat([torch.ones_like(seen[:, :1]).expand(-1, n), seen], 1)[:, None, None]  # (B, 1, 1, n + m)
        out = functional.scaled_dot_product_attention(query, key, value, mask, scale=attn.scale)  # (B, heads, n, d)
        out = out.transpose(1, 2).flatten(2).to(hidden_states.dtype)  # (B, n, C)
        return attn.to_out[1](attn.to_out[0](out)) / attn.rescale_output_factor


def _heads(attn, x: torch.Tensor) -> torch.Tensor:
    """(B, n, C) -> (B, heads, n, C / heads)."""
    return x.unflatten(2, (attn.heads, -1)).transpose(1, 2)


def with_rows(bank: Bank, rows) -> Bank:
    """Some items of a bank, in that order; an item may come several times."""
    return replace(bank, tokens={name: value[rows] for name, value in bank.tokens.items()})
