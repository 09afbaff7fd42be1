"""Loads a pipeline by bundled name, hub id or folder, and says what to do where that fails.

Weights are safetensors only and no code of a model's repository is ever run.
"""

import functools
import json
import re
import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from workbench import check
from workbench.data import MODELS
from workbench.diffusion.export import CHECKSUMS, sha256
from workbench.diffusion.libraries import DiffusionPipeline, quiet

MOVED = {
    "runwayml/stable-diffusion-inpainting": "stable-diffusion-v1-5/stable-diffusion-inpainting",
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "stabilityai/stable-diffusion-2-inpainting": "sd2-community/stable-diffusion-2-inpainting",
}
"""Ids that were withdrawn from the hub -> their mirrors."""


def bundled() -> list[str]:
    """Names of the models that ship with the workbench and are here, pipelines and networks.

    Example:
        >>> bundled()
        ['tiny-classifier', 'tiny-context-encoder', ..., 'tiny-vae']
    """
    return sorted(file.parent.name for file in MODELS.glob(f"*/{CHECKSUMS}"))


def load_pipeline(name, *, device="cpu", dtype: torch.dtype | None = None):
    """A diffusers pipeline, by any of its names.

    Args:
        name: "tiny-inpaint" or "tiny-t2i", a folder in the diffusers layout, or an id of the Hugging Face hub
            (withdrawn ids are taken from their mirrors, and a warning says so).
        device: where to.
        dtype: of the weights; None takes float32.

    Returns:
        What the folder's ``model_index.json`` names, such as StableDiffusionInpaintPipeline. Its progress bar is on.

    Raises:
        NotAvailable: files are missing, damaged, or not to be had without a network; the message says what to put
            where.
        TypeError: a name that is neither a string nor a path.

    Example:
        >>> pipe = load_pipeline("tiny-inpaint")
        >>> pipe(prompt="a photo of a room", image=photo, mask_image=mask).images[0]
    """
    if not isinstance(name, (str, Path)):
        raise TypeError(f"name is a {type(name).__name__}, expected a bundled name, a folder or a hub id.")
    local = _local(name)
    if local is None:
        pipe = _from_hub(str(name))
    else:
        if not (local / "model_index.json").exists():
            raise check.NotAvailable(f"{local} has no model_index.json, expected a pipeline in the diffusers layout.")
        with quiet():
            try:
                pipe = DiffusionPipeline.from_pretrained(str(local), use_safetensors=True)
            except (OSError, ValueError, RuntimeError) as error:
                raise check.NotAvailable(f"{local} cannot be loaded as a pipeline: {error}") from error
    with quiet():
        return pipe.to(device) if dtype is None else pipe.to(device, dtype)


@functools.lru_cache(maxsize=1)
def last_loaded(name: str):
    """The pipeline last asked for by this function, kept: for methods that are called again and again."""
    return load_pipeline(name)


def find_folder(name) -> Path:
    """The folder of a bundled model or of one given as a path, its files verified.

    Raises:
        NotAvailable: there is none, or files are missing or damaged.
    """
    folder = _local(name)
    if folder is None:
        raise check.NotAvailable(f"{name!r} is neither a folder nor a bundled model: {', '.join(bundled()) or 'none'}.")
    return folder


def load_part(kind, source, part: str = ""):
    """A network of one class out of a model's folder, in evaluation; nothing is ever fetched.

    Args:
        kind: of diffusers or transformers, or of ours, with ``from_pretrained``.
        source: as in `find_folder`.
        part: the folder inside, as "unet".

    Raises:
        NotAvailable: its files are missing, damaged, or of another network; the message names the folder.
    """
    folder = find_folder(source) / part
    if not (folder / "config.json").is_file():
        raise check.NotAvailable(f"{folder} has no config.json, expected {kind.__name__}: config.json and weights.")
    with quiet():
        try:
            return kind.from_pretrained(folder, use_safetensors=True, local_files_only=True).eval()
        except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
            reason = str(error).strip().split("\n")[0]
            raise check.NotAvailable(f"{folder} cannot be loaded as {kind.__name__}: {reason}") from error


def verify(folder) -> None:
    """Compares a model's files with its list of checksums, if it has one; without, checks that weights are readable.

    Raises:
        NotAvailable: naming the first file that is missing, changed or cut short.
    """
    folder = Path(folder)
    listed = folder / CHECKSUMS
    sums = json.loads(listed.read_text()) if listed.exists() else {}
    mend = "Get it again: git checkout, or copy the folder anew."
    for name, wanted in sums.items():
        file = folder / name
        if not file.exists():
            raise check.NotAvailable(f"{file} is missing, expected as listed in {listed}. {mend}")
        if (found := sha256(file)) != wanted:
            raise check.NotAvailable(f"{file} has checksum {found[:12]}..., expected {wanted[:12]}...: damaged. {mend}")
    for file in folder.rglob("*.safetensors"):
        try:
            with safe_open(file, "pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise check.NotAvailable(f"{file} is not readable as safetensors ({error}): damaged. {mend}") from None


def _local(name) -> Path | None:
    """A verified folder, or None if the name can only be a hub id."""
    text = str(name)
    if isinstance(name, str) and text.startswith("tiny-") and not Path(text).is_dir():
        folder = MODELS / text
        if not folder.is_dir():
            raise check.NotAvailable(
                f"the bundled model {text!r} is not in {MODELS} (there: {', '.join(bundled()) or 'none'}). "
                f"Check out data/models/{text} of the repository, or train it: README.md says how."
            )
    elif Path(text).is_dir():
        folder = Path(text)
    elif isinstance(name, str) and re.fullmatch(r"[\w.-]+/[\w.-]+", text) and not text.startswith("."):
        return None
    else:
        raise check.NotAvailable(
            f"{text!r} is no bundled model ({', '.join(bundled()) or 'none'}), no folder here, and no hub id such as "
            "stable-diffusion-v1-5/stable-diffusion-inpainting."
        )
    verify(folder)
    return folder


def _from_hub(name: str):
    """A published pipeline, from the local cache or the network."""
    if name in MOVED:
        warnings.warn(f"{name} was withdrawn from the hub; its mirror {MOVED[name]} is taken.", stacklevel=3)
        name = MOVED[name]
    try:
        return DiffusionPipeline.from_pretrained(name, use_safetensors=True)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0]
        folder = name.split("/")[1]
        raise check.NotAvailable(
            f"{name} is not on this machine and could not be fetched: {reason} On a machine with a network run "
            f"hf download {name} --local-dir {folder} --include '*.json' '*.txt' '*.safetensors', copy the folder here "
            "(model_index.json and scheduler/, tokenizer/, text_encoder/, unet/, vae/ with their config.json and "
            f"*.safetensors), and load it by its path: load_pipeline('path/to/{folder}'). Or take 'tiny-inpaint'."
        ) from error
