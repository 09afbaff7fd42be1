"""Multi-scale neural patch synthesis."""

from workbench.methods.neural_patch.fill import fill
from workbench.methods.neural_patch.networks import TextureNetwork, load_network
from workbench.methods.neural_patch.run import PatchRun, PatchState
from workbench.methods.neural_patch.settings import RELEASED_COPIES, PatchSettings

__all__ = ["RELEASED_COPIES", "PatchRun", "PatchSettings", "PatchState", "TextureNetwork", "fill", "load_network"]
