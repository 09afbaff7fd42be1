"""The Context Encoder (Pathak et al., CVPR 2016): a network that imagines the middle of a picture from the rest.

Three rooms: `networks` holds the encoder-decoder, `train` how it learns, with L2 alone or with an adversary, `fill`
how it serves any picture and any hole.
"""

from workbench.methods.context_encoder.fill import bounding_squares, fill
from workbench.methods.context_encoder.networks import (
    ContextEncoder,
    load_context_encoder,
    make_context_encoder,
    predict,
)

__all__ = ["ContextEncoder", "bounding_squares", "fill", "load_context_encoder", "make_context_encoder", "predict"]
