"""Trained generators: the bundled ones, and the released checkpoint under its own names; nothing is executed.

The release takes pictures and masks as files, a mask of 255 = hole, and whitens the hole before the network sees it.
`wb.load_mask` reads such masks as 1 = hole, and the generator here whitens by itself: nothing is to be inverted.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from workbench import check
from workbench.diffusion.weight_files import read_weights
from workbench.methods.spl.networks import SplGenerator

VARIANTS = {
    "full": "tiny-spl",
    "unsupervised": "tiny-spl-unsupervised",
    "concatenation": "tiny-spl-concatenation",
    "detector-teacher": "tiny-spl-detector-teacher",
    "random-teacher": "tiny-spl-random-teacher",
}
"""How it was trained -> the bundled model's name: as published; the learner never told what to guess; the prior laid
beside the features instead of modulating them; two other teachers."""
FILES = (".pt", ".pth", ".safetensors")
"""Endings of files of weights."""
_GENERATOR = (
    (r"learner\.down\.(\d+)", lambda m: f"encoder_conv{int(m[1]) + 1}_sm"),
    (r"learner\.enter", "encoder_sm_out"),
    (r"learner\.dense\.(\d+)\.layers\.(\d+)", r"rdbs.\1.layers.\2.conv"),
    (r"learner\.dense\.(\d+)\.fusion", r"rdbs.\1.lff"),
    (r"learner\.fusion", "gff"),
    (r"learner\.refine\.(\d+)\.conv1", r"feature_recon.\1.conv_block.1"),
    (r"learner\.refine\.(\d+)\.conv2", r"feature_recon.\1.conv_block.4"),
    (r"learner\.to_teacher", "feature_mapping"),
    (r"encoder\.down\.(\d+)", lambda m: f"encoder_conv{int(m[1]) + 1}"),
    (r"encoder\.norms\.(\d+)\.hole", lambda m: f"encoder_in{int(m[1]) + 1}.foreground"),
    (r"encoder\.norms\.(\d+)\.known", lambda m: f"encoder_in{int(m[1]) + 1}.background"),
    (r"blocks\.(\d+)\.inject1\.shared", r"middle.\1.conv_block.0.mlp_shared.0"),
    (r"blocks\.(\d+)\.inject2\.shared", r"middle.\1.conv_block.4.mlp_shared.0"),
    (r"blocks\.(\d+)\.inject1\.(gamma|beta)", r"middle.\1.conv_block.0.mlp_\2"),
    (r"blocks\.(\d+)\.inject2\.(gamma|beta)", r"middle.\1.conv_block.4.mlp_\2"),
    (r"blocks\.(\d+)\.conv1", r"middle.\1.conv_block.3"),
    (r"blocks\.(\d+)\.conv2", r"middle.\1.conv_block.7"),
    (r"decoder\.up\.(\d+)", lambda m: f"decoder.{4 * int(m[1])}"),
    (r"decoder\.norms\.(\d+)\.importance", lambda m: f"decoder.{4 * int(m[1]) + 2}.sa.conv1"),
    (r"decoder\.norms\.(\d+)\.(gamma|beta)", lambda m: f"decoder.{4 * int(m[1]) + 2}.sa.{m[2]}_conv"),
    (r"decoder\.to_image", "decoder.9"),
)
"""The beginning of a name here -> what it is there; the first that fits counts."""
_DISCRIMINATOR = ((r"layers\.(\d+)", lambda m: f"conv{int(m[1]) + 1}.0"),)


def load_spl(source="full") -> SplGenerator:
    """A trained generator, in evaluation.

    Args:
        source: a key of `VARIANTS` (bundled models), a folder of one trained likewise, or a checkpoint file of the
            released code (see `load_published`).

    Raises:
        NotAvailable: its files are missing or damaged; the message names them.

    Example:
        >>> completion = complete(load_spl(), photo, mask)
    """
    from workbench.diffusion.pipelines import load_part

    if Path(source).suffix in FILES:
        return load_published(source)
    return load_part(SplGenerator, VARIANTS.get(source, source))


def published_name(name: str) -> str:
    """What the release calls a weight of `SplGenerator` or `PatchDiscriminator`.

    Raises:
        ValueError: a name that the release does not have, such as the ablation's.

    Example:
        >>> published_name("blocks.7.inject2.gamma.weight")
        'middle.7.conv_block.4.mlp_gamma.weight'
    """
    for pattern, there in (*_GENERATOR, *_DISCRIMINATOR):
        found, count = re.subn(f"^{pattern}(?=[._])", there, name)
        if count:
            return found
    raise ValueError(f"{name!r} has no name in the release, expected a weight of the generator or the discriminator.")


def published_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A network's weights under the names that the release gives them."""
    return {published_name(name): value for name, value in model.state_dict().items()}


