"""How good is a fill: errors inside the hole, along its border and on the kept area; and errors of mattes.

Every metric of pictures is ``metric(result, truth, mask=None, where="hole")`` and returns one number per item,
a tensor (B,) in float64. ``where`` is "hole", "border" (3 pixels on both sides of the hole's edge), "keep" or
"all"; without a mask the whole picture counts.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from workbench import check
from workbench.image import resize, to_grey, to_signed
from workbench.mask import border

REGIONS = ("hole", "border", "keep", "all")


# Pictures


def mean_l1(result, truth, mask=None, where: str = "hole") -> torch.Tensor:
    """Mean absolute error, mean |result - truth| over pixels and channels; (B,) in [0, 1]."""
    result, truth, weight = _prepare(result, truth, mask, where)
    return _average((result - truth).abs(), weight)


def mean_l2(result, truth, mask=None, where: str = "hole") -> torch.Tensor:
    """Mean squared error, mean (result - truth)^2 over pixels and channels; (B,) in [0, 1]."""
    result, truth, weight = _prepare(result, truth, mask, where)
    return _average((result - truth) ** 2, weight)


def psnr(result, truth, mask=None, where: str = "hole") -> torch.Tensor:
    """Peak signal-to-noise ratio, 10 log10(1 / mean_l2); (B,) in dB, infinite where nothing differs.

    Args:
        result: (B, 3, H, W) in [0, 1].
        truth: the same shape.
        mask: (B, 1, H, W) or None.
        where: "hole", "border", "keep" or "all".

    Returns:
        (B,) in dB.

    Raises:
        ValueError: the region is empty in some item.

    Example:
        >>> psnr(result.image, photo, mask)
        tensor([24.3], dtype=torch.float64)
    """
    return -10 * mean_l2(result, truth, mask, where).log10()


def ssim(result, truth, mask=None, where: str = "hole") -> torch.Tensor:
    """Structural similarity: Gaussian window of 11 pixels (sigma 1.5), averaged over the region; (B,), 1 = same.

    The map is computed on the whole pictures, so windows at the hole's edge see kept pixels too. Raises ValueError for
    pictures of less than 6 pixels a side.

    Source: Wang et al., IEEE TIP 2004; the map is kornia's.
    """
    from kornia.metrics import ssim as ssim_map  # takes a second to import

    result, truth, weight = _prepare(result, truth, mask, where)
    if min(result.shape[-2:]) < 6:
        raise ValueError(f"the pictures are {tuple(result.shape[-2:])} (H, W), expected at least 6: half a window.")
    return _average(ssim_map(result, truth, window_size=11, max_val=1.0), weight)


def gradient_similarity(result, truth, mask=None, where: str = "hole") -> torch.Tensor:
    """Gradient magnitude similarity, mean (2 a b + c) / (a^2 + b^2 + c); (B,), 1 = edges as strong as they were.

    a, b are Prewitt gradient magnitudes of the luminances, c = 0.0026.

    Source: Xue et al., IEEE TIP 2014 (GMSD), equation 4; we average where they take the deviation, and do not
    halve the picture first.
    """
    result, truth, weight = _prepare(result, truth, mask, where)
    a, b = _gradient(result), _gradient(truth)
    return _average((2 * a * b + 0.0026) / (a**2 + b**2 + 0.0026), weight)


def delta_e(result, truth, mask=None, where: str = "hole") -> torch.Tensor:
    """Colour difference CIEDE2000; (B,), 0 = same, about 2 = just noticeable, 100 = black against white.

    Source: Sharma et al. 2005, sRGB under D65; the formula is scikit-image's.
    """
    from skimage import color

    result, truth, weight = _prepare(result, truth, mask, where)
    lab = [color.rgb2lab(x.permute(0, 2, 3, 1).cpu().numpy()) for x in (result, truth)]  # (B, H, W, 3)
    return _average(torch.from_numpy(color.deltaE_ciede2000(*lab))[:, None].to(result), weight)


def seam_error(result, truth=None, mask=None, where: str = "border") -> torch.Tensor:
    """How visible the hole's edge is: the step across it beyond the steps beside it; (B,) in [0, 1], 0 = no seam.

    max(0, mean |step across the edge| - mean |step next to it|), steps being differences between neighbouring
    pixels at a right angle to the edge, taken within 3 pixels on both sides. It needs no truth: ``truth`` and
    ``where`` are there so that it can stand in a table with the others.

    Source: our own.
    """
    check.image(result, "result")
    if mask is None:
        raise ValueError("mask is None, expected the hole's mask (B, 1, H, W): a seam runs along its edge.")
    mask = check.mask(mask, like=result).expand(result.shape[0], -1, -1, -1)
    band = border(mask, 3)
    across, beside = [], []
    for axis in (2, 3):
        step = result.double().diff(dim=axis).abs().mean(1)  # (B, h, w)
        edge = mask.diff(dim=axis).abs()[:, 0]  # 1 where the step crosses the edge
        near = torch.minimum(band.narrow(axis, 0, band.shape[axis] - 1), band.narrow(axis, 1, band.shape[axis] - 1))
        near = near[:, 0] * (1 - edge) * _near_edge(edge, axis - 1)
        across.append(((step * edge).sum((1, 2)), edge.sum((1, 2))))
        beside.append(((step * near).sum((1, 2)), near.sum((1, 2))))
    if (sum(n for _, n in across) == 0).any():
        raise ValueError("mask has no edge inside the picture in some item, expected a hole and kept pixels.")
    across, beside = (sum(s for s, _ in p) / sum(n for _, n in p).clamp(min=1) for p in (across, beside))
    return (across - beside).clamp(min=0)


# Perceptual distances: offered when their packages and weights are at hand. Whole pictures, no mask.


def lpips(result, truth, net: str = "alex") -> torch.Tensor:
    """Learned perceptual distance LPIPS of whole pictures; (B,), 0 = same.

    Args:
        result: (B, 3, H, W) in [0, 1].
        truth: the same shape.
        net: "alex", "vgg" or "squeeze"; papers differ, so say which.

    Raises:
        NotAvailable: the package ``lpips`` (with torchvision and its weights) is missing.

    Source: Zhang et al., CVPR 2018.
    """
    result, truth, _ = _prepare(result, truth, None, "all")
    package = _import("lpips", "pip install lpips torchvision")
    model = _ready("lpips", lambda: package.LPIPS(net=net, verbose=False))
    with torch.no_grad():
        return model(to_signed(result).float(), to_signed(truth).float()).flatten().double()  # (B,)


def dreamsim(result, truth) -> torch.Tensor:
    """DreamSim distance of whole pictures; (B,), 0 = same.

    Raises:
        NotAvailable: the package ``dreamsim`` or its weights are missing.

    Source: Fu et al., NeurIPS 2023.
    """
    result, truth, _ = _prepare(result, truth, None, "all")
    package = _import("dreamsim", "pip install dreamsim torchvision")
    model, _ = _ready("dreamsim", lambda: package.dreamsim(pretrained=True, device=str(result.device)))
    with torch.no_grad():
        return model(resize(result.float(), (224, 224)), resize(truth.float(), (224, 224))).flatten().double()


def clip_similarity(result, truth, model: str = "openai/clip-vit-base-patch32") -> torch.Tensor:
    """Cosine of the CLIP image embeddings of whole pictures; (B,) in [-1, 1], 1 = same.

    Args:
        result: (B, 3, H, W) in [0, 1].
        truth: the same shape.
        model: a folder, or the id of a model that lies in the Hugging Face cache; nothing is downloaded.

    Raises:
        NotAvailable: the weights are not on this machine.
    """
    from transformers import CLIPVisionModelWithProjection

    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    return _embedding_cosine(CLIPVisionModelWithProjection, model, lambda o: o.image_embeds, mean, std, result, truth)


def dino_similarity(result, truth, model: str = "facebook/dino-vits16") -> torch.Tensor:
    """Cosine of the DINO class tokens of whole pictures; (B,) in [-1, 1], 1 = same.

    Args, Raises: as `clip_similarity`.
    """
    from transformers import AutoModel

    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return _embedding_cosine(AutoModel, model, lambda o: o.last_hidden_state[:, 0], mean, std, result, truth)


# Mattes. Defined on the unknown region of the trimap; without a trimap on the whole picture, as trimap-free
# papers do (SAD then grows with the picture).


def matting_sad(alpha, truth, trimap=None) -> torch.Tensor:
    """Sum of absolute differences, sum |a - a*| / 1000; (B,).

    Args:
        alpha: estimated matte (B, 1, H, W) in [0, 1].
        truth: true matte, the same shape.
        trimap: (B, 1, H, W); only where it is 0.5 counts. None: the whole picture.

    Source: Rhemann et al., CVPR 2009, in the form of Xu et al., CVPR 2017 (Deep Image Matting).
    """
    alpha, truth, unknown = _prepare_mattes(alpha, truth, trimap)
    return ((alpha - truth).abs() * unknown).sum((1, 2, 3)) / 1000


def matting_mse(alpha, truth, trimap=None) -> torch.Tensor:
    """Mean squared error over the unknown pixels; (B,). Tables usually print it times 1000.

    Args, Source: as `matting_sad`.
    """
    alpha, truth, unknown = _prepare_mattes(alpha, truth, trimap)
    return ((alpha - truth) ** 2 * unknown).sum((1, 2, 3)) / unknown.sum((1, 2, 3))


def matting_grad(alpha, truth, trimap=None, sigma: float = 1.4) -> torch.Tensor:
    """Gradient error, sum (|grad a| - |grad a*|)^2 / 1000; (B,).

    Gradients are first-order Gaussian derivatives (sigma 1.4, 9 x 9, filters of norm 1, border repeated) of mattes
    first stretched to fill [0, 1]; a constant matte stays as it is.

    Args, Source: as `matting_sad`. The MATLAB original does not divide by 1000; most tables since do.
    """
    alpha, truth, unknown = _prepare_mattes(alpha, truth, trimap)
    difference = _gaussian_gradient(alpha, sigma) - _gaussian_gradient(truth, sigma)
    return (difference**2 * unknown).sum((1, 2, 3)) / 1000


def matting_conn(alpha, truth, trimap=None, step: float = 0.1) -> torch.Tensor:
    """Connectivity error, sum |phi(a) - phi(a*)| / 1000; (B,).

    At thresholds step, 2 step ... 1 the common core is the largest 4-connected region where both mattes reach the
    threshold. l = the last threshold at which a pixel still belongs to it (1 if always), d = a - l, and
    phi = 1 - d where d >= 0.15, else 1.

    Args, Source: as `matting_sad`. The MATLAB original does not divide by 1000; most tables since do.
    """
    alpha, truth, unknown = _prepare_mattes(alpha, truth, trimap)
    level = connectivity_level(alpha, truth, step)

    def phi(matte):
        distance = matte - level
        return 1 - distance * (distance >= 0.15)

    return ((phi(alpha) - phi(truth)).abs() * unknown).sum((1, 2, 3)) / 1000


def connectivity_level(alpha, truth, step: float = 0.1) -> torch.Tensor:
    """The map l of `matting_conn`: up to which threshold each pixel belongs to the common core; (B, 1, H, W)."""
    level = torch.full_like(alpha, -1)  # -1: has not left the core yet
    for b in range(alpha.shape[0]):
        for threshold in np.arange(step, 1 + step / 10, step):
            # thresholds are compared a hair below, so that 0.3 counts as reaching 0.1 * 3
            both = ((alpha[b, 0] >= threshold - 1e-6) & (truth[b, 0] >= threshold - 1e-6)).cpu().numpy()
            labels, count = ndimage.label(both)
            largest = 1 + np.bincount(labels.ravel())[1:].argmax() if count else -1
            left = torch.from_numpy(labels != largest).to(alpha.device) & (level[b, 0] == -1)
            level[b, 0, left] = threshold - step
    return torch.where(level == -1, torch.ones(()).to(level), level)


# One table over many results


@dataclass(frozen=True)
class Comparison:
    """A table: one row a result, one column a metric in a region. Shows itself in a notebook.

    Args:
        rows: {name of the result: {column: value}}; columns are "psnr hole", "ssim border" ...
    """

    rows: dict[str, dict[str, float]]

    def best(self, column: str) -> str:
        """The name of the best row in a column (the highest or the lowest value, whichever is better)."""
        columns = list(next(iter(self.rows.values())))
        check.choice(column, "column", columns)
        pick = max if column.split()[0] in _HIGHER_IS_BETTER else min
        return pick(self.rows, key=lambda name: self.rows[name][column])

    def __repr__(self) -> str:
        cells = [["", *next(iter(self.rows.values()))]]
        cells += [[name, *(_digits(c, v) for c, v in row.items())] for name, row in self.rows.items()]
        widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
        return "\n".join(
            "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))])
            for line in cells
        )

    def _repr_html_(self) -> str:
        columns = list(next(iter(self.rows.values())))
        head = "".join(f"<th>{c}</th>" for c in ["", *columns])
        best = {c: self.best(c) for c in columns}
        body = ""
        for name, row in self.rows.items():
            cells = (f"<b>{_digits(c, v)}</b>" if best[c] == name else _digits(c, v) for c, v in row.items())
            body += f"<tr><th>{name}</th>{''.join(f'<td>{c}</td>' for c in cells)}</tr>"
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


METRICS: dict[str, Callable] = {
    "mean_l1": mean_l1,
    "mean_l2": mean_l2,
    "psnr": psnr,
    "ssim": ssim,
    "gradient_similarity": gradient_similarity,
    "delta_e": delta_e,
    "seam_error": seam_error,
}
_HIGHER_IS_BETTER = ("psnr", "ssim", "gradient_similarity")


def compare(
    results: dict, truth: torch.Tensor, mask: torch.Tensor, metrics=("psnr", "ssim", "seam_error")
) -> Comparison:
    """Measures several results of one hole, averaged over the batch.

    Args:
        results: {name: picture (B, 3, H, W), or anything with such an ``image``, as a `Result`}.
        truth: (B, 3, H, W).
        mask: (B, 1, H, W), 1 = hole.
        metrics: names from `METRICS`, each for the hole ("psnr") or for a region ("psnr keep").

    Returns:
        `Comparison`.

    Example:
        >>> compare({"mean": a, "patchmatch": b}, photo, mask).best("psnr hole")
        'patchmatch'
    """
    if not results:
        raise ValueError("results is empty, expected {name: picture}.")
    columns = []
    for metric in metrics:
        name, _, where = metric.partition(" ")
        check.choice(name, "a metric", METRICS)
        default = "border" if name == "seam_error" else "hole"
        columns.append((name, check.choice(where or default, f"the region of {name}", REGIONS)))
    rows = {}
    for name, result in results.items():
        image = getattr(result, "image", result)
        rows[name] = {f"{m} {where}": METRICS[m](image, truth, mask, where).mean().item() for m, where in columns}
    return Comparison(rows)


# How sure a number is


def bootstrap_interval(
    values: Sequence, statistic: Callable | None = None, *, level: float = 0.95, rounds: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """How far a number could lie off with other pictures: percentiles of it over pictures drawn with replacement.

    Args:
        values: one entry for each picture, (N,) or (N, ...). Points of one picture hang together, so that pictures
            are what must be drawn.
        statistic: entries (N, ...) -> number; None takes the mean.
        level: of confidence.
        rounds: draws.
        seed: of the draws.

    Returns:
        (low, high).

    Source: Efron, 1979, percentile interval.
    """
    values = np.asarray(values, np.float64)
    if values.ndim == 0 or not len(values):
        raise ValueError("values is empty, expected one number for each picture.")
    check.number(level, "level", 0, 1)
    rng = np.random.default_rng(check.seed(seed))
    draws = rng.integers(0, len(values), (check.integer(rounds, "rounds", 1), len(values)))
    if statistic is None:
        found = values.reshape(len(values), -1).mean(1)[draws].mean(1)  # (rounds,)
    else:
        found = [float(statistic(values[draw])) for draw in draws]
    low, high = np.nanquantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


# Below: what the metrics share


def _digits(column: str, value: float) -> str:
    return f"{value:.2f}" if column.split()[0] in ("psnr", "delta_e") else f"{value:.4f}"


def _prepare(result, truth, mask, where: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Checked pictures in float64 and the region's weight (B, 1, H, W)."""
    check.image(result, "result")
    check.image(truth, "truth")
    if result.shape != truth.shape:
        raise ValueError(f"result has shape {tuple(result.shape)} and truth {tuple(truth.shape)}, expected the same.")
    check.choice(where, "where", REGIONS)
    if mask is None or where == "all":
        weight = torch.ones_like(result[:, :1])
    else:
        mask = check.mask(mask, like=result).expand(result.shape[0], -1, -1, -1)
        weight = {"hole": lambda: mask, "keep": lambda: 1 - mask, "border": lambda: border(mask, 3)}[where]()
    empty = (weight.sum((1, 2, 3)) == 0).nonzero().flatten().tolist()
    if empty:
        raise ValueError(f"the region {where!r} is empty in item {empty[0]}, expected a mask with both 0 and 1.")
    return result.double(), truth.double(), weight.to(result.device).double()


