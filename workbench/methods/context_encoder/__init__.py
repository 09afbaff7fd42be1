"""The Context Encoder (Pathak et al., CVPR 2016): a network that imagines the middle of a picture from the rest.

`networks` holds the encoder-decoder, `train` how it learns, with L2 alone or with an adversary.
"""

from workbench.methods.context_encoder.networks import (
    ContextEncoder,
    load_context_encoder,
    make_context_encoder,
    predict,
)

__all__ = ["ContextEncoder", "load_context_encoder", "make_context_encoder", "predict"]
