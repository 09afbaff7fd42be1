"""Norms by layer: of gradients, of weights, of what an update did to them."""

import math

import torch
from peft.tuners.lora import LoraLayer
from torch import nn

from workbench.diffusion.lora import product_norm
from workbench.stepping.training.state import ByLayer


class Layers:
    """Which parameter belongs to which layer. A LoRA's two factors belong to the layer that they add to.

    Args:
        objective: the model.
        names: of the parameters that are trained.
    """

    def __init__(self, objective: nn.Module, names: list[str]):
        self.members: dict[str, list[str]] = {}
        for name in names:
            self.members.setdefault(_layer(name), []).append(name)
        self.names = tuple(self.members)
        modules = dict(objective.named_modules())
        self._lora = {name: modules[name] for name in self.names if isinstance(modules.get(name), LoraLayer)}

    def scales(self) -> dict[str, float]:
        """s of each LoRA that is in the model now."""
        return {name: abs(next(iter(layer.scaling.values()))) for name, layer in self._lora.items()}

    def gradient_norms(self, parameters: dict[str, nn.Parameter]) -> tuple[float, ByLayer]:
        """The norm over everything, and by layer."""
        names = [name for name, p in parameters.items() if p.grad is not None]
        if not names:
            return 0.0, ByLayer(self.names, [0.0] * len(self.names))
        norms = torch.stack(torch._foreach_norm([parameters[name].grad for name in names])).double().cpu().tolist()
        squares = dict(zip(names, (norm * norm for norm in norms), strict=True))
        layers = [math.sqrt(sum(squares.get(n, 0.0) for n in members)) for members in self.members.values()]
        return math.sqrt(sum(squares.values())), ByLayer(self.names, layers)

    def weight_norms(self, weights: dict[str, torch.Tensor], scales: dict[str, float]) -> ByLayer:
        """Of weights by layer; of a LoRA ||s B A||."""
        norms = []
        for layer, members in self.members.items():
            pair = _pair(members, weights)
            norms.append(scales[layer] * product_norm(*pair) if pair else _norm([weights[n] for n in members]))
        return ByLayer(self.names, norms)

    def update_norms(self, before: dict[str, torch.Tensor], after: dict, scales: dict[str, float]) -> ByLayer:
        """Of the change between two sets of weights by layer; of a LoRA ||s (B'A' - BA)||.

        B'A' - BA = [B' - B, B] [A'; A' - A], which loses no digits where the change is small.
        """
        norms = []
        for layer, members in self.members.items():
            pair, new = _pair(members, before), _pair(members, after)
            if pair:
                (b, a), (b1, a1) = ((x.flatten(1).double(), y.flatten(1).double()) for x, y in (pair, new))
                norms.append(scales[layer] * product_norm(torch.cat([b1 - b, b], 1), torch.cat([a1, a1 - a])))
            else:
                norms.append(_norm([after[n] - before[n] for n in members]))
        return ByLayer(self.names, norms)


def _layer(name: str) -> str:
    """The layer that a parameter belongs to."""
    return name.split(".lora_")[0] if ".lora_" in name else name.rpartition(".")[0] or name


def _pair(members: list[str], weights: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor] | None:
    """(B, A) if the layer has a LoRA and nothing else that is trained."""
    if len(members) != 2 or not all(".lora_" in name for name in members):
        return None
    b = next(name for name in members if ".lora_B." in name)
    a = next(name for name in members if ".lora_A." in name)
    return weights[b], weights[a]


def _norm(tensors: list[torch.Tensor]) -> float:
    return math.sqrt(sum(t.double().square().sum().item() for t in tensors))
