"""DiffuMatting (Hu et al., ECCV 2024): things painted on pure green, with their mattes.

losses: each beside its formula. attention: where the word "green" is looked at. networks: matting head, refiner,
matting network. data: things with exact mattes, on green and elsewhere. task: what is learnt; refining: how the other
two networks are; decoding: how the autoencoder comes to show green; train: the command line. greenpost: from coarse to
fine, and what that is compared with. loading and generate: the method from end to end. factory: data sets. evaluation:
how green is green.
"""

from workbench.methods.diffumatting import losses
from workbench.methods.diffumatting.attention import WordAttention, green_caption, green_columns
from workbench.methods.diffumatting.data import (
    LAYOUTS,
    Backgrounds,
    Example,
    FolderMattes,
    Layout,
    Matte,
    SpriteMattes,
    keyed_frames,
    on_green,
)
from workbench.methods.diffumatting.decoding import DecoderTask, load_decoder
from workbench.methods.diffumatting.evaluation import (
    autoencoder_floor,
    background_delta_e,
    border_delta_e,
    gsg,
    screen_direction,
    shift_colour_noise,
)
from workbench.methods.diffumatting.factory import captions, make_dataset
from workbench.methods.diffumatting.generate import Matted, generate, matte
from workbench.methods.diffumatting.greenpost import (
    GreenPost,
    apply_trimap,
    background_colour,
    chroma_key,
    clean_plate,
    closed_form,
    estimate_foreground,
    green_post,
)
from workbench.methods.diffumatting.loading import (
    DiffuMatting,
    load_diffumatting,
    load_matting_network,
    load_refiner,
)
from workbench.methods.diffumatting.networks import (
    decode_features,
    estimate_alpha,
    make_head,
    make_matting_network,
    make_refiner,
    refine,
)
from workbench.methods.diffumatting.refining import MattingTask, RefinerTask
from workbench.methods.diffumatting.task import DiffuMattingTask, Painting, load_examples, on_canvas

__all__ = [
    "LAYOUTS", "Backgrounds", "DecoderTask", "DiffuMatting", "DiffuMattingTask", "Example", "FolderMattes",
    "GreenPost", "Layout", "Matte", "Matted", "MattingTask", "Painting", "RefinerTask", "SpriteMattes",
    "WordAttention", "apply_trimap", "autoencoder_floor", "background_colour", "background_delta_e", "border_delta_e",
    "captions", "chroma_key", "clean_plate", "closed_form", "decode_features", "estimate_alpha",
    "estimate_foreground", "generate", "green_caption", "green_columns", "green_post", "gsg", "keyed_frames",
    "load_decoder", "load_diffumatting", "load_examples", "load_matting_network", "load_refiner", "losses",
    "make_dataset", "make_head", "make_matting_network", "make_refiner", "matte", "on_canvas", "on_green", "refine",
    "screen_direction", "shift_colour_noise",
]  # fmt: skip
