"""Multi-scale neural patch synthesis: content, texture and smoothness of a hole optimised together, coarse to fine.

Read `objective` (the terms), then `solver` (levels and iterations), with `patches` and `search` for what a neural
patch is and how its neighbour is found. `networks` has the texture networks, `levels` the pyramid, `settings` what can
be chosen, `run` the film (`PatchRun`), `fill` the door of `wb.inpaint`.

Two readings of the content term are in use, and both are here. The paper compares the hole's pixels with the content
network's prediction, which pins colours down and lets texture be sharp only where it costs little
(``content_term="pixels"``). The released code compares features of a deeper layer, relu4_2, over the whole picture,
which pins down what is where and leaves colours to the other terms (``content_term="features"``; here over the hole
only). In both only the hole is free; the released code lets every pixel move and puts the known ones back at the end.
"""

from workbench.methods.neural_patch.fill import fill
from workbench.methods.neural_patch.networks import TextureNetwork, load_network
from workbench.methods.neural_patch.run import PatchRun, PatchState
from workbench.methods.neural_patch.settings import RELEASED_COPIES, PatchSettings

__all__ = ["RELEASED_COPIES", "PatchRun", "PatchSettings", "PatchState", "TextureNetwork", "fill", "load_network"]
