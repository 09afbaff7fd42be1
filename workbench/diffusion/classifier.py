"""A small VGG that names what is in a rendered picture; its features serve as textures, teacher and distance.

Convolution, batch normalisation, ReLU, two of each a stage; features go by VGG's names, relu1_1 to relu5_2.
"""

from collections.abc import Iterable

import numpy as np
import torch
from torch import nn

from workbench import check
from workbench.diffusion.export import write_model
from workbench.diffusion.libraries import ConfigMixin, ModelMixin, register_to_config
from workbench.diffusion.models import seeded
from workbench.diffusion.training import ModelTask, tiled
from workbench.diffusion.training_data import TrainingPictures, cut_out, generator

NAME = "tiny-classifier"
CELL = 8
"""Pixels a side of the cells that labels are told for."""
WHOLE = 0.25
"""Share of training items that are whole views; the others are parts of views, enlarged."""
FOCUS = 2.0
"""Power by which what is told right already counts less."""
DISTANCE_LAYERS = ("relu1_2", "relu2_2", "relu3_2", "relu4_2")
"""What `Classifier.distance` compares."""


class Classifier(ModelMixin, ConfigMixin):
    """Picture (B, 3, H, W) in [0, 1] -> one logit a label (B, L); sigmoid(logit) is the chance that it is there.

    Args:
        labels: their names.
        widths: channels of each stage; between stages the size is halved.

    Source: Simonyan and Zisserman, ICLR 2015; differs in width, in batch normalisation, and in its end: labels are told
    for every cell of 8 x 8 pixels and for the whole (any size of 32 px and more will do).
    """

    @register_to_config
    def __init__(self, labels: tuple[str, ...], widths: tuple[int, ...] = (16, 48, 96, 160, 256)):
        super().__init__()
        self.stages = nn.ModuleList()
        before = 3
        for stage, width in enumerate(widths, 1):
            layers = {}
            for k in (1, 2):
                layers[f"conv{stage}_{k}"] = nn.Conv2d(before, width, 3, padding=1, bias=False)
                layers[f"bn{stage}_{k}"] = nn.BatchNorm2d(width)
                layers[f"relu{stage}_{k}"] = nn.ReLU()
                before = width
            self.stages.append(nn.Sequential())
            for name, layer in layers.items():
                self.stages[-1].add_module(name, layer)
        self.fine, self.coarse = nn.Conv2d(widths[-2], len(labels), 1), nn.Conv2d(before, len(labels), 1)
        self.head = nn.Linear(2 * before, len(labels))

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the logits."""
        return tuple(self.config.labels)

    def layer_names(self) -> list[str]:
        """Names that `features` knows: conv1_1, bn1_1, relu1_1, ..."""
        return [name for stage in self.stages for name, _ in stage.named_children()]

    def features(self, image: torch.Tensor, layers: Iterable[str]) -> dict[str, torch.Tensor]:
        """Feature maps by layer name, (B, C, H / 2^(stage - 1), W / 2^(stage - 1)); computed no deeper than needed.

        Args:
            image: (B, 3, H, W), RGB in [0, 1].
            layers: names such as "relu3_2".

        Raises:
            ValueError: an unknown layer.
        """
        wanted = [check.choice(name, "layer", self.layer_names()) for name in layers]
        found: dict[str, torch.Tensor] = {}
        x = self._normalised(image)
        for k, stage in enumerate(self.stages):
            x = nn.functional.max_pool2d(x, 2) if k else x
            for name, layer in stage.named_children():
                x = layer(x)
                found[name] = x
                if set(wanted) <= set(found):
                    return {name: found[name] for name in wanted}
        return {}

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits (B, L): the clearest cell's, corrected by what the picture is like as a whole."""
        return self.seen(image)[0]

    def cells(self, image: torch.Tensor) -> torch.Tensor:
        """Where each label is seen: logits (B, L, H / 8, W / 8)."""
        return self.seen(image)[1]

    def seen(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Both: logits of the picture (B, L) and of its cells (B, L, H / 8, W / 8)."""
        n = len(self.stages)
        near, x = self.features(image, [f"relu{n - 1}_2", f"relu{n}_2"]).values()  # 1/8 and 1/16 of the size
        cells = self.fine(near) + nn.functional.interpolate(self.coarse(x), near.shape[-2:])  # (B, L, H / 8, W / 8)
        whole = self.head(torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1))  # (B, L)
        return cells.amax((2, 3)) + whole, cells

    def distance(self, a: torch.Tensor, b: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Perceptual distance of pictures (B, 3, H, W), (B,): mean |f(a) - f(b)|^2 of unit-length feature vectors.

        With a mask (B, 1, H, W), none without a hole, a cell counts by how much of it is hole.

        Source: Zhang et al., CVPR 2018, without their learned weights: not LPIPS, and not to be called so.
        """
        total = a.new_zeros(len(a))
        ours, theirs = self.features(a, DISTANCE_LAYERS), self.features(b, DISTANCE_LAYERS)
        for name in DISTANCE_LAYERS:
            x, y = (nn.functional.normalize(f[name].float(), dim=1, eps=1e-6) for f in (ours, theirs))
            off = (x - y).square().sum(1, keepdim=True)  # (B, 1, h, w)
            share = torch.ones_like(off) if mask is None else nn.functional.adaptive_avg_pool2d(mask, off.shape[-2:])
            total = total + (off * share).sum((1, 2, 3)) / share.sum((1, 2, 3))
        return total / len(DISTANCE_LAYERS)

    @staticmethod
    def _normalised(image: torch.Tensor) -> torch.Tensor:
        return (image - 0.5) / 0.25


def make_classifier(labels: Iterable[str], widths=(16, 48, 96, 160, 256), seed: int = 0) -> Classifier:
    """A fresh classifier; weights from a local seed."""
    with seeded(seed):
        return Classifier(tuple(labels), tuple(widths))


def load_classifier(source=NAME) -> Classifier:
    """The bundled classifier, in evaluation, ready for `features` and `distance`.

    Args:
        source: the bundled name, or a folder.

    Raises:
        NotAvailable: its files are missing or damaged; the message names the file.

    Example:
        >>> classifier = load_classifier()
        >>> classifier.features(photo, ["relu3_2"])["relu3_2"].shape
    """
    from workbench.diffusion.pipelines import load_part

    return load_part(Classifier, source)


_loaded: dict[str, Classifier] = {}


def tiny_perceptual(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Perceptual distance by the bundled classifier: 0 for equal pictures, (B,). Not LPIPS; see `Classifier.distance`.

    Args:
        a, b: (B, 3, H, W) in [0, 1], at least 16 x 16.

    Raises:
        NotAvailable: the classifier is not on this machine.
        ValueError: shapes or ranges against the conventions.
    """
    check.same_size(check.image(a, "a"), check.image(b, "b"), "a", "b")
    if len(a) != len(b) or min(a.shape[-2:]) < 16:
        raise ValueError(f"a is {tuple(a.shape)} and b {tuple(b.shape)}, expected as many of at least 16 x 16 pixels.")
    if NAME not in _loaded:
        _loaded[NAME] = load_classifier().requires_grad_(False)
    return _loaded[NAME].to(a.device).distance(a.float(), b.float())


def mean_average_precision(scores: torch.Tensor, truth: torch.Tensor) -> float:
    """Mean over labels of the average precision; labels that are always or never there are left out.

    AP = sum over the positives, by falling score, of precision at that place / number of positives.

    Args:
        scores: (N, L), any monotone measure of confidence.
        truth: (N, L), 0 or 1.
    """
    order = torch.argsort(scores, dim=0, descending=True, stable=True)  # (N, L)
    hits = truth.gather(0, order).double()  # (N, L), by falling score
    places = torch.arange(1, len(hits) + 1, dtype=torch.float64)[:, None]  # (N, 1)
    precision = hits.cumsum(0) / places
    usable = (hits.sum(0) > 0) & (hits.sum(0) < len(hits))
    if not usable.any():
        raise ValueError("no label is there in some pictures and missing in others, expected at least one to rank.")
    return ((precision * hits).sum(0) / hits.sum(0).clamp(min=1))[usable].mean().item()


def focal_loss(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy that looks at what is told wrong, and at rare labels as much as at common ones.

    mean over labels of sum((1 - p)^2 (-log p)) / max(1, number of positives), p: the chance given to the truth.

    Args:
        logits: (B, L, ...), any places after the labels.
        truth: same shape: 1 there, 0 not there, -1 unsure (does not count).

    Source: Lin, Goyal, Girshick, He, Dollar, ICCV 2017; differs in that each label has its own number of positives.
    """
    logits, truth = (x.float().transpose(0, 1).flatten(1) for x in (logits, truth))  # (L, B ...)
    cross_entropy = nn.functional.binary_cross_entropy_with_logits(logits, truth.clamp(min=0), reduction="none")
    each = (1 - torch.exp(-cross_entropy)) ** FOCUS * cross_entropy * (truth >= 0)
    return (each.sum(1) / (truth == 1).sum(1).clamp(min=1)).mean()


class Naming(nn.Module):
    """The classifier with its loss: `focal_loss` of the picture's labels and of the cells'.

    The renderer knows which pixel belongs to what, so each small thing is learnt where it is, not from the whole.
    """

    def __init__(self, classifier: Classifier):
        super().__init__()
        self.classifier = classifier

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Losses for image (B, 3, H, W), labels (B, L), and cells (B, L, h, w): 1 there, 0 not there, -1 unsure."""
        of_picture, of_cells = self.classifier.seen(batch["image"])
        picture, cells = focal_loss(of_picture, batch["labels"]), focal_loss(of_cells, batch["cells"])
        return {"loss": picture + cells, "picture": picture, "cells": cells}


def enlarged_part(view: dict, rng: np.random.Generator) -> dict:
    """A square of a view, at least half its side, at the view's size, with the labels of what is seen in it."""
    from workbench.world.views import kind_of  # naming needs no world, only learning does

    size = view["image"].shape[-1]
    side = size if rng.random() < WHOLE else int(rng.integers(size // 2, size + 1))
    y, x = rng.integers(size - side + 1, size=2)
    part = cut_out(view, int(x), int(y), side)
    return {"image": part["image"], **labels_of(part["ids"], view["things"], kind_of(view["labels"]))}


def labels_of(ids: torch.Tensor, things: list[str], kind: str) -> dict[str, torch.Tensor]:
    """labels (L,) of a picture and cells (L, H / 8, W / 8) of its parts: 1 there, 0 not there, -1 unsure.

    Args:
        ids: (H, W), i + 1 for things[i], 0 for nothing.
        things: their descriptions, "red striped ball".
        kind: of scene; a label of every cell.
    """
    from workbench.world.views import VISIBLE, label_vector

    height, width = (n // CELL for n in ids.shape)
    table = torch.stack([label_vector([]), *(label_vector([thing]) for thing in things)])  # (T + 1, L)
    by_cell = ids.view(height, CELL, width, CELL).transpose(1, 2).reshape(height * width, CELL * CELL)
    counts = torch.zeros(height * width, len(table)).scatter_add_(1, by_cell, torch.ones(by_cell.shape))  # (h w, T + 1)
    shares = counts @ table / CELL**2  # (h w, L)
    cells = (shares >= 0.25).float() - ((shares > 0.03) & (shares < 0.25)).float()
    visible = counts.sum(0) >= VISIBLE * ids.numel()  # (T + 1,)
    of_kind = label_vector([kind])
    labels = torch.maximum((visible.float() @ table > 0).float(), of_kind)
    return {"labels": labels, "cells": torch.where(of_kind > 0, of_kind, cells).T.reshape(-1, height, width)}


class ClassifierTask(ModelTask):
    """The classifier's training. Batch normalisation takes the statistics of each process's own share of a batch.

    Args:
        objective: `Naming`.
        pictures: rendered views (photographs have no labels).
        validation: views of unseen seeds.
    """

    name = NAME
    about = "A small VGG for the labels of rendered pictures; mean average precision on views of unseen seeds."

    def __init__(self, objective: Naming, pictures: TrainingPictures, validation: TrainingPictures):
        self.objective, self.pictures, self.validation = objective, pictures, validation

    def batch(self, numbers):
        """image (B, 3, H, W), labels (B, L), cells (B, L, H / 8, W / 8); three in four are enlarged parts of views."""
        rngs = [generator(*number) for number in numbers]
        views = [enlarged_part(self.pictures.draw(rng), rng) for rng in rngs]
        return {key: torch.stack([view[key] for view in views]) for key in ("image", "labels", "cells")}

    def validate(self):
        """Mean average precision over the labels of unseen views, sprites on unseen backgrounds included."""
        scores, truth = self._scores(range(len(self.validation)))
        return {"mean_average_precision": mean_average_precision(scores, truth)}

    @torch.no_grad()
    def _scores(self, indices, batch_size: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
        scores, truth, classifier = [], [], self.objective.classifier
        for part in np.array_split(list(indices), max(1, len(indices) // batch_size)):
            views = [self.validation.view(int(i), generator(4, int(i))) for i in part]
            images = torch.stack([view["image"] for view in views]).to(classifier.device)
            scores.append(classifier(images).sigmoid().float().cpu())
            truth.append(torch.stack([view["labels"] for view in views]))
        return torch.cat(scores), torch.cat(truth)

    def sheet(self):
        """Twelve validation views, those with the fewest labels right last."""
        indices = range(min(12, len(self.validation)))
        scores, truth = self._scores(indices)
        right = ((scores > 0.5) == (truth > 0.5)).float().mean(1)  # (N,)
        order = right.argsort(descending=True).tolist()
        return tiled([torch.stack([self.validation.view(i, generator(4, i))["image"] for i in order])])

    def export(self, folder, trained):
        """Writes the classifier's folder."""
        told = {"about": self.about, "trained": trained, "quality": self.validate()}
        return write_model(folder, {"": self.objective.classifier}, title=self.name, **told)