def from_published(state: Mapping[str, torch.Tensor], names: Iterable[str]) -> dict[str, torch.Tensor]:
    """Weights of the release under the names they have here; what else the file holds is left out.

    Args:
        state: as `published_state` gives it, or as a training of the release saved it ("generator.module." before each
            name, and other networks beside).
        names: the wanted names, of this package.

    Raises:
        ValueError: some are missing.
    """
    known = {re.sub(r"^(generator\.)?(module\.)?", "", name): value for name, value in _generator_only(state)}
    wanted = {name: published_name(name) for name in names}
    missing = [there for there in wanted.values() if there not in known]
    if missing:
        raise ValueError(
            f"the checkpoint lacks {len(missing)} of {len(wanted)} weights ({', '.join(missing[:3])} ...), expected "
            "the generator of SPL's released code, such as a file saved by its training."
        )
    return {name: known[there] for name, there in wanted.items()}


def _generator_only(state: Mapping[str, torch.Tensor]):
    """Names and weights, without those of the discriminator and the teacher where several networks lie in one file."""
    return ((name, value) for name, value in state.items() if not name.startswith(("discriminator.", "tresnet")))


def sizes_of(state: Mapping[str, torch.Tensor]) -> dict:
    """The sizes of a generator, for `SplGenerator`, read from the shapes of the release's weights.

    Args:
        state: names as `published_state` gives them.

    Raises:
        ValueError: no such generator.
    """

    def out(name: str) -> int:
        return state[f"{name}.weight"].shape[0]

    def count(pattern: str) -> int:
        return len({m[1] for name in state if (m := re.match(pattern, name))})

    try:
        return {
            "encoder_widths": tuple(out(f"encoder_conv{k}") for k in (1, 2, 3)),
            "learner_widths": tuple(out(f"encoder_conv{k}_sm") for k in (1, 2, 3, 4)),
            "dense_blocks": count(r"rdbs\.(\d+)\."),
            "dense_layers": count(r"rdbs\.0\.layers\.(\d+)\."),
            "growth": out("rdbs.0.layers.0.conv"),
            "refining": count(r"feature_recon\.(\d+)\."),
            "injection_blocks": count(r"middle\.(\d+)\."),
            "hidden": out("middle.0.conv_block.0.mlp_shared.0"),
            "decoder_widths": (out("decoder.0") // 4, out("decoder.4") // 4),
            "teacher_channels": out("feature_mapping"),
            "enlarge": 2,
        }
    except KeyError as error:
        raise ValueError(
            f"the checkpoint has no weight {error}, expected the generator of SPL's released code."
        ) from None


def load_published(file) -> SplGenerator:
    """The generator of a checkpoint that SPL's released code has written, in evaluation; nothing in it is executed.

    Args:
        file: ``.pt`` or ``.pth``, read by PyTorch's restricted reader, or the same weights as ``.safetensors``. Sizes
            are read from the shapes.

    Raises:
        NotAvailable: there is no such file, or it cannot be read so.
        ValueError: it holds something else.

    Source: github.com/WendongZh/SPL, README: the files are for 256 x 256, masks 255 = hole, hole filled with white.

    Example:
        >>> model = load_published("x_SPL_places2.pt")
        >>> complete(model, photo, mask).image
    """
    state = read_state(file)
    plain = {re.sub(r"^(generator\.)?(module\.)?", "", name): value for name, value in _generator_only(state)}
    sizes = sizes_of(plain)
    with torch.device("meta"):
        model = SplGenerator(**sizes)
    ours = {name: value.float() for name, value in from_published(plain, model.state_dict()).items()}
    try:
        model.load_state_dict(ours, assign=True)
    except RuntimeError as error:
        raise ValueError(f"{file} holds weights of shapes that do not belong together: {error}") from None
    return model.requires_grad_(True).eval()


def read_state(file) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint by name, out of "state_dict" or "model" where they lie there.

    Raises:
        NotAvailable: no such file, damaged, or holding more than tensors and plain values.
    """
    found = read_weights(file)
    for key in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict):
        raise check.NotAvailable(f"{file} holds a {type(found).__name__}, expected a dictionary of tensors by name.")
    return {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}
