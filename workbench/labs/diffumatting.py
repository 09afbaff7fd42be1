"""Exercises of notebook 16: the compositing equation turned round, three losses, GSG, the clean plate, Conn by hand."""

from collections.abc import Callable

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional as F

from workbench.image import LUMINANCE
from workbench.labs import Exercise, call, expect, expect_tensor

SOBEL = ((-1, 0, 1), (-2, 0, 2), (-1, 0, 1))
"""G_x, before it is divided by 8; G_y is its transpose."""


def triangulate(first: torch.Tensor, second: torch.Tensor, first_screen, second_screen) -> torch.Tensor:
    """Alpha of a thing that was seen before two colours: the compositing equation, turned round.

    C1 = alpha F + (1 - alpha) G1 and C2 = alpha F + (1 - alpha) G2, so C1 - C2 = (1 - alpha) (G1 - G2). By least
    squares over the three channels, as pictures are never exact:

    alpha = 1 - sum_c (C1 - C2)_c (G1 - G2)_c / sum_c (G1 - G2)_c^2, cut off at 0 and 1

    Args:
        first, second: C1 and C2, (B, 3, H, W).
        first_screen, second_screen: G1 and G2, (r, g, b); they differ, but not in every channel.

    Returns:
        (B, 1, H, W) in [0, 1].
    """
    step = first.new_tensor(first_screen) - first.new_tensor(second_screen)  # (3,)
    seen = ((first - second) * step.view(1, 3, 1, 1)).sum(1, keepdim=True)  # (B, 1, H, W)
    return (1 - seen / step.square().sum()).clamp(0, 1)


def _test_triangulate(answer) -> None:
    screens = (0.1, 0.9, 0.2), (0.75, 0.3, 0.2)
    for seed, shape in ((0, (2, 3, 9, 12)), (1, (1, 3, 11, 7))):
        generator = torch.Generator().manual_seed(seed)
        alpha = torch.rand(shape[0], 1, *shape[2:], generator=generator)
        alpha[..., :3], alpha[..., -2:] = 0, 1
        thing = torch.rand(shape, generator=generator)
        pair = []
        for screen in screens:
            screen = torch.tensor(screen).view(1, 3, 1, 1)
            grain = 0.02 * torch.randn(shape, generator=generator)
            pair.append((thing * alpha + screen * (1 - alpha) + grain).clamp(0, 1))
        before = [x.clone() for x in pair]
        got = expect_tensor(call(answer, *pair, *screens), "a tensor: alpha, (B, 1, H, W)")
        same = all(torch.equal(*both) for both in zip(pair, before, strict=True))
        expect(same, "You change the pictures in place: expected them as they were.")
        expect(
            tuple(got.shape) != shape,
            "You return three channels: expected one alpha, the sums go over the channels.",
        )
        wanted = triangulate(*pair, *screens)
        _shaped(got, wanted)
        expect(
            bool(got.isfinite().all()),
            "You divide channel by channel, and the screens may be equal in one: expected sums before the quotient.",
        )
        for told, other in _other_triangles(*pair, *screens).items():
            expect(not _alike(got, other) and not _alike(got, other.clamp(0, 1)), told)
        expect(bool((got >= 0).all() and (got <= 1).all()), "You let alpha leave [0, 1]: expected it cut off there.")
        expect(_alike(got, wanted), "Your numbers differ: expected 1 - sum (C1 - C2)(G1 - G2) / sum (G1 - G2)^2.")


def _other_triangles(first, second, first_screen, second_screen) -> dict[str, torch.Tensor]:
    """What typical mistakes give, by what they should be told."""
    step = (torch.tensor(first_screen) - torch.tensor(second_screen)).view(1, 3, 1, 1)
    change = first - second
    seen, length = (change * step).sum(1, keepdim=True), step.square().sum()
    return {
        "You give 1 - alpha, what shines through: expected alpha.": seen / length,
        "You divide by the screens' distance: expected its square.": 1 - seen / length.sqrt(),
        "You add up above the line and average below: expected sums in both.": 1 - 3 * seen / length,
        "You average above the line and add up below: expected sums in both.": 1 - seen / (3 * length),
        "You take one pair the other way round: expected C1 - C2 with G1 - G2.": 1 + seen / length,
        "You compare lengths, and grain makes every difference longer: expected the product (C1 - C2)(G1 - G2).": (
            1 - change.norm(dim=1, keepdim=True) / length.sqrt()
        ),
        "You look at green alone: expected all three channels.": 1 - change[:, 1:2] / step[:, 1:2],
        "You add the channels up before you multiply: red and green then cancel each other.": (
            1 - change.sum(1, keepdim=True) / step.sum()
        ),
    }


