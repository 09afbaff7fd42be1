"""What the networks are told of a picture: states of an image encoder, and a depth map. Bundled and published kinds.

Both see whole pictures (B, 3, H, W) in [0, 1] of any size, and learn nothing here.
"""

import torch
from torch import nn

from workbench.diffusion.classifier import Classifier
from workbench.diffusion.depth import DepthEstimator, estimate_depth
from workbench.diffusion.libraries import CLIPVisionModelWithProjection
from workbench.image import resize

POOLED = 4
"""Cells a side that the classifier's features are averaged to."""
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PATCH = 14
"""Pixels a side of the patches of Depth Anything."""
DEPTH_SIDE = 518


class ClassifierStates(nn.Module):
    """The bundled classifier as image encoder: states (B, 17, C), its last features in 4 x 4 cells, and their mean.

    Args:
        classifier: in evaluation.
    """

    def __init__(self, classifier: Classifier):
        super().__init__()
        self.classifier = classifier.eval().requires_grad_(False)

    @property
    def width(self) -> int:
        """Channels of the states."""
        return self.classifier.config.widths[-1]

    @torch.no_grad()
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """States."""
        last = f"relu{len(self.classifier.config.widths)}_2"
        features = self.classifier.features(image.to(self.classifier.dtype), [last])[last].float()  # (B, C, h, w)
        cells = nn.functional.adaptive_avg_pool2d(features, POOLED).flatten(2)  # (B, C, 16)
        return torch.cat([cells, cells.mean(2, keepdim=True)], 2).mT  # (B, 17, C)

    def nothing(self, count: int) -> torch.Tensor:
        """States where the reference is dropped: zeros."""
        return torch.zeros(count, POOLED**2 + 1, self.width, device=self.classifier.device)


class ClipStates(nn.Module):
    """A CLIP vision tower as image encoder: states (B, n, C), those before its last layer.

    Args:
        tower: such as ViT-H/14, whose 257 states have 1280 channels.

    Source: the released code of MimicBrush. Pictures are resized to the tower's square, proportions lost.
    """

    def __init__(self, tower: CLIPVisionModelWithProjection):
        super().__init__()
        self.tower = tower.eval().requires_grad_(False)

    @property
    def width(self) -> int:
        """Channels of the states."""
        return self.tower.config.hidden_size

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """States."""
        side = self.tower.config.image_size
        return self._states(normalised(resize(image, (side, side)), CLIP_MEAN, CLIP_STD))

    def nothing(self, count: int) -> torch.Tensor:
        """States where the reference is dropped: those of an input of zeros, which is a picture of CLIP's mean grey."""
        side = self.tower.config.image_size
        zeros = torch.zeros(1, 3, side, side, device=self.tower.device)
        return self._states(zeros).expand(count, -1, -1)

    @torch.no_grad()
    def _states(self, pixels: torch.Tensor) -> torch.Tensor:
        given = pixels.to(self.tower.device, self.tower.dtype)
        return self.tower(pixel_values=given, output_hidden_states=True).hidden_states[-2].float()


class Disparity(nn.Module):
    """The bundled depth estimator as depth map (B, 1, H, W) in [0, 1]: 1 the nearest, 0 infinitely far.

    Args:
        estimator: None takes the bundled one.
    """

    def __init__(self, estimator: DepthEstimator):
        super().__init__()
        self.estimator = estimator.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """The map."""
        nearness = 1 / estimate_depth(image, self.estimator).clamp(min=1e-4)  # (B, 1, H, W)
        return nearness / nearness.amax((2, 3), keepdim=True)


class ReleasedDepth(nn.Module):
    """Depth Anything as the released code calls it: raw relative disparity (B, 1, H, W), larger = nearer.

    The release takes ImageNet's mean and deviation from a picture of 0 to 255 and divides by 255 afterwards, so hardly
    any mean is taken away. Its weights have learnt from that: it is done the same way here.

    Args:
        network: transformers' DepthAnythingForDepthEstimation, or any module with ``predicted_depth`` (B, h, w).
        side: pixels a side that it is shown; a multiple of its patches.
    """

    def __init__(self, network: nn.Module, side: int = DEPTH_SIDE):
        super().__init__()
        self.network, self.side = network.eval().requires_grad_(False), side

    @staticmethod
    def shown(image: torch.Tensor) -> torch.Tensor:
        """Pixels in [0, 1] as the network gets them: ((255 x - mean) / std) / 255 = (x - mean / 255) / std."""
        return normalised(image, tuple(value / 255 for value in IMAGENET_MEAN), IMAGENET_STD)

    @torch.no_grad()
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """The map, at the picture's size."""
        pixels = self.shown(resize(image, (self.side, self.side)))
        weight = next(self.network.parameters(), pixels)
        found = self.network(pixel_values=pixels.to(weight)).predicted_depth[:, None].float()  # (B, 1, h, w)
        return nn.functional.interpolate(found, image.shape[-2:], mode="bilinear", align_corners=False)


def normalised(image: torch.Tensor, mean, std) -> torch.Tensor:
    """(image - mean) / std, by channel."""
    mean, std = (torch.tensor(value, device=image.device, dtype=image.dtype).view(1, 3, 1, 1) for value in (mean, std))
    return (image - mean) / std
