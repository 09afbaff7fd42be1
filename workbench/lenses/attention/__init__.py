"""Where a denoiser looks: its attention recorded beside the computation, asked afterwards, and edited.

One attention layer computes softmax(q k^T / sqrt(d)) v: each row of the softmax says how a place of the picture (a
query) shares itself out among words, or other places (the keys). Fused implementations never hold these probabilities.

How it works, one file each:

- `hearing`: while an attention layer runs, torch is listened to: the very queries and keys that go into its softmax
  are seen, whatever projections, norms or rotary embeddings made them.
- `calls`: what one call of the denoiser is about: which step, which rows belong to the prompt, how large the grid is.
- `layouts`: what the rows and columns of one layer's softmax stand for: picture, text, reference.
- `tokens`: which columns a word has.
- `tape`: what is kept of it, within a limit.
- `record`: `record_attention` and the questions it answers. `edit`: `edit_attention`.

A network of one's own is understood if its attention modules have ``to_q`` and ``to_k`` and call PyTorch's fused
attention or a softmax. Where a key axis holds more than picture and text, the module says so with an attribute
``key_parts``, a dict from names to lengths or grids in the order of the axis: ``{"image": (h, w), "reference": (h2,
w2)}``. The picture's own keys are "image", those of a reference "reference", those of the conditioning "text".
"""

from workbench.lenses.attention.edit import edit_attention
from workbench.lenses.attention.record import AttentionRecord, record_attention

__all__ = ["AttentionRecord", "edit_attention", "record_attention"]
