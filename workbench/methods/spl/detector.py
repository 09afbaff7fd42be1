"""A teacher that learnt where things are: python -m workbench.methods.spl.detector --help trains it.

The classifier's layers to relu4_2 with a head that tells, for each cell, what stands there and how far the edges of
its box are. SPL's authors tried such a teacher (YOLOv5); this one is as wide and as deep as the bundled classifier, so
that only the task differs.
"""

import argparse

import torch
from torch import nn
from torch.nn import functional as F

from workbench import check
from workbench.diffusion.classifier import CELL, Classifier
from workbench.diffusion.export import write_model
from workbench.diffusion.libraries import ConfigMixin, ModelMixin, register_to_config
from workbench.diffusion.models import seeded
from workbench.diffusion.train import add_arguments, carry_out, read_pictures
from workbench.diffusion.training import ModelTask, tiled
from workbench.diffusion.training_data import TrainingPictures, generator
from workbench.methods.spl.teachers import LAYER

NAME = "tiny-detector"
WIDTHS = (16, 48, 96, 160)
"""Channels of the classifier's first four stages."""
HIDDEN = 96
BOX_WEIGHT = 1.0
DEFAULTS = {"batch_size": 32, "learning_rate": 2e-3}
"""What differs from `training.Settings` unless told."""


class Detector(ModelMixin, ConfigMixin):
    """Picture (B, 3, H, W) in [0, 1] -> logits (B, L, H / 8, W / 8), distances (B, 4, H / 8, W / 8).

    A cell's distances are from its middle to the left, upper, right and lower edge of the box, in cells.

    Args:
        labels: words for things.
        widths: channels of the four stages.

    Source: Tian et al., ICCV 2019 (FCOS), one level, without centre-ness.
    """

    @register_to_config
    def __init__(self, labels: tuple[str, ...], widths: tuple[int, ...] = WIDTHS):
        super().__init__()
        self.trunk = Classifier(tuple(labels), tuple(widths))
        for head in (self.trunk.fine, self.trunk.coarse, self.trunk.head):
            head.requires_grad_(False)  # not used: it names cells by itself
        self.neck = nn.Conv2d(widths[-1], HIDDEN, 3, padding=1)
        self.naming, self.boxes = nn.Conv2d(HIDDEN, len(labels), 1), nn.Conv2d(HIDDEN, 4, 1)
        nn.init.constant_(self.naming.bias, -4.0)  # most cells hold nothing: 2 %

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits and distances."""
        x = F.relu(self.neck(self.trunk.features(image, [LAYER])[LAYER]))
        return self.naming(x), self.boxes(x).float().clamp(max=4).exp()


def make_detector(labels, widths=WIDTHS, seed: int = 0) -> Detector:
    """A fresh detector; weights from a local seed."""
    with seeded(seed):
        return Detector(tuple(labels), tuple(widths))


def load_detector(source=NAME) -> Detector:
    """The bundled detector, or that of a folder, in evaluation.

    Raises:
        NotAvailable: its files are missing or damaged; the message names the file.
    """
    from workbench.diffusion.pipelines import load_part

    return load_part(Detector, source)


def boxes_of(ids: torch.Tensor, things: list[str], labels) -> list[tuple[int, tuple[int, int, int, int]]]:
    """What stands where in a rendered picture: (index of its word in labels, box in pixels), the largest box first.

    Args:
        ids: (H, W), i + 1 for things[i], 0 for nothing.
        things: their descriptions, "red striped ball": the last word counts.
        labels: words that are looked for.
    """
    from workbench.world.views import VISIBLE

    found = []
    for i, thing in enumerate(things, 1):
        word = thing.split()[-1] if thing else ""
        rows, columns = torch.nonzero(ids == i, as_tuple=True)
        if word in labels and len(rows) >= VISIBLE * ids.numel():
            box = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
            found.append((labels.index(word), box))
    return sorted(found, key=lambda one: -(one[1][2] - one[1][0]) * (one[1][3] - one[1][1]))


def targets_of(found, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """What each cell shall say: a label's index or -1, (h, w), and distances (4, h, w) in cells; small boxes win.

    Args:
        found: as `boxes_of` gives it.
        size: (H, W) of the picture, multiples of 8.
    """
    height, width = (n // CELL for n in size)
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    label, distances = torch.full((height, width), -1), torch.zeros(4, height, width)
    for k, box in found:
        x0, y0, x1, y1 = (n / CELL for n in box)
        edges = torch.stack([x - x0, y - y0, x1 - x, y1 - y])  # (4, h, w)
        inside = edges.amin(0) > 0
        label[inside] = k
        distances[:, inside] = edges[:, inside]
    return label, distances


def overlap(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Intersection over union of boxes round the same cell: distances (4, N), (4, N) -> (N,)."""
    both = torch.minimum(a, b)

    def area(edges: torch.Tensor) -> torch.Tensor:
        return (edges[0] + edges[2]) * (edges[1] + edges[3])

    return area(both) / (area(a) + area(b) - area(both)).clamp(min=1e-6)