def green_control(maps: list[torch.Tensor], alpha: torch.Tensor) -> torch.Tensor:
    """DiffuMatting's green background control: "green" is looked at where the background is, and nowhere else.

    L = 1/u sum_i mean_p (A_i(p) - (1 - M_i(p)))^2, over the u layers i and the places p of each (and the items)

    Args:
        maps: A_i, one (B, 1, h, w) a layer, of different sizes: the share of attention that the word "green" gets.
        alpha: the matte, (B, 1, H, W); M_i is its mean over the pixels that a place of layer i covers. H / h and W / w
            are whole numbers.

    Returns:
        A tensor of one number.
    """
    layers = []
    for each in maps:
        covered = F.adaptive_avg_pool2d(alpha, each.shape[-2:])  # (B, 1, h, w)
        layers.append((each - (1 - covered)).square().mean())
    return torch.stack(layers).mean()


def _test_green_control(answer) -> None:
    for seed, sizes in ((0, ((8, 12), (4, 6), (2, 3))), (1, ((12, 8), (6, 4)))):
        generator = torch.Generator().manual_seed(seed)
        height, width = (4 * n for n in sizes[0])
        alpha = (torch.rand(2, 1, height, width, generator=generator) * 2 - 0.6).clamp(0, 1)
        alpha[..., : width // 2] *= 0.2
        maps = [torch.rand(2, 1, *size, generator=generator).requires_grad_() for size in sizes]
        got = _number(call(answer, list(maps), alpha.clone()))
        maps = [each.detach() for each in maps]
        expect(
            got.requires_grad,
            "You cut the way back to the maps: expected a tensor to differentiate, without item() or detach().",
        )
        _one_of(float(got.detach()), float(green_control(maps, alpha)), _other_controls(maps, alpha))


def _other_controls(maps, alpha) -> dict[str, float]:
    covered = [F.adaptive_avg_pool2d(alpha, each.shape[-2:]) for each in maps]
    pairs = list(zip(maps, covered, strict=True))
    errors = [(a - (1 - m)).square() for a, m in pairs]
    size = alpha.shape[-2:]
    single = [F.interpolate(alpha, each.shape[-2:], mode="nearest") for each in maps]

    def over(found) -> float:
        return float(torch.stack([each.mean() for each in found]).mean())

    return {
        "You send green to the object: expected it towards 1 - M, the background.": over(
            [(a - m).square() for a, m in pairs]
        ),
        "You take absolute differences: expected squares.": over([(a - (1 - m)).abs() for a, m in pairs]),
        "You weigh layers by their places: expected the mean of each layer first, then of the layers.": float(
            torch.cat([each.flatten() for each in errors]).mean()
        ),
        "You add the layers up: expected their mean.": len(maps) * over(errors),
        "You add the places up: expected the mean of each layer.": float(
            torch.stack([each.sum() for each in errors]).mean()
        ),
        "You look at the first layer alone: expected all of them.": over(errors[:1]),
        "You look at the last layer alone: expected all of them.": over(errors[-1:]),
        "You ask single pixels of the matte: expected its mean over what a place covers.": over(
            [(a - (1 - m)).square() for a, m in zip(maps, single, strict=True)]
        ),
        "You enlarge the maps: expected the matte brought to each map's own size.": over(
            [(F.interpolate(a, size, mode="nearest") - (1 - alpha)).square() for a in maps]
        ),
        "You enlarge the maps smoothly: expected the matte brought to each map's own size.": over(
            [(F.interpolate(a, size, mode="bilinear") - (1 - alpha)).square() for a in maps]
        ),
        "You cut the matte to 0 or 1: expected it soft.": over([(a - (m <= 0.5).float()).square() for a, m in pairs]),
        "You punish green on the object only: expected it wanted on the background too.": over(
            [(a * m).square() for a, m in pairs]
        ),
    }


def boundary_detail(estimate: torch.Tensor, image: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """DiffuMatting's detail at the transition boundary: the painted thing has the edges of the true one.

    L = mean |M S(x^) - M S(x)|, the mean over items, the two responses and all pixels. S(x) are the two Sobel responses
    of the grey picture, 0.299 R + 0.587 G + 0.114 B: with G_x = [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]] / 8 and with its
    transpose. Outside the picture its edge pixels are repeated.

    Args:
        estimate: x^, (B, 3, H, W).
        image: x, (B, 3, H, W).
        alpha: M, (B, 1, H, W).

    Returns:
        A tensor of one number.
    """
    return (alpha * (_sobel(estimate) - _sobel(image))).abs().mean()


def _sobel(image: torch.Tensor, padding: str = "replicate", luminance=LUMINANCE, scale: float = 8) -> torch.Tensor:
    """(B, 3 or 1, H, W) -> (B, 2, H, W)."""
    if image.shape[1] == 3:
        image = (image * image.new_tensor(luminance).view(1, 3, 1, 1)).sum(1, keepdim=True)
    kernel = image.new_tensor(SOBEL) / scale
    padded = F.pad(image, (1, 1, 1, 1), mode=padding)
    return F.conv2d(padded, torch.stack([kernel, kernel.T])[:, None])


def _test_boundary_detail(answer) -> None:
    for seed, shape in ((0, (2, 3, 12, 17)), (1, (1, 3, 15, 10))):
        generator = torch.Generator().manual_seed(seed)
        estimate, image = torch.rand(2, *shape, generator=generator)
        alpha = (torch.rand(shape[0], 1, *shape[2:], generator=generator) * 1.6 - 0.3).clamp(0, 1)
        leaf = estimate.clone().requires_grad_()
        got = _number(call(answer, leaf, image.clone(), alpha.clone()))
        expect(
            got.requires_grad,
            "You cut the way back to the estimate: expected a tensor to differentiate, without item() or detach().",
        )
        others = _other_details(estimate, image, alpha)
        _one_of(float(got.detach()), float(boundary_detail(estimate, image, alpha)), others)


def _other_details(estimate, image, alpha) -> dict[str, float]:
    a, b = _sobel(estimate), _sobel(image)
    zero, even = {"padding": "constant"}, {"luminance": (1 / 3, 1 / 3, 1 / 3)}
    inner = (alpha * (a - b))[..., 1:-1, 1:-1]
    found = {
        "You leave the matte out: expected the edges weighed by M.": (a - b).abs(),
        "You weigh by 1 - M: expected M, the object.": (1 - alpha) * (a - b).abs(),
        "You multiply the pictures by M and then look for edges: expected S first, M after.": (
            _sobel(alpha * estimate) - _sobel(alpha * image)
        ).abs(),
        "You compare the strength of edges: expected both responses, each with its sign.": alpha
        * (a.norm(dim=1, keepdim=True) - b.norm(dim=1, keepdim=True)).abs(),
        "You take horizontal differences only: expected the transpose too.": alpha * (a - b)[:, :1].abs(),
        "You take vertical differences only: expected G_x too.": alpha * (a - b)[:, 1:].abs(),
        "You take squares: expected absolute differences.": (alpha * (a - b)).square(),
        "You do not divide the kernel by 8.": 8 * alpha * (a - b).abs(),
        "You pad with 0, which makes an edge of the frame: expected edge pixels repeated.": alpha
        * (_sobel(estimate, **zero) - _sobel(image, **zero)).abs(),
        "You leave the frame out: expected all pixels, edge pixels repeated.": inner.abs(),
        "You take the plain mean of the channels for grey: expected 0.299 R + 0.587 G + 0.114 B.": alpha
        * (_sobel(estimate, **even) - _sobel(image, **even)).abs(),
        "You add both responses: expected the mean over them too.": 2 * alpha * (a - b).abs(),
        "You let differences of either sign cancel: expected absolute ones.": alpha * (a - b),
    }
    told = {message: float(each.mean()) for message, each in found.items()}
    weighed = alpha * (a - b).abs()
    told["You divide by the matte's sum: expected the mean over all pixels."] = float(weighed.sum() / alpha.sum() / 2)
    told["You add everything up: expected the mean."] = float(weighed.sum())
    return told


def dice(alpha: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """The Dice loss of soft mattes, one number for each item.

    1 - (2 sum a a* + 1) / (sum a^2 + sum a*^2 + 1), sums over the pixels of the item

    Args:
        alpha: a, (B, 1, H, W) in [0, 1].
        truth: a*, (B, 1, H, W).

    Returns:
        (B,): 0 for equal mattes, soft or not, and for two empty ones.
    """
    both = (alpha * truth).sum((1, 2, 3))
    return 1 - (2 * both + 1) / (alpha.square().sum((1, 2, 3)) + truth.square().sum((1, 2, 3)) + 1)


def _test_dice(answer) -> None:
    for seed, shape in ((0, (3, 1, 5, 8)), (1, (2, 1, 7, 4))):
        generator = torch.Generator().manual_seed(seed)
        alpha, truth = (torch.rand(2, *shape, generator=generator) * 1.4 - 0.3).clamp(0, 1)
        leaf = alpha.clone().requires_grad_()
        got = expect_tensor(call(answer, leaf, truth.clone()), "a tensor: one number an item, (B,)")
        wanted = dice(alpha, truth)
        a, b = alpha.flatten(1), truth.flatten(1)
        whole = 1 - (2 * (a * b).sum() + 1) / (a.square().sum() + b.square().sum() + 1)
        mean = got.numel() == 1 and (_alike(got.flatten()[0], wanted.mean()) or _alike(got.flatten()[0], whole))
        expect(not mean, "You give one number for the batch: expected one for each item.")
        _shaped(got, wanted)
        expect(got.requires_grad, "You cut the way back to alpha: expected a tensor to differentiate.")
        for told, other in _other_dice(a, b).items():
            expect(not _alike(got, other), told)
        expect(_alike(got, wanted), "Your numbers differ: expected 1 - (2 sum a a* + 1) / (sum a^2 + sum a*^2 + 1).")
    nothing = expect_tensor(
        call(answer, torch.zeros(1, 1, 4, 6), torch.zeros(1, 1, 4, 6)), "a tensor: one number an item, (B,)"
    )
    expect(_alike(nothing, torch.zeros(1)), "Two empty mattes agree: expected 0, by the 1 above and below.")


def _other_dice(a: torch.Tensor, b: torch.Tensor) -> dict[str, torch.Tensor]:
    """a, b: (B, n)."""
    both, squares = (a * b).sum(1), a.square().sum(1) + b.square().sum(1)
    hard = [(x > 0.5).float() for x in (a, b)]
    return {
        "You give the overlap: expected 1 minus it, a loss.": (2 * both + 1) / (squares + 1),
        "You add up a and a* below: expected their squares, or equal soft mattes would not give 0.": (
            1 - (2 * both + 1) / ((a + b).sum(1) + 1)
        ),
        "You leave the 1 out: two empty mattes are then 0 / 0.": 1 - 2 * both / squares,
        "You add the 1 below only: expected it above too.": 1 - 2 * both / (squares + 1),
        "You add the 1 above only: expected it below too.": 1 - (2 * both + 1) / squares,
        "You leave the 2 out: equal mattes then give a half.": 1 - (both + 1) / (squares + 1),
        "You take the intersection over the union: expected Dice.": 1 - (both + 1) / (squares - both + 1),
        "You take means instead of sums, beside which the 1 is large.": (
            1 - (2 * (a * b).mean(1) + 1) / (a.square().mean(1) + b.square().mean(1) + 1)
        ),
        "You cut the mattes to 0 or 1: expected them soft.": dice(*(x[:, None, None] for x in hard)),
        "You square the sums: expected the sums of squares.": (
            1 - (2 * both + 1) / (a.sum(1).square() + b.sum(1).square() + 1)
        ),
    }


def gsg(image: torch.Tensor, k_means: Callable, k: int = 5) -> torch.Tensor:
    """Green-screen generation quality: how far a picture's dominant colour is from pure green.

    GSG = 255 |c - (0, 1, 0)|, c the centre of the largest of k clusters of all the picture's colours

    Args:
        image: (B, 3, H, W) in [0, 1].
        k_means: ``k_means(pixels, k)`` takes colours (N, 3) and gives (centres, counts), NumPy arrays (k, 3) and (k,),
            in any order.
        k: clusters.

    Returns:
        (B,), 0 = pure green.
    """
    found = []
    for item in image:
        centres, counts = k_means(item.flatten(1).T, k)
        found.append(255 * (torch.as_tensor(centres[counts.argmax()]) - torch.tensor([0.0, 1.0, 0.0])).norm())
    return torch.stack(found)


def _test_gsg(answer) -> None:
    size = (6, 10)
    palette = torch.tensor([[0.3, 0.6, 0.2], [0.9, 0.2, 0.1], [0.1, 0.85, 0.05], [0.5, 0.5, 0.6], [0.05, 0.1, 0.8]])
    rows = [torch.tensor([0] * 11 + [1] * 9 + [2] * 25 + [3] * 8 + [4] * 7)]
    rows.append(torch.tensor([3] * 22 + [1] * 12 + [0] * 10 + [4] * 9 + [2] * 7))
    images = torch.stack([palette[row].T.reshape(3, *size) for row in rows])  # (2, 3, 6, 10)
    asked, clusters = [], []

    def k_means(pixels, k):
        asked.append(torch.as_tensor(pixels)), clusters.append(k)
        return few_colours(pixels, k)

    got = expect_tensor(call(answer, images.clone(), k_means, 5), "a tensor: one number an item, (B,)")
    expect(bool(asked), "You never call k_means: expected the clusters' centres, not single pixels or the mean.")
    for pixels in asked:
        expect(
            pixels.ndim == 2 and pixels.shape[1] == 3,
            f"You give k_means shape {tuple(pixels.shape)}: expected (N, 3), a colour a row.",
        )
        known = (pixels[:, None] - palette).abs().amax(2).amin(1) < 1e-4
        expect(bool(known.all()), "You give k_means numbers of several pixels in a row: expected (r, g, b) of one.")
        expect(len(pixels) <= 60, "You cluster the batch at once: expected each picture by itself.")
        expect(len(pixels) == 60, "You give k_means a part of the picture: expected all its pixels.")
    expect(got.numel() == 2, f"You return shape {tuple(got.shape)}, expected one number a picture, (2,).")
    _shaped(got, torch.zeros(2))
    pairs = [few_colours(image.flatten(1).T, 5) for image in images]
    for told, other in _other_gsg(images, pairs).items():
        expect(not _alike(got, other), told)
    wanted = gsg(images, few_colours)
    expect(_alike(got, wanted), f"You get {got[0]:.4g}: expected {wanted[0]:.4g}.")
    call(answer, images.clone(), k_means, 7)
    expect(clusters[-1] == 7, f"You ask for {clusters[-1]} clusters, expected k of them, here 7.")


def few_colours(pixels, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Stands for k-means where there are no more than k colours: exact, and in an order of its own."""
    points = np.asarray(torch.as_tensor(pixels).detach(), np.float64).round(5)
    return np.unique(points, axis=0, return_counts=True)


def _other_gsg(images, pairs) -> dict[str, torch.Tensor]:
    green = np.array([0.0, 1.0, 0.0])

    def over(measure) -> torch.Tensor:
        return torch.tensor([float(measure(*pair)) for pair in pairs])

    def distance(centre, screen=green) -> float:
        return float(np.linalg.norm(centre - screen))

    mean = torch.tensor([255 * distance(image.flatten(1).mean(1).numpy()) for image in images])
    return {
        "You stay in [0, 1]: expected the distance times 255.": over(lambda c, n: distance(c[n.argmax()])),
        "You take the first cluster: expected the largest, they come in any order.": over(
            lambda c, n: 255 * distance(c[0])
        ),
        "You take the smallest cluster: expected the largest.": over(lambda c, n: 255 * distance(c[n.argmin()])),
        "You take the cluster nearest to green: expected the largest, green or not.": over(
            lambda c, n: 255 * min(distance(each) for each in c)
        ),
        "You average the centres: expected the largest cluster's.": over(lambda c, n: 255 * distance(c.mean(0))),
        "You measure the mean colour: expected the largest cluster's.": mean,
        "You square the distance: expected its root.": over(lambda c, n: 255 * distance(c[n.argmax()]) ** 2),
        "You add up absolute differences: expected the Euclidean distance.": over(
            lambda c, n: 255 * np.abs(c[n.argmax()] - green).sum()
        ),
        "You take the mean over the channels: expected the Euclidean distance.": over(
            lambda c, n: 255 * np.sqrt(((c[n.argmax()] - green) ** 2).mean())
        ),
        "You measure the distance to black: expected that to (0, 1, 0).": over(
            lambda c, n: 255 * distance(c[n.argmax()], 0 * green)
        ),
    }


def clean_plate(image: torch.Tensor, coarse_alpha: torch.Tensor, k_means: Callable, reach: int) -> torch.Tensor:
    """GreenPost's clean plate: the picture as if nothing stood before the screen.

    The colour is the centre of the largest of 3 clusters of the pixels with alpha <= 0.1. It fills each pixel that has
    an alpha above 0.1 somewhere in the square of (2 reach + 1) pixels a side round it; the picture stays elsewhere.

    Args:
        image: (1, 3, H, W).
        coarse_alpha: (1, 1, H, W), the matting head's.
        k_means: ``k_means(pixels, k)`` takes colours (N, 3) and gives (centres, counts), NumPy arrays (k, 3) and (k,),
            in any order.
        reach: in pixels.

    Returns:
        (1, 3, H, W), a new tensor.
    """
    centres, counts = k_means(image[0, :, coarse_alpha[0, 0] <= 0.1].T, 3)
    colour = torch.as_tensor(centres[counts.argmax()]).to(image).view(1, 3, 1, 1)
    near = F.max_pool2d(coarse_alpha, 2 * reach + 1, 1, reach) > 0.1
    return torch.where(near, colour, image)


def _test_clean_plate(answer) -> None:
    for turned, reach in ((False, 2), (True, 1)):
        image, alpha = _before_screen(turned)
        asked: list[tuple[torch.Tensor, int]] = []

        def k_means(pixels, k, asked=asked):
            asked.append((torch.as_tensor(pixels), k))
            return few_colours(pixels, k)

        given = image.clone(), alpha.clone()
        got = expect_tensor(call(answer, *given, k_means, reach), "a tensor: the plate, (1, 3, H, W)")
        same = torch.equal(given[0], image) and torch.equal(given[1], alpha)
        expect(same, "You paint into the picture you were given: expected a new one.")
        wanted = clean_plate(image, alpha, few_colours, reach)
        _shaped(got, wanted)
        expect(bool(asked), "You never call k_means: expected the screen's colour by clusters.")
        for pixels, k in asked:
            expect(k == 3, f"You ask for {k} clusters: expected 3.")
            expect(
                pixels.ndim == 2 and pixels.shape[1] == 3,
                f"You give k_means shape {tuple(pixels.shape)}: expected (N, 3), a colour a row.",
            )
        for told, other in _other_plates(image, alpha, reach).items():
            expect(not _alike(got, other), told)
        expect(
            _alike(got, wanted),
            "Your plate differs: expected the screen's colour where the thing is, else the picture.",
        )


def _before_screen(turned: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """A large red thing before green with a shadow, and its soft matte."""
    height, width = 24, 30
    image = torch.tensor([0.1, 0.8, 0.2]).view(1, 3, 1, 1).repeat(1, 1, height, width)
    image[..., :5, 12:] = torch.tensor([0.05, 0.4, 0.1]).view(3, 1, 1)  # the shadow
    image[..., 0, 0] = torch.tensor([0.9, 0.9, 0.9])  # dust
    alpha = torch.zeros(1, 1, height, width)
    alpha[..., 5:, 5:] = 0.3
    alpha[..., 8:, 8:29] = 1
    alpha[..., 1, 4:7] = 0.2  # a wisp by itself
    image = alpha * torch.tensor([0.8, 0.1, 0.1]).view(1, 3, 1, 1) + (1 - alpha) * image
    alpha[..., 4, 5:22] = 0.05  # up to the limit it is background
    return (image.transpose(2, 3), alpha.transpose(2, 3)) if turned else (image, alpha)


def _other_plates(image, alpha, reach: int) -> dict[str, torch.Tensor]:
    background = image[0, :, alpha[0, 0] <= 0.1].T
    centres, counts = few_colours(background, 3)
    colour, every = centres[counts.argmax()], few_colours(image[0].flatten(1).T, 3)

    def grown(by: int, limit: float = 0.1) -> torch.Tensor:
        return F.max_pool2d(alpha, 2 * by + 1, 1, by) > limit

    def filled(where, with_colour=colour) -> torch.Tensor:
        return torch.where(where, torch.as_tensor(with_colour).to(image).view(1, 3, 1, 1), image)

    return {
        "You return the picture as it was: expected the thing filled.": image,
        "You fill the background: expected the thing and what is near it.": filled(~grown(reach)),
        "You make a picture of one colour: expected the picture itself, shadow and all, where nothing stands.": filled(
            torch.ones_like(alpha, dtype=torch.bool)
        ),
        "You cluster the whole picture, so the thing's own colour wins: expected the pixels with alpha <= 0.1.": filled(
            grown(reach), every[0][every[1].argmax()]
        ),
        "You take the mean colour, which has shadow and dust in it: expected the largest cluster's centre.": filled(
            grown(reach), background.double().mean(0)
        ),
        "You take the smallest cluster: expected the largest.": filled(grown(reach), centres[counts.argmin()]),
        "You average the centres: expected the largest cluster's.": filled(grown(reach), centres.mean(0)),
        "You take the first cluster: expected the largest, they come in any order.": filled(grown(reach), centres[0]),
        "You fill only where alpha itself is above 0.1: expected reach pixels more.": filled(grown(0)),
        "You fill a pixel too far: a square of (2 reach + 1) reaches reach pixels.": filled(grown(reach + 1)),
        "You fill a pixel too little: a square of (2 reach + 1) reaches reach pixels.": filled(grown(reach - 1)),
        "You fill from alpha 0.5 on: expected from 0.1 on, soft edges are the thing's too.": filled(grown(reach, 0.5)),
        "You fill from alpha 0.25 on: expected from 0.1 on, a faint wisp is the thing's too.": filled(
            grown(reach, 0.25)
        ),
        "You fill wherever alpha is above 0: expected above 0.1.": filled(grown(reach, 0)),
        "You blend the colour in by 1 - alpha: expected it whole.": image * (1 - alpha)
        + torch.as_tensor(colour).to(image).view(1, 3, 1, 1) * alpha,
    }


def connectivity_error(alpha: torch.Tensor, truth: torch.Tensor, largest: Callable) -> torch.Tensor:
    """Conn: how much of a matte hangs together with the thing, against how much of it should.

    At the thresholds 0.1, 0.2 ... 1 the common core is the largest region where *both* mattes reach the threshold. A
    pixel's level l is the threshold before the first one at which it is not in the core (0 if that is 0.1), or 1 if it
    always is. d = a - l; phi(a) = 1 - d where d >= 0.15, else 1. Conn = sum |phi(a) - phi(a*)| / 1000, both phi with
    the same l.

    Args:
        alpha: a, (1, 1, H, W).
        truth: a*, (1, 1, H, W).
        largest: ``largest(mask)`` takes a boolean (1, 1, H, W) and gives its largest connected region likewise.

    Returns:
        A tensor of one number.
    """
    level = _levels(alpha, truth, largest)
    return (_phi(alpha, level) - _phi(truth, level)).abs().sum() / 1000


def _levels(alpha, truth, largest: Callable, join=torch.logical_and, before=True, for_good=True) -> torch.Tensor:
    """The map l; or what it is if a mistake is made."""
    level, inside = torch.zeros_like(alpha), torch.ones_like(alpha, dtype=torch.bool)
    for k in range(1, 11):
        core = largest(join(alpha >= k / 10 - 1e-6, truth >= k / 10 - 1e-6))
        inside = inside & core if for_good else core
        level = torch.where(inside, torch.full_like(level, k / 10), level)
    return level if before else torch.where(inside, level, level + 0.1)


def _phi(matte: torch.Tensor, level: torch.Tensor, limit: float = 0.15) -> torch.Tensor:
    distance = matte - level
    return 1 - distance * (distance >= limit)


def _test_connectivity_error(answer) -> None:
    for turned in (False, True):
        alpha, truth = _strands(turned)
        calls: list[torch.Tensor] = []

        def largest(mask, calls=calls):
            mask = torch.as_tensor(mask)
            expect(
                mask.shape == (1, 1, *mask.shape[-2:]),
                f"You give largest shape {tuple(mask.shape)}: expected (1, 1, H, W).",
            )
            calls.append(mask)
            return largest_region(mask)

        given = alpha.clone(), truth.clone()
        got = _number(call(answer, *given, largest))
        same = torch.equal(given[0], alpha) and torch.equal(given[1], truth)
        expect(same, "You change the mattes in place: expected them as they were.")
        expect(
            bool(calls), "You never ask for the largest region: what hangs together with what is Conn's whole point."
        )
        right = float(connectivity_error(alpha, truth, largest_region))
        _one_of(float(got.detach()), right, _other_connectivities(alpha, truth))


def _strands(turned: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """A body, a strand whose matte is broken in the middle, an island; alphas lie between the thresholds."""
    alpha, truth = torch.zeros(1, 1, 30, 44), torch.zeros(1, 1, 30, 44)
    alpha[..., 4:14, 3:13] = truth[..., 4:14, 3:13] = 1
    for k, x in enumerate(range(13, 40)):
        truth[..., 8:11, x] = 0.975 - 0.05 * (k // 2)
        alpha[..., 8:11, x] = 0.925 - 0.05 * (k // 3)
    alpha[..., 8:11, 22:24] = 0.075  # the break
    end = 42 if turned else 43  # an island, smaller than body and strand or, while the strand is broken, larger
    truth[..., 18:28, 30:end], alpha[..., 18:28, 30:end] = 0.875, 0.775
    alpha[..., 20:24, 4:10] = 0.325  # a smear where nothing is
    truth[..., 14:18, 3:6], alpha[..., 14:18, 3:6] = 0.575, 0.325
    truth[..., 4:8, 13:30], alpha[..., 4:8, 13:30] = 0.225, 0.475
    return (alpha.transpose(2, 3), truth.transpose(2, 3)) if turned else (alpha, truth)


def largest_region(mask: torch.Tensor) -> torch.Tensor:
    """The largest 4-connected region of a boolean (1, 1, H, W); nothing where there is none."""
    labels, count = ndimage.label(mask[0, 0].cpu().numpy())
    if not count:
        return torch.zeros_like(mask, dtype=torch.bool)
    return torch.from_numpy(labels == 1 + np.bincount(labels.ravel())[1:].argmax())[None, None]


def _other_connectivities(alpha, truth) -> dict[str, float]:
    level = _levels(alpha, truth, largest_region)

    def error(mine=level, theirs=None, limit: float = 0.15) -> float:
        theirs = mine if theirs is None else theirs
        return float((_phi(alpha, mine, limit) - _phi(truth, theirs, limit)).abs().sum() / 1000)

    def levels(**changed) -> torch.Tensor:
        return _levels(alpha, truth, changed.pop("largest", largest_region), **changed)

    own = [_levels(matte, matte, largest_region) for matte in (alpha, truth)]
    difference = (_phi(alpha, level) - _phi(truth, level)).abs()
    return {
        "You do not divide by 1000.": 1000 * error(),
        "You take the mean over the pixels: expected the sum / 1000.": float(difference.mean()),
        "You square the differences: expected absolute ones.": float(difference.square().sum() / 1000),
        "You build the core where either matte reaches the threshold: expected both.": error(
            levels(join=torch.logical_or)
        ),
        "You give each matte a core of its own: expected one, where both reach the threshold.": error(*own),
        "You look at the estimate's own core: expected where both mattes reach the threshold.": error(own[0]),
        "You look at the truth's own core: expected where both mattes reach the threshold.": error(own[1]),
        "Your level is the threshold at which a pixel leaves: expected the one before.": error(levels(before=False)),
        "You let a pixel come back after it has left: expected the first threshold at which it is outside.": error(
            levels(for_good=False)
        ),
        "You keep every region, not the largest: the island then counts as connected.": error(
            levels(largest=lambda mask: mask)
        ),
        "You count small differences too, which makes it SAD: expected only d >= 0.15.": error(limit=-2.0),
    }


# What the checks share


def _number(got) -> torch.Tensor:
    expect_tensor(got, "a tensor of one number")
    expect(got.numel() == 1, f"You return shape {tuple(got.shape)}, expected a tensor of one number.")
    return got


def _shaped(got: torch.Tensor, wanted: torch.Tensor) -> None:
    expect(got.shape == wanted.shape, f"You return shape {tuple(got.shape)}, expected {tuple(wanted.shape)}.")


def _alike(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a.detach().double(), b.detach().double(), rtol=1e-3, atol=1e-5)


def _one_of(got: float, right: float, others: dict[str, float]) -> None:
    """Tells which mistake a number looks like."""
    if abs(got - right) <= 1e-4 * abs(right):
        return
    for told, value in others.items():
        expect(abs(got - value) > 1e-4 * abs(value), told)
    expect(False, f"You get {got:.5g}: expected {right:.5g}.")


EXERCISES = (
    Exercise("diffumatting.triangulate", triangulate, _test_triangulate),
    Exercise("diffumatting.green_control", green_control, _test_green_control),
    Exercise("diffumatting.boundary_detail", boundary_detail, _test_boundary_detail),
    Exercise("diffumatting.dice", dice, _test_dice),
    Exercise("diffumatting.gsg", gsg, _test_gsg),
    Exercise("diffumatting.clean_plate", clean_plate, _test_clean_plate),
    Exercise("diffumatting.connectivity_error", connectivity_error, _test_connectivity_error),
)
