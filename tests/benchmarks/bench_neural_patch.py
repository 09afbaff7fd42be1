"""Neural patch synthesis against the plain way (unfold all patches, compare all with all, every iteration), in one run.

    python tests/benchmarks/bench_neural_patch.py [folder of a classifier] [128] [512]

The plain way is the one the tests hold ours against (tests/methods/neural_patch/plain.py). Times are processor seconds
of one thread, so that other programs on the machine count little, and are told as ratios. With 128 the runs are made
at that size instead of 256, which takes a minute. With 512 the whole pyramid of
a 512 x 512 photograph with a 256 x 256 hole is timed too, with its memory.
"""

import resource
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

import workbench as wb
from tests.methods.neural_patch import plain
from workbench.methods.neural_patch import PatchSettings, fill, load_network
from workbench.methods.neural_patch.levels import make_level, smooth_fill
from workbench.methods.neural_patch.objective import Objective
from workbench.methods.neural_patch.search import find_neighbours
from workbench.methods.neural_patch.solver import Solver


def seconds(function, *arguments):
    """Processor seconds and result, the better of two runs."""
    times = []
    for _ in range(2):
        start = time.process_time()
        result = function(*arguments)
        times.append(time.process_time() - start)
    return min(times), result


def photograph(size: int):
    """A photograph with structure and texture, its middle a hole of half its side."""
    image = wb.image.resize(wb.load_image("astronaut"), (size, size))
    return image, wb.mask.centre((size, size), 0.5)


def tell_search(network, size: int) -> None:
    """Both searches of the same patches."""
    image, mask = photograph(size)
    level = make_level(1, 1, smooth_fill(image, mask), mask, 16)
    head = f"{'patches':>16}{'candidates':>12}{'plain s':>9}{'ours s':>9}{'faster by':>11}{'equal':>8}"
    print(f"\nsearch at {size} x {size}{head}")
    for match in ("ncc", "l2"):
        objective = Objective(level, network, PatchSettings(match=match))
        for name, layer in objective.layers.items():
            target, source = objective.features(objective.start)[name].detach(), layer.sources[0]
            part = layer.wanted
            if match == "l2":  # differences of all with all: a few rows tell enough
                part = layer.wanted & (torch.arange(len(layer.wanted))[:, None] % 16 == 8)
            share = part.sum().item() / layer.wanted.sum().item()
            theirs_s, (centres, _) = seconds(plain.neighbours, target, part, source.features, source.allowed, match)
            ours_s, found = seconds(find_neighbours, target, layer.wanted, layer.sources)
            same = (found.centre[part[layer.wanted]] == centres).float().mean().item()
            counts = f"{match} {name:<14}{int(layer.wanted.sum()):>20}{int(source.allowed.sum()):>12}"
            plain_s = theirs_s / share
            print(f"{counts}{plain_s:>9.2f}{ours_s:>9.2f}{plain_s / ours_s:>11.1f}{same:>8.1%}", flush=True)


class PlainObjective(Objective):
    """The same energy the plain way: features of the whole picture, patches unfolded, neighbours gathered."""

    def _window(self, names):
        height, width = self.level.mask.shape[-2:]
        return 0, 0, width, height

    @torch.no_grad()
    def search(self, x):
        return {
            name: plain.neighbours(features, self.layers[name].wanted, self.layers[name].sources[0].features,
                                   self.layers[name].sources[0].allowed)[0]
            for name, features in self.features(x).items()
        }  # fmt: skip

    def wishes(self, neighbours):
        return neighbours

    def terms(self, x, wishes):
        terms = {"content": (x - self.start).square().mean()}
        for name, features in self.features(x).items():
            layer = self.layers[name]
            source = layer.sources[0].features
            terms[f"texture {name}"] = plain.texture_energy(features, layer.wanted, source, wishes[name])
        window = self.window(x)
        across, down = self._pairs
        total = (window.diff(dim=3).square() * across).sum() + (window.diff(dim=2).square() * down).sum()
        return {**terms, "tv": total / (3 * (across.sum() + down.sum()))}


class PlainSolver(Solver):
    """Searches in every iteration, as the paper does."""

    def _enter(self, level):
        self.objective = PlainObjective(level, self.network, self.settings)


def tell_runs(network, size: int, iterations: int) -> None:
    """The optimisation as published, one level: plain, ours searching as often, ours as it comes."""
    image, mask = photograph(size)
    print(f"\n{iterations} iterations at {size} x {size}{'s':>26}{'faster by':>11}{'PSNR dB':>9}{'off plain':>11}")
    first = None
    for told, kind, refresh in (
        ("plain, search every time", PlainSolver, 1),
        ("ours, search every time", Solver, 1),
        ("plain, default refresh", PlainSolver, PatchSettings().refresh),
        ("ours, default refresh", Solver, PatchSettings().refresh),
    ):
        settings = PatchSettings((size,), iterations, match="ncc", coherence=0, colour_weight=0.0, refresh=refresh)
        solver = kind(image, mask, network, None, settings)
        start = time.process_time()
        for _ in range(iterations):
            solver.step()
        took = time.process_time() - start
        result = solver.result()
        first = first or (took, result)
        off = ((result - first[1]).square() * mask).sum().div(3 * mask.sum()).sqrt().item()
        psnr = wb.metrics.psnr(result, image, mask).item()
        print(f"{told:<40}{took:>8.1f}{first[0] / took:>11.1f}{psnr:>9.2f}{off:>11.4f}", flush=True)


def tell_whole(network) -> None:
    """The pyramid 128, 256, 512 with 100 iterations each."""
    image, mask = photograph(512)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start, wall = time.process_time(), time.perf_counter()
    for step in fill(image, mask, network=network):
        last = step
    told = f"{time.process_time() - start:.0f} s of processor, {time.perf_counter() - wall:.0f} s by the clock"
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\n512 x 512, three levels of 100: {told}, {after - before:.0f} MiB on top of {before:.0f}")
    print(f"PSNR in the hole {wb.metrics.psnr(last.image, image, mask).item():.2f} dB")


if __name__ == "__main__":
    torch.set_num_threads(1)
    names = [name for name in sys.argv[1:] if name not in ("128", "512")]
    chosen = load_network(names[0] if names else "classifier")
    tell_search(chosen, 256)
    tell_runs(chosen, 128 if "128" in sys.argv else 256, PatchSettings().refresh)
    if "512" in sys.argv:
        tell_whole(chosen)