def _average(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Weighted mean over channels and pixels: (B, C, H, W), (B, 1, H, W) -> (B,)."""
    return (values * weight).sum((1, 2, 3)) / (weight.sum((1, 2, 3)) * values.shape[1])


def _gradient(image: torch.Tensor) -> torch.Tensor:
    """Prewitt gradient magnitude of the luminance, (B, 3, H, W) -> (B, 1, H, W)."""
    kernel = image.new_tensor([[1, 0, -1]] * 3) / 3
    kernels = torch.stack([kernel, kernel.T])[:, None]  # (2, 1, 3, 3)
    grey = torch.nn.functional.pad(to_grey(image), (1, 1, 1, 1), mode="replicate")
    return torch.nn.functional.conv2d(grey, kernels).square().sum(1, keepdim=True).sqrt()  # (B, 1, H, W)


def _near_edge(edge: torch.Tensor, axis: int) -> torch.Tensor:
    """1 where an edge step lies at most 3 steps away along the axis; (B, h, w)."""
    kernel, padding = ([7, 1], [3, 0]) if axis == 1 else ([1, 7], [0, 3])
    return torch.nn.functional.max_pool2d(edge[:, None], kernel, 1, padding)[:, 0]


def _prepare_mattes(alpha, truth, trimap) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Checked mattes in float64 and the unknown region (B, 1, H, W)."""
    check.alpha(alpha)
    check.alpha(truth, "truth")
    if alpha.shape != truth.shape:
        raise ValueError(f"alpha has shape {tuple(alpha.shape)} and truth {tuple(truth.shape)}, expected the same.")
    if trimap is None:
        unknown = torch.ones_like(alpha)
    else:
        unknown = (check.trimap(trimap, like=alpha) == 0.5).expand(alpha.shape[0], -1, -1, -1)
        if (unknown.sum((1, 2, 3)) == 0).any():
            raise ValueError(
                "trimap has no unknown pixel (0.5) in some item, expected some: there mattes are compared."
            )
    return alpha.double(), truth.double(), unknown.double()


def _gaussian_gradient(alpha: torch.Tensor, sigma: float) -> torch.Tensor:
    """Magnitude of the Gaussian derivative of the stretched matte, (B, 1, H, W)."""
    low, high = alpha.amin((2, 3), keepdim=True), alpha.amax((2, 3), keepdim=True)
    alpha = torch.where(high > low, (alpha - low) / (high - low).clamp(min=1e-12), alpha)
    half = math.ceil(sigma * math.sqrt(-2 * math.log(math.sqrt(2 * math.pi) * sigma * 0.01)))  # 4 for sigma 1.4
    x = torch.arange(-half, half + 1, dtype=alpha.dtype, device=alpha.device)
    gauss = torch.exp(-(x**2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi))
    kernel = gauss[:, None] * (-x * gauss / sigma**2)[None]  # (9, 9), derivative along x
    kernel = kernel / kernel.norm()
    kernels = torch.stack([kernel, kernel.T])[:, None]  # (2, 1, 9, 9)
    padded = torch.nn.functional.pad(alpha, (half,) * 4, mode="replicate")
    return torch.nn.functional.conv2d(padded, kernels).square().sum(1, keepdim=True).sqrt()  # (B, 1, H, W)


_READY: dict = {}  # models stay loaded between calls


def _ready(key, load: Callable):
    if key not in _READY:
        _READY[key] = load()
    return _READY[key]


def _import(package: str, command: str):
    try:
        return __import__(package)
    except ImportError as error:
        raise check.NotAvailable(f"{package} cannot be imported here ({error}). Install it with: {command}") from None


def _embedding_cosine(kind, model: str, embed: Callable, mean, std, result, truth) -> torch.Tensor:
    """Cosine of two pictures' embeddings by a transformers vision model, (B,)."""
    result, truth, _ = _prepare(result, truth, None, "all")

    def load():
        try:
            return kind.from_pretrained(model, local_files_only=True).eval()
        except (OSError, ValueError):
            where = "that folder" if Path(model).exists() else "the Hugging Face cache or a folder given as model="
            raise check.NotAvailable(
                f"the weights of {model!r} are not on this machine: put config.json and model.safetensors into {where}."
            ) from None

    network = _ready((kind.__name__, model), load)
    side = network.config.image_size
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (mean, std))
    with torch.no_grad():
        both = [(resize(x.float(), (side, side)).cpu() - mean) / std for x in (result, truth)]  # (B, 3, side, side)
        return torch.cosine_similarity(*(embed(network(pixel_values=x)) for x in both)).double()  # (B,)
