"""PatchMatch against exhaustive search, biharmonic inpainting and compiled PatchMatch, in one run on one machine.

    python tests/benchmarks/bench_patchmatch.py

The compiled rivals take part when they can be imported (pip install PyPatchMatch patchmatch-cython); they are not
among the workbench's own requirements. Times are compared as ratios, never asserted: machines differ. All run in one
thread, as the compiled ones do.
"""

import importlib
import time

import numpy as np
import skimage.data
import skimage.restoration
import skimage.transform
import torch
from sklearn.datasets import load_sample_image

from workbench.methods import patchmatch

PHOTOGRAPHS = {  # name: the hole's box (x0, y0, x1, y1) in the picture at half size
    "brick": (100, 90, 164, 154),
    "grass": (100, 90, 164, 154),
    "gravel": (100, 90, 164, 154),
    "coffee": (215, 100, 279, 164),
    "astronaut": (20, 150, 84, 214),
    "china": (220, 5, 284, 55),
    "flower": (40, 130, 104, 194),
}


def load(name):
    """The photograph at half size, (1, 3, H, W), and its hole."""
    picture = load_sample_image(f"{name}.jpg") if name in ("china", "flower") else getattr(skimage.data, name)()
    picture = np.stack([picture] * 3, -1) if picture.ndim == 2 else picture
    size = picture.shape[0] // 2, picture.shape[1] // 2
    picture = skimage.transform.resize(picture / 255, size, anti_aliasing=True)
    image = torch.from_numpy(picture).permute(2, 0, 1)[None].float().clamp(0, 1)
    mask = torch.zeros(1, 1, *size)
    x0, y0, x1, y1 = PHOTOGRAPHS[name]
    mask[..., y0:y1, x0:x1] = 1
    return image, mask


def mean_fill(image, mask):
    """The hole in the known part's mean colour."""
    return (image * (1 - mask)).sum((2, 3), keepdim=True) / (1 - mask).sum() * torch.ones_like(image)


def our_fill(image, mask):
    """The last step of our completion."""
    for step in patchmatch.fill(image, mask, seed=0):
        last = step
    return last.image


def through_numpy(function, bytes_in):
    """Wrap a rival that takes (H, W, 3) and (H, W) arrays, of uint8 or of floats in [0, 1]."""

    def run(image, mask):
        array = image[0].permute(1, 2, 0).numpy()
        array = (array * 255).round().astype(np.uint8) if bytes_in else array.astype(np.float64)
        hole = mask[0, 0].numpy() > 0
        array = np.where(hole[..., None], 0, array).astype(array.dtype)  # nothing to peek at
        result = torch.from_numpy(np.array(function(array, hole))).permute(2, 0, 1)[None].float()
        return result / 255 if bytes_in else result.clamp(0, 1)

    return run


def rivals():
    """Everything that can fill a hole here, by name; what is missing is said."""
    found = {
        "ours": our_fill,
        "mean fill": mean_fill,
        "biharmonic": through_numpy(
            lambda a, m: skimage.restoration.inpaint_biharmonic(a, m, channel_axis=-1), bytes_in=False
        ),
    }
    compiled = {
        "PyPatchMatch": ("patchmatch", lambda lib, a, m: lib.inpaint(a, m.astype(np.uint8) * 255, patch_size=7)),
        "patchmatch-cython": ("patchmatch_cython", lambda lib, a, m: lib.inpaint_pyramid(a, m, patch_size=7, seed=0)),
    }
    for name, (module, call) in compiled.items():
        try:
            library = importlib.import_module(module)
        except ImportError as error:
            print(f"{name}: not here ({error}); its columns are left out")
            continue
        found[name] = through_numpy(lambda a, m, lib=library, call=call: call(lib, a, m), bytes_in=True)
    return found


def timed(function, *arguments):
    """Seconds and result, the better of two runs."""
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        result = function(*arguments)
        seconds.append(time.perf_counter() - start)
    return min(seconds), result


def psnr(a, b, mask):
    """PSNR inside the hole, in dB."""
    return -10 * np.log10((((a - b) ** 2) * mask).sum().item() / (3 * mask.sum().item()))


def grain(picture, mask):
    """Mean step between neighbours inside the hole over the one outside: 1 = as sharp as its surroundings."""
    step = picture.diff(dim=3).abs().mean(1, keepdim=True)
    return (step[mask[..., 1:] > 0].mean() / step[mask[..., 1:] == 0].mean()).item()


def compare_fields():
    """Our field against the exact one, for the patches that touch the hole and for all patches of a stereo pair."""
    print(f"\n{'field of':<12}{'patches':>10}{'exhaustive s':>14}{'ours s':>9}{'faster by':>11}{'error ratio':>13}")
    left, right, _ = skimage.data.stereo_motorcycle()
    for size in ((96, 128), (128, 192), (192, 288)):
        pair = [skimage.transform.resize(x / 255, size, anti_aliasing=True) for x in (left, right)]
        pair = [torch.from_numpy(x).permute(2, 0, 1)[None].float() for x in pair]
        show_fields(f"{size[0]}x{size[1]}", pair, {})
    for name in PHOTOGRAPHS:
        image, mask = load(name)
        show_fields(name, (image, image), {"target_mask": mask, "source_mask": mask})


def show_fields(name, pair, masks):
    """One row of the table of fields."""
    exact_s, exact = timed(lambda: patchmatch.exhaustive_field(*pair, **masks))
    ours_s, ours = timed(lambda: patchmatch.nearest_neighbour_field(*pair, **masks))
    print(
        f"{name:<12}{int(exact.inside.sum()):>10}{exact_s:>14.2f}{ours_s:>9.2f}{exact_s / ours_s:>11.1f}"
        f"{ours.mean_error / exact.mean_error:>13.3f}",
        flush=True,
    )


def compare_fills():
    """All completions of the same holes: time relative to ours, PSNR in the hole, grain."""
    methods = rivals()
    print("\ntime / our time, PSNR in the hole (dB), grain (1 = as sharp as the surroundings)")
    print(f"{'photograph':<12}" + "".join(f"{name:>26}" for name in methods))
    rows = []
    for name in PHOTOGRAPHS:
        image, mask = load(name)
        row, ours_s = [], None
        for method in methods.values():
            seconds, result = timed(method, image, mask)
            result = torch.where(mask > 0, result, image)
            ours_s = ours_s or seconds
            row.append((seconds / ours_s, psnr(result, image, mask), grain(result, mask)))
        rows.append(row)
        print(f"{name:<12}" + "".join(f"{t:>12.2f}{p:>8.1f}{g:>6.2f}" for t, p, g in row) + f"   ours {ours_s:.2f} s")
    means = np.asarray(rows)
    ratio, decibel, sharp = np.exp(np.log(means[..., 0]).mean(0)), means[..., 1].mean(0), means[..., 2].mean(0)
    columns = zip(ratio, decibel, sharp, strict=True)
    print(f"{'mean':<12}" + "".join(f"{t:>12.2f}{p:>8.1f}{g:>6.2f}" for t, p, g in columns))


if __name__ == "__main__":
    torch.set_num_threads(1)
    compare_fields()
    compare_fills()
