"""Matchers that were trained, from kornia: run with weights that are at hand, never downloaded."""

from pathlib import Path

import torch
from torch.nn import functional

from workbench import check
from workbench.diffusion.weight_files import read_weights
from workbench.image import to_grey

FILES = {
    "loftr": ("loftr_outdoor.ckpt", "loftr_indoor_ds_new.ckpt", "loftr_indoor.ckpt"),
    "disk": ("depth-save.pth", "epipolar-save.pth"),
}
"""Matcher -> names that its weights are published under; any *.safetensors in a folder given will do, too."""
PAGES = {
    "loftr": "http://cmp.felk.cvut.cz/~mishkdmy/models/loftr_outdoor.ckpt",
    "disk": "https://raw.githubusercontent.com/cvlab-epfl/disk/master/depth-save.pth",
}


def load_matcher(name: str, weights=None) -> torch.nn.Module:
    """A trained matcher of kornia.

    Args:
        name: "loftr" or "disk".
        weights: a file, or a folder with one of `FILES`; None looks into ``data/models/<name>`` and into torch's
            cache of downloads, where kornia itself would have put it.

    Raises:
        NotAvailable: no weights there, or not this network's; the message says what to put where.

    Source: Sun et al., CVPR 2021 (LoFTR); Tyszkiewicz et al., NeurIPS 2020 (DISK).
    """
    import kornia.feature

    file = _find(check.choice(name, "name", FILES), weights)
    tensors = _read(file)
    if name == "disk":
        network = kornia.feature.DISK()
    elif "_new" in file.name:  # its positional encoding differs by a mended mistake
        config = {**kornia.feature.loftr.loftr.default_cfg}
        config["coarse"] = {**config["coarse"], "temp_bug_fix": True}
        network = kornia.feature.LoFTR(None, config)
    else:
        network = kornia.feature.LoFTR(None)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise check.NotAvailable(f"{file} does not hold the weights of {name}: {reason}") from None
    return network.eval()


@torch.no_grad()
def run_matcher(matcher, image_a: torch.Tensor, image_b: torch.Tensor):
    """Asks a matcher with kornia's interface.

    Args:
        matcher: {"image0", "image1": grey (1, 1, H, W)} -> {"keypoints0", "keypoints1" (N, 2), "confidence" (N,)}, such
            as ``kornia.feature.LoFTR`` or ``LocalFeatureMatcher``. kornia counts from the middle of the top left pixel.
        image_a, image_b: (1, 3, H, W). They are continued to multiples of 8 on the right and below, never resized.

    Returns:
        Points (N, 2) of both in pixels, (0.5, 0.5) the middle of the top left one, and confidence (N,).
    """
    grey = [_to_multiple(to_grey(image).float()) for image in (image_a, image_b)]  # (1, 1, h, w)
    if isinstance(matcher, torch.nn.Module) and (parameter := next(matcher.parameters(), None)) is not None:
        grey = [g.to(parameter) for g in grey]
    found = matcher({"image0": grey[0], "image1": grey[1]})
    try:
        parts = found["keypoints0"], found["keypoints1"], found["confidence"]
    except (KeyError, TypeError):
        raise TypeError("matcher gave no keypoints0, keypoints1 and confidence, expected kornia's interface.") from None
    points_a, points_b, confidence = (p.float().to(image_a.device) for p in parts)
    points_a, points_b = points_a + 0.5, points_b + 0.5
    real = torch.ones_like(confidence, dtype=torch.bool)
    for points, image in ((points_a, image_a), (points_b, image_b)):  # not in what was added
        real &= (points >= 0).all(1) & (points <= points.new_tensor([image.shape[-1], image.shape[-2]])).all(1)
    return points_a[real], points_b[real], confidence[real].clamp(0, 1)


@torch.no_grad()
def disk_features(image: torch.Tensor, weights=None, count: int = 2048) -> tuple[torch.Tensor, torch.Tensor]:
    """DISK's points (N, 2) as (x, y) in pixels and descriptors (N, 128) of length 1."""
    found = load_matcher("disk", weights)(image.float().cpu(), count, pad_if_not_divisible=True)[0]
    height, width = image.shape[-2:]
    points = found.keypoints + 0.5
    real = (points < points.new_tensor([width, height])).all(1)
    return points[real], functional.normalize(found.descriptors[real], dim=1)


def _to_multiple(grey: torch.Tensor, multiple: int = 8) -> torch.Tensor:
    height, width = grey.shape[-2:]
    return functional.pad(grey, (0, -width % multiple, 0, -height % multiple), mode="replicate")


def _find(name: str, weights) -> Path:
    from workbench.diffusion.pipelines import MODELS  # brings diffusers with it, which SIFT does not need

    places = [MODELS / name, Path(torch.hub.get_dir()) / "checkpoints"] if weights is None else [Path(weights)]
    for place in places:
        if place.is_file():
            return place
        for file in [place / known for known in FILES[name]]:
            if file.is_file():
                return file
        if weights is not None and place.is_dir() and (found := sorted(place.glob("*.safetensors"))):
            return found[0]
    raise check.NotAvailable(
        f"the weights of {name} are not in {' or '.join(map(str, places))}. Get {PAGES[name]} on a machine with a "
        f"network and put the file into {places[0] if weights is None else 'a folder'}, or pass it: "
        f'match(..., method="{name}", weights="path/to/{FILES[name][0]}"). Offline, take method="sift".'
    )


def _read(file: Path) -> dict[str, torch.Tensor]:
    """Tensors by name, out of what training put round them."""
    found = read_weights(file)
    for key in ("state_dict", "extractor"):
        found = found.get(key, found)
    return found
