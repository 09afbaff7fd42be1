"""The plain way, as the paper tells it: unfold all patches, compare all with all, gather. Slow, and plainly right."""

import torch
import torch.nn.functional as F


def unfold(features):
    """(C, h, w) -> (h * w, 9 C), the patch about each cell; cells outside the map are 0."""
    return F.unfold(features[None], 3, padding=1)[0].T


def neighbours(target, wanted, features, allowed, match="ncc"):
    """Centres (N,) and likenesses (N,): normalised cross-correlation, or minus the squared distance."""
    patches, candidates = unfold(target)[wanted.flatten()], unfold(features)[allowed.flatten()]
    found = []
    for part in patches.split(256):
        if match == "ncc":
            lengths = part.norm(dim=1, keepdim=True) * candidates.norm(dim=1)
            values = part @ candidates.T / lengths.clamp_min(1e-10)
        else:
            values = -torch.stack([(candidates - patch).square().sum(1) for patch in part])
        found.append(values.max(1))
    places = torch.cat([f.indices for f in found])
    return allowed.flatten().nonzero()[places, 0], torch.cat([f.values for f in found])


def texture_energy(target, wanted, features, centres):
    """The mean squared difference of patches and their neighbours, by gathering both."""
    return (unfold(target)[wanted.flatten()] - unfold(features)[centres]).square().mean()
