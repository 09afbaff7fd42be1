"""The terms of a level: what `Solver` makes small. Read `Objective`; what comes before prepares one layer."""

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from workbench.methods.neural_patch.levels import Level
from workbench.methods.neural_patch.networks import TextureNetwork
from workbench.methods.neural_patch.patches import Neighbours, Source, Wish, fold, patch_centres, texture_energy
from workbench.methods.neural_patch.search import cohere, find_neighbours, likeness
from workbench.methods.neural_patch.settings import PatchSettings


class Copy:
    """The level's picture turned about its middle and scaled: more patches to choose from.

    Args:
        level: of which.
        degrees: anticlockwise.
        scale: more than 1 enlarges.
    """

    def __init__(self, level: Level, degrees: float = 0, scale: float = 1):
        self.plain = (degrees, scale) == (0, 1)
        angle = math.radians(degrees)
        height, width = level.size
        self.middle = torch.tensor([width / 2, height / 2], dtype=torch.float64)
        # from a place in the copy to the place in the picture that it shows; y points down
        cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
        self.matrix = torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64)

    def origin(self, points: torch.Tensor) -> torch.Tensor:
        """Where in the picture points (N, 2) of the copy come from, (x, y) in pixels."""
        if self.plain:
            return points
        middle, matrix = self.middle.to(points.device), self.matrix.to(points.device)
        return (points.double() - middle) @ matrix.T + middle

    def draw(self, picture: torch.Tensor, known: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Picture (1, 3, h', w') and what is known of it (1, 1, h', w'), both turned; outside nothing is known."""
        if self.plain:
            return picture, known
        height, width = picture.shape[-2:]
        y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
        points = self.origin(torch.stack([x, y], -1).view(-1, 2))  # (h' * w', 2)
        grid = (2 * points / torch.tensor([width, height]) - 1).view(1, height, width, 2).to(picture)
        turned = F.grid_sample(picture, grid, padding_mode="border", align_corners=False)
        certain = F.grid_sample(known, grid, padding_mode="zeros", align_corners=False) > 0.999
        return turned, certain.to(known)


def _rms(values: torch.Tensor) -> float:
    return float(values.square().mean().sqrt().clamp_min(1e-12))


@dataclass(frozen=True)
class Layer:
    """One layer's patches at one level.

    Args:
        stride: pixels a side of a cell.
        corner: (row, column) of the window's first cell in the level's map.
        wanted: (h, w) bool in the window, centres of the hole patches.
        sources: the known patches, of the picture and of its copies.
        scale: root mean square of the known features; all features are divided by it.
        channels: how many channels of the sources are features; what follows are colours, for the search alone.
        colour: what cells' mean colours are multiplied by there; 0 = there are none.
    """

    stride: int
    corner: tuple[int, int]
    wanted: torch.Tensor
    sources: list[Source]
    scale: float
    channels: int
    colour: float = 0.0

    def searched(self, features: torch.Tensor, picture: torch.Tensor) -> torch.Tensor:
        """What the search compares: features (1, C, h, w) over `scale`, and colours of the picture (1, 3, H, W)."""
        scaled = features[0] / self.scale
        if not self.colour:
            return scaled
        return torch.cat([scaled, F.avg_pool2d(picture, self.stride)[0] * self.colour])  # (C + 3, h, w)


class Objective:
    """E(x) = w_c E_c + w_t sum of E_t + w_col E_col + w_tv E_tv over the free pixels x of one level.

    E_c, "pixels": mean over free pixels and channels of (x - reference)^2.
    E_c, "features": mean over hole cells and channels of (f(x) - f(reference))^2 / s^2 in the content layer.
    E_t, a layer: mean over hole patches, cells and channels of |P_i(x) - P_nn(i)|^2 / s^2; a hole patch is one with
        a hole cell, and a hole cell one that holds a free pixel. nn(i) is among the patches without any hole cell.
    E_col: E_t of the pixels themselves, taken for a layer with the finest layer's cells, patches and neighbours: the
        colours of what was found. Without layers there is none.
    nn(i), by distance ("l2"): the patch of least w_t E_t + w_col E_col, its colours compared cell by cell instead of
        pixel by pixel. By correlation ("ncc"), as published, the search knows nothing of colours. With coherence,
        patches side by side choose neighbours side by side where that costs little, see `search.cohere`.
    E_tv: mean over the pairs of neighbours with a free pixel, and channels, of (difference)^2.

    s^2 is the mean square of the layer's features over the known picture, so that weights mean the same for every
    network. Known patches are taken from the level's picture as it begins, once; those near the hole see a bit of it.
    Features are computed in a window only, the hole's box and as far around as the network sees, which changes nothing.

    **Time and memory**: 512 x 512 with a 256 x 256 hole, three levels of 100 iterations with the bundled classifier's
    relu2_1 and relu3_2, took 152 processor seconds, 76 by the clock on two cores, and 334 MiB beside what stood there.
    Nothing grows with the number of pairs of patches.

    Args:
        level: where.
        network: the frozen texture network.
        settings: weights, layers, match, copies.

    Attributes:
        layers: `Layer` by name; those that have no known patch, or no hole patch, at this level are left out.
        missing: names of those left out.
        box: (x0, y0, x1, y1), the window in the level.

    Source: Yang et al., CVPR 2017, eqs. 1 to 5. Differs from the paper in means for sums, in s^2, in E_col, and in
        coherence. E_col is ours: features leave much of a pixel's colour open. Coloured speckles stayed, and a search
        that minds features alone laid a red floor over half a white wall. The released code optimises every pixel of
        the picture and puts the known ones back at the end; here, as in the paper, only the hole is free.

    Example:
        >>> objective = Objective(level, load_network("random"), PatchSettings())
    """

    def __init__(self, level: Level, network: TextureNetwork, settings: PatchSettings):
        self.level, self.network, self.settings = level, network, settings
        names = settings.layers or network.layers
        self._by_features = settings.content_term == "features" and settings.content_weight > 0
        self.box = self._window(names)
        x0, y0, x1, y1 = self.box
        self._base = level.reference[..., y0:y1, x0:x1].contiguous(memory_format=torch.channels_last)
        self._free = level.mask[..., y0:y1, x0:x1]
        self._places = self._free.flatten().nonzero()[:, 0]  # (K,)
        self.layers: dict[str, Layer] = {}
        self._colours: Layer | None = None
        with torch.no_grad():
            if settings.texture_weight > 0:
                self._prepare_layers(names)
            if self._by_features:
                self._prepare_content()
        self.missing = [name for name in names if name not in self.layers] if settings.texture_weight > 0 else []
        across, down = (
            self._free[..., 1:] + self._free[..., :-1] > 0,
            self._free[..., 1:, :] + self._free[..., :-1, :] > 0,
        )
        self._pairs = across.to(self._base), down.to(self._base)

    def _window(self, names) -> tuple[int, int, int, int]:
        used = [*names, self.network.content_layer] if self._by_features else list(names)
        multiple = max(self.network.stride(name) for name in used)
        margin = max(self.network.reach(name) + 3 * self.network.stride(name) for name in used)
        height, width = self.level.mask.shape[-2:]
        rows, columns = (self.level.mask[0, 0].amax(d).nonzero()[:, 0] for d in (1, 0))
        y0, x0 = (max(0, (int(n[0]) - margin) // multiple * multiple) for n in (rows, columns))
        y1 = min(height, -(-(int(rows[-1]) + 1 + margin) // multiple) * multiple)
        x1 = min(width, -(-(int(columns[-1]) + 1 + margin) // multiple) * multiple)
        return x0, y0, x1, y1

    def _prepare_layers(self, names) -> None:
        picture, known = self.level.reference, 1 - self.level.mask
        height, width = self.level.size
        inside = torch.zeros_like(known)
        inside[..., :height, :width] = 1  # what was added to the level is not the photograph
        copies = [Copy(self.level), *(Copy(self.level, *pair) for pair in self.settings.copies)]
        drawn = [copy.draw(picture, known * inside) for copy in copies]
        maps = [self.network.features(turned, names) for turned, _ in drawn]
        self.copies = copies
        for name in names:
            stride = self.network.stride(name)
            corner = self.box[1] // stride, self.box[0] // stride
            wanted = patch_centres(F.max_pool2d(self._free, stride)[0, 0] > 0, "any")
            usable = [-F.max_pool2d(-certain, stride)[0, 0] > 0 for _, certain in drawn]  # cells known throughout
            allowed = [patch_centres(cells, "all") for cells in usable]
            if not wanted.any() or not allowed[0].any():
                continue
            channels = maps[0][name].shape[1]
            layer = Layer(stride, corner, wanted, [], _rms(maps[0][name][0, :, usable[0]]), channels,
                          self._colour_factor(channels))  # fmt: skip
            for m, (turned, _), a in zip(maps, drawn, allowed, strict=True):
                layer.sources.append(Source(layer.searched(m[name], turned), a, self.settings.match))
            self.layers[name] = layer
        if self.layers and self.settings.colour_weight > 0:
            self._prepare_colours([turned for turned, _ in drawn])

    def _colour_factor(self, channels: int) -> float:
        """What makes |P - Q|^2 over features and colours, divided by 9 C w_t, the two terms' sum: see `Objective`."""
        s = self.settings
        if s.match != "l2":
            return 0.0
        return math.sqrt(channels * s.colour_weight / (3 * s.texture_weight)) / self._colour_scale()

    def _colour_scale(self) -> float:
        return _rms(self.level.reference[0, :, self.level.mask[0, 0] == 0])

    def _prepare_colours(self, drawn: list[torch.Tensor]) -> None:
        """The picture and its copies as a layer: a cell's numbers are its pixels' colours."""
        self._finest = min(self.layers, key=lambda name: self.layers[name].stride)
        layer, scale = self.layers[self._finest], self._colour_scale()
        cells = [F.pixel_unshuffle(turned, layer.stride)[0] / scale for turned in drawn]  # (3 s^2, h, w)
        sources = [Source(c, source.allowed, "l2") for c, source in zip(cells, layer.sources, strict=True)]
        self._colours = replace(layer, sources=sources, scale=scale, channels=len(cells[0]))

    def _prepare_content(self) -> None:
        name = self.network.content_layer
        features = self.network.features(self._base, [name])[name]  # (1, C, h, w)
        cells = F.max_pool2d(self._free, self.network.stride(name))  # (1, 1, h, w), 1 = holds a free pixel
        scale = features.square().mean().sqrt().clamp_min(1e-12)
        self._content = features / scale, cells, scale

    @property
    def start(self) -> torch.Tensor:
        """The free pixels as the level begins, (3, K)."""
        return self._base[0].flatten(1)[:, self._places].contiguous()

    def window(self, x: torch.Tensor) -> torch.Tensor:
        """The window with these free pixels (3, K) in it: (1, 3, h, w)."""
        filled = self._base.flatten(2).index_copy(2, self._places, x[None])  # (1, 3, h * w)
        return filled.view(self._base.shape).contiguous(memory_format=torch.channels_last)  # twice as fast on a CPU

    def picture(self, x: torch.Tensor) -> torch.Tensor:
        """The level's picture with these free pixels (3, K), clipped to [0, 1]: (1, 3, h, w)."""
        return self.spread(x, self.level.reference).clamp(0, 1)

    def spread(self, x: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
        """Free pixels (3, K) laid over a picture (1, 3, h', w'), cut to the level's size (1, 3, h, w)."""
        height, width = self.level.size
        x0, y0, x1, y1 = self.box
        whole = base.clone(memory_format=torch.contiguous_format)
        part = whole[..., y0:y1, x0:x1].flatten(2)
        whole[..., y0:y1, x0:x1] = part.index_copy(2, self._places, x.detach()[None]).view(1, 3, y1 - y0, x1 - x0)
        return whole[..., :height, :width]

    @torch.no_grad()
    def search(self, x: torch.Tensor) -> dict[str, Neighbours]:
        """The nearest neighbours of the hole patches as the picture stands, by layer."""
        features = self.features(x)
        chosen = {}
        for name, layer in self.layers.items():
            where = features[name], layer.wanted, layer.sources
            chosen[name] = cohere(*where, find_neighbours(*where), self.settings.coherence)
        return chosen

    def features(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """What is searched of the window, by layer: features divided by their scale, (C, h, w); (C + 3, h, w) with
        colours."""
        window = self.window(x)
        found = self.network.features(window, self.layers) if self.layers else {}
        return {name: layer.searched(found[name], window) for name, layer in self.layers.items()}

    @torch.no_grad()
    def wishes(self, neighbours: dict[str, Neighbours]) -> dict[str, Wish]:
        """Neighbours, folded (see `patches.fold`), and the colours they have as "colour"."""
        wanting = {name: (layer, neighbours[name]) for name, layer in self.layers.items()}
        if self._colours is not None:
            wanting["colour"] = self._colours, neighbours[self._finest]
        return {name: fold(w.wanted, w.sources, found, w.channels) for name, (w, found) in wanting.items()}

    def terms(self, x: torch.Tensor, wishes: dict[str, Wish]) -> dict[str, torch.Tensor]:
        """Each term's energy as a scalar to differentiate: "content", "texture relu3_1", "colour", "tv"; those of
        weight 0 not.

        Args:
            x: free pixels (3, K).
            wishes: of `wishes`.
        """
        s, terms = self.settings, {}
        if s.content_weight > 0 and not self._by_features:
            terms["content"] = (x - self.start).square().mean()
        window = self.window(x)
        names = [*self.layers, self.network.content_layer] if self._by_features else list(self.layers)
        found = self.network.features(window, names) if names else {}
        if self._by_features:
            reference, cells, scale = self._content
            difference = (found[self.network.content_layer] / scale - reference).square() * cells
            terms["content"] = difference.sum() / (cells.sum() * reference.shape[1])
        for name, layer in self.layers.items():
            terms[f"texture {name}"] = texture_energy(found[name][0] / layer.scale, wishes[name])
        if self._colours is not None:
            cells = F.pixel_unshuffle(window, self._colours.stride)[0] / self._colours.scale  # (3 s^2, h, w)
            terms["colour"] = texture_energy(cells, wishes["colour"])
        if s.tv_weight > 0:
            across, down = self._pairs
            total = (window.diff(dim=3).square() * across).sum() + (window.diff(dim=2).square() * down).sum()
            terms["tv"] = total / (3 * (across.sum() + down.sum())).clamp_min(1)
        return terms

    def weight(self, term: str) -> float:
        """The weight of a term of `terms`."""
        s = self.settings
        own = {"content": s.content_weight, "colour": s.colour_weight, "tv": s.tv_weight}
        return own.get(term, s.texture_weight)

    def total(self, terms: dict[str, torch.Tensor]) -> torch.Tensor:
        """The weighted sum of `terms`: what is made small."""
        return sum(self.weight(name) * value for name, value in terms.items())

    # Looking

    def matches(self, name: str, neighbours: Neighbours) -> tuple[torch.Tensor, torch.Tensor]:
        """Middles of the hole patches and of what they found, (N, 2) each, (x, y) in pixels of the level.

        A neighbour in a turned copy is told where the picture has it.
        """
        layer = self.layers[name]
        row, column = layer.wanted.nonzero(as_tuple=True)  # (N,)
        own = torch.stack([column + layer.corner[1], row + layer.corner[0]], 1)
        found = torch.zeros(len(own), 2, dtype=torch.float64, device=own.device)
        for number, (source, copy) in enumerate(zip(layer.sources, self.copies, strict=True)):
            chosen = neighbours.map == number
            centre = neighbours.centre[chosen]
            cells = torch.stack([centre % source.width, centre // source.width], 1)
            found[chosen] = copy.origin((cells + 0.5) * layer.stride).double()
        return (own + 0.5).double() * layer.stride, found

    def offsets(self, name: str, neighbours: Neighbours) -> torch.Tensor:
        """Where each hole patch found its neighbour: right, down in pixels, one value a cell; NaN elsewhere.

        Returns:
            (1, 2, h, w), the level's cells that lie in the picture.
        """
        layer = self.layers[name]
        here, there = self.matches(name, neighbours)
        height, width = (-(-n // layer.stride) for n in self.level.size)
        field = torch.full((2, height, width), torch.nan, device=here.device)
        x, y = (here / layer.stride).long().T
        inside = (x < width) & (y < height)
        field[:, y[inside], x[inside]] = (there - here)[inside].T.float()
        return field[None]

    @torch.no_grad()
    def similarity(self, x: torch.Tensor, name: str, point: tuple[float, float]) -> tuple[torch.Tensor, tuple]:
        """How like the hole patch about a point is to every known patch of the picture.

        Args:
            x: free pixels (3, K).
            name: of the layer.
            point: (x, y) in pixels of the level; the nearest hole patch is taken.

        Returns:
            (1, 1, h, w), one value a cell (see `search.likeness`), NaN where no patch may be taken; the patch's middle
            (x, y) in pixels.
        """
        layer = self.layers[name]
        row, column = layer.wanted.nonzero(as_tuple=True)
        middles = torch.stack([column + layer.corner[1], row + layer.corner[0]], 1).add(0.5) * layer.stride  # (N, 2)
        nearest = int((middles - middles.new_tensor(point)).square().sum(1).argmin())
        centre = int(row[nearest]), int(column[nearest])
        found = likeness(self.features(x)[name], centre, layer.sources[0])  # (h, w)
        height, width = (-(-n // layer.stride) for n in self.level.size)
        return found[None, None, :height, :width], tuple(middles[nearest].tolist())
