"""A second reading of the released generator, from its weights' names alone: slow, plain, and sharing no code."""

import torch
from torch.nn import functional as F


class Plain:
    """The generator as arithmetic on a dictionary of the release's weights.

    Args:
        state: name -> weight, without a prefix.
    """

    def __init__(self, state):
        self.state = state

    def conv(self, name, x, stride=1, padding=0, dilation=1, mirror=0):
        """A convolution by its name; ``mirror`` cells are mirrored at each edge first."""
        if mirror:
            x = F.pad(x, (mirror,) * 4, mode="reflect")
        return F.conv2d(x, self.state[f"{name}.weight"], self.state.get(f"{name}.bias"), stride, padding, dilation)

    def count(self, prefix):
        """How many numbered parts there are under a name."""
        return len({name.split(".")[prefix.count(".")] for name in self.state if name.startswith(prefix)})

    def regions(self, x, hole):
        """Each region's plane, the rest filled with its mean, normalised and weighed with the root of its share."""
        out = 0
        for region in (hole, 1 - hole):
            count = region.sum((2, 3), keepdim=True).clamp(min=1)
            mean = (x * region).sum((2, 3), keepdim=True) / count
            plane = F.instance_norm(x * region + (1 - region) * mean)
            out = out + plane * (count / (x.shape[2] * x.shape[3])).sqrt()
        return out

    def encode(self, x, mask):
        """The image's features."""
        for k in (1, 2, 3):
            x = self.conv(f"encoder_conv{k}", x, mirror=3) if k == 1 else self.conv(f"encoder_conv{k}", x, 2, 1)
            hole = F.interpolate(mask, x.shape[-2:])
            gain = {n: self.state[f"encoder_in{k}.{n}"].view(1, -1, 1, 1) for n in
                    ("foreground_gamma", "foreground_beta", "background_gamma", "background_beta")}  # fmt: skip
            x = self.regions(x, hole)
            inside = x * hole * (1 + gain["foreground_gamma"]) + gain["foreground_beta"]
            outside = x * (1 - hole) * (1 + gain["background_gamma"]) + gain["background_beta"]
            x = F.relu(inside + outside)
        return x

    def learn(self, x):
        """The semantic prior."""
        for k in (1, 2, 3, 4):
            name = f"encoder_conv{k}_sm"
            x = F.leaky_relu(self.conv(name, x, mirror=3) if k == 1 else self.conv(name, x, 2, 1), 0.1)
        y, every = self.conv("encoder_sm_out", x, padding=1), []
        for block in range(self.count("rdbs.")):
            seen = [y]
            for layer in range(self.count(f"rdbs.{block}.layers.")):
                seen.append(F.relu(self.conv(f"rdbs.{block}.layers.{layer}.conv", torch.cat(seen, 1), padding=1)))
            y = y + self.conv(f"rdbs.{block}.lff", torch.cat(seen, 1))
            every.append(y)
        x = x + self.conv("gff.1", self.conv("gff.0", torch.cat(every, 1)), padding=1)
        for block in range(self.count("feature_recon.")):
            inner = F.relu(self.conv(f"feature_recon.{block}.conv_block.1", x, mirror=1))
            x = x + self.conv(f"feature_recon.{block}.conv_block.4", inner, mirror=1)
        return x

    def spade(self, name, x, prior):
        """Normalised, scaled, shifted, rectified."""
        seen = F.relu(self.conv(f"{name}.mlp_shared.0", F.interpolate(prior, x.shape[-2:]), padding=1))
        gamma, beta = (self.conv(f"{name}.mlp_{part}", seen, padding=1) for part in ("gamma", "beta"))
        return F.relu(F.instance_norm(x) * (1 + gamma) + beta)

    def decode(self, x):
        """Features to a picture in [0, 1]."""
        for conv, norm in ((0, 2), (4, 6)):
            x = F.pixel_shuffle(self.conv(f"decoder.{conv}", x, padding=1), 2)
            both = torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True).values], 1)
            importance = torch.sigmoid(self.conv(f"decoder.{norm}.sa.conv1", both, padding=3))
            gamma, beta = (self.conv(f"decoder.{norm}.sa.{part}_conv", importance, padding=3)
                           for part in ("gamma", "beta"))  # fmt: skip
            x = F.relu(self.regions(x, (importance >= 0.8).float()) * (1 + gamma) + beta)
        return (torch.tanh(self.conv("decoder.9", x, mirror=3)) + 1) / 2

    def __call__(self, image, mask):
        """Picture, and the features that the teacher is believed to have."""
        masked = image * (1 - mask) + mask
        larger = torch.cat([F.interpolate(x, scale_factor=2) for x in (masked, mask)], 1)
        prior, x = self.learn(larger), self.encode(masked, mask)
        for k in range(self.count("middle.")):
            name = f"middle.{k}.conv_block"
            y = self.conv(f"{name}.3", self.spade(f"{name}.0", x, prior), dilation=2, mirror=2)
            x = x + self.conv(f"{name}.7", self.spade(f"{name}.4", y, prior), mirror=1)
        return self.decode(x), self.conv("feature_mapping", prior)