class Locating(nn.Module):
    """The detector with its losses: focal cross-entropy of the words, and -log(overlap) where something stands.

    Source: Lin et al., ICCV 2017 (focal loss, gamma 2, alpha 0.25); Yu et al., 2016 (UnitBox).
    """

    def __init__(self, detector: Detector):
        super().__init__()
        self.detector = detector

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Losses for image (B, 3, H, W), label (B, h, w), distances (B, 4, h, w)."""
        logits, distances = self.detector(batch["image"])
        logits, there = logits.float(), batch["label"] >= 0  # (B, h, w)
        wanted = F.one_hot(batch["label"].clamp(min=0), logits.shape[1]).permute(0, 3, 1, 2) * there[:, None]
        wrong = F.binary_cross_entropy_with_logits(logits, wanted.float(), reduction="none")
        weight = torch.where(wanted > 0, 0.25, 0.75) * (1 - torch.exp(-wrong)).square()
        count = there.sum().clamp(min=1)
        naming = (weight * wrong).sum() / count
        found = overlap(*(edges.permute(1, 0, 2, 3)[:, there] for edges in (distances, batch["distances"])))  # (N,)
        boxes = -found.clamp(min=1e-3).log().sum() / count
        return {"loss": naming + BOX_WEIGHT * boxes, "naming": naming, "boxes": boxes}


class DetectorTask(ModelTask):
    """The detector's training.

    Args:
        objective: `Locating`.
        pictures: to learn from, rendered views (photographs have no boxes).
        validation: views of unseen seeds.
    """

    name = NAME
    about = (
        "The classifier's layers trained to say where things are: a teacher for SPL. On views of unseen seeds, at "
        "cells where something stands: mean overlap of the boxes (IoU), and the share of right words."
    )

    def __init__(self, objective: Locating, pictures: TrainingPictures, validation: TrainingPictures):
        self.objective, self.pictures, self.validation = objective, pictures, validation

    def batch(self, numbers):
        """image (B, 3, H, W), label (B, h, w), distances (B, 4, h, w)."""
        return self._told([self.pictures.draw(generator(*number)) for number in numbers])

    def _told(self, views: list[dict]) -> dict[str, torch.Tensor]:
        labels = list(self.objective.detector.config.labels)
        told = [targets_of(boxes_of(v["ids"], v["things"], labels), v["image"].shape[-2:]) for v in views]
        return {
            "image": torch.stack([view["image"] for view in views]),
            "label": torch.stack([label for label, _ in told]),
            "distances": torch.stack([distances for _, distances in told]),
        }

    @torch.no_grad()
    def validate(self):
        """Mean overlap and share of right words."""
        found, right, detector = [torch.zeros(0)], [torch.zeros(0)], self.objective.detector
        for part in torch.arange(len(self.validation)).split(32):
            batch = self._told([self.validation.view(int(i), generator(4, int(i))) for i in part])
            logits, distances = (x.float().cpu() for x in detector(batch["image"].to(detector.device)))
            there = batch["label"] >= 0
            found.append(overlap(*(x.permute(1, 0, 2, 3)[:, there] for x in (distances, batch["distances"]))))
            right.append((logits.argmax(1)[there] == batch["label"][there]).float())
        found, right = torch.cat(found), torch.cat(right)
        return {"cells": float(len(found)), **{
            name: values.mean().item() if len(values) else 0.0 for name, values in (("iou", found), ("right", right))
        }}  # fmt: skip

    def sheet(self):
        """Views, and where the detector sees something."""
        views = self._told([self.validation.view(i, generator(4, i)) for i in range(min(8, len(self.validation)))])
        detector = self.objective.detector
        with torch.no_grad():
            seen = detector(views["image"].to(detector.device))[0].sigmoid().amax(1, keepdim=True).float().cpu()
        heat = F.interpolate(seen, views["image"].shape[-2:]).expand(-1, 3, -1, -1)
        return tiled([views["image"], heat])

    def export(self, folder, trained):
        """Writes the detector's folder."""
        told = {"about": self.about, "trained": trained, "quality": self.validate()}
        return write_model(folder, {"": self.objective.detector}, title=self.name, **told)


def main(arguments=None) -> None:
    """Reads the command line, trains, exports."""
    parser = argparse.ArgumentParser(prog="python -m workbench.methods.spl.detector", description=__doc__)
    add_arguments(parser, photos="0; photographs have no boxes")
    carry_out(parser.parse_args(arguments), NAME, DEFAULTS, _build)


def _build(options, settings, run, accelerator) -> DetectorTask:
    from workbench.world.views import OBJECTS, SURROUNDINGS

    if check.number(options.photos or 0.0, "photos", 0) > 0:
        raise ValueError(f"photos is {options.photos}, expected 0: photographs have no boxes.")
    labels = [word for word in OBJECTS if word not in SURROUNDINGS]
    return DetectorTask(Locating(make_detector(labels, seed=settings.seed)), *read_pictures(options))


if __name__ == "__main__":
    main()
