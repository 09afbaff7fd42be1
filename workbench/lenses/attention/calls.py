"""What one call of a denoiser is about: the step, the rows of the batch, the grid of places, the prompts.

The network's arguments tell the sizes. All else is read, never written, from the variables of the pipeline's call
that is under way, so that nothing has to be told twice and a pipeline of one's own works too.
"""

import functools
import inspect
import math
import sys
from dataclasses import dataclass, field

import torch

Grid = tuple[int, int]
_signature = functools.lru_cache(inspect.signature)  # the same for every step


@dataclass
class Call:
    """One call of a denoiser.

    Args:
        step: of the pipeline's loop, from 1; None where no loop is seen.
        pictures: how many are made at once.
        rows: of the batch, by part: "text" (with the prompt), "uncond" (without, or with the negative one), ...
        grids: those that the picture's places may form, the finest first; each {"image": (h, w)} and, for a picture
            given as part of the sequence, "reference".
        text: length of the conditioning; None without.
        size: (H, W) of the picture in pixels; None where nobody tells.
        prompts: for each part the pipeline's tokenizers, each with the pictures' prompts; empty where nobody tells.
        sequence: length that a long prompt is brought to, where the call says.
        unet: whether the denoiser is a U-Net, which looks at the first tokenizer's prompt only.
    """

    step: int | None
    pictures: int
    rows: dict[str, slice]
    grids: list[dict[str, Grid]]
    text: int | None
    size: Grid | None
    prompts: dict[str, list[tuple[object, list[str]]]] = field(default_factory=dict)
    sequence: int | None = None
    unet: bool = False

    def grid(self, places: int) -> dict[str, Grid] | None:
        """The grids that so many places are made of: None where they are no picture."""
        return next((g for g in self.grids if sum(math.prod(shape) for shape in g.values()) == places), None)


def call_of(module: torch.nn.Module, args: tuple, kwargs: dict, pipe=None) -> Call:
    """What a denoiser is being called for; to be asked from inside the call.

    Args:
        module: the denoiser.
        args, kwargs: what it was called with.
        pipe: the pipeline it is known to belong to, where none is seen calling.
    """
    given = _signature(type(module).forward).bind_partial(module, *args, **kwargs).arguments
    sample = next((v for v in given.values() if isinstance(v, torch.Tensor) and v.ndim), None)
    if sample is None:
        raise TypeError(f"{type(module).__name__} was called without a tensor, expected latents or tokens first.")
    text = given.get("encoder_hidden_states")
    text = text if isinstance(text, torch.Tensor) and text.ndim == 3 else None
    seen = _calling()
    pipe = seen.get("self", pipe)
    grids = _grids(module, sample, given)
    latents = seen.get("latents")
    pictures = len(latents) if isinstance(latents, torch.Tensor) and len(sample) % len(latents) == 0 else len(sample)
    return Call(
        step=_step(seen, pipe),
        pictures=pictures,
        rows=_rows(len(sample) // pictures, pictures, text, seen),
        grids=grids,
        text=None if text is None else text.shape[1],
        size=_size(pipe, sample, grids),
        prompts={"text": _prompts(pipe, seen, "", pictures), "uncond": _prompts(pipe, seen, "negative_", pictures)},
        sequence=seen.get("max_sequence_length"),
        unet=hasattr(pipe, "unet"),
    )


def _calling() -> dict:
    """Variables of the pipeline's call that is under way; empty outside of one."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "__call__":  # asked first: each frame's variables are gathered anew
            variables = frame.f_locals
            owner = variables.get("self")
            if hasattr(type(owner), "components") and not isinstance(owner, torch.nn.Module):
                return dict(variables)
        frame = frame.f_back
    return {}


def _step(seen: dict, pipe) -> int | None:
    """From the loop's counter; without one, from where the timestep stands among all."""
    if isinstance(seen.get("i"), int):
        return seen["i"] + 1
    t, timesteps = seen.get("t"), getattr(getattr(pipe, "scheduler", None), "timesteps", None)
    if t is None or timesteps is None:
        return None
    places = [place for place, other in enumerate(timesteps) if float(other) == float(t)]
    return places[0] + 1 if places else None


def _rows(times: int, pictures: int, text: torch.Tensor | None, seen: dict) -> dict[str, slice]:
    """Which rows of the batch are which part of the guidance."""
    negative = seen.get("negative_prompt_embeds")

    def is_negative(row: int) -> bool:
        known = isinstance(negative, torch.Tensor) and text is not None and negative.shape[1:] == text.shape[1:]
        return known and torch.equal(text[row], negative[0].to(text))

    if times == 1:
        parts = ["uncond"] if is_negative(0) else ["text"]
    elif times == 2:
        reverse = "class_labels" in seen or (is_negative(pictures) and not is_negative(0))
        parts = ["text", "uncond"] if reverse else ["uncond", "text"]
    elif times == 3 and "image_guidance_scale" in seen:  # InstructPix2Pix
        parts = ["text", "image", "uncond"]
    else:  # what comes after both halves is perturbed on purpose
        parts = ["uncond", "text", *(f"other{n}" for n in range(1, times - 1))]
    return {part: slice(n * pictures, (n + 1) * pictures) for n, part in enumerate(parts)}


def _grids(module, sample: torch.Tensor, given: dict) -> list[dict[str, Grid]]:
    """Grids by exact size: halved as strided convolutions halve, ceil(n / 2), or as position ids have it."""
    if sample.ndim == 4:  # (B, C, h, w)
        patch = getattr(getattr(module, "config", None), "patch_size", None) or 1
        patch = patch if isinstance(patch, int) else patch[-1]
        h, w = (math.ceil(n / patch) for n in sample.shape[-2:])
        found = [(h, w)]
        while found[-1] != (1, 1):
            found.append(tuple(math.ceil(n / 2) for n in found[-1]))
        return [{"image": grid} for grid in found]
    grids = []
    ids, shapes = given.get("img_ids"), given.get("img_shapes")
    if isinstance(ids, torch.Tensor):  # Flux: (n, 3), or (B, n, 3): which picture, row, column
        ids = ids[0] if ids.ndim == 3 else ids
        for which in ids[:, 0].unique_consecutive():
            own = ids[ids[:, 0] == which]
            spans = own[:, -2:].amax(0) - own[:, -2:].amin(0) + 1
            grids.append((int(spans[0]), int(spans[1])))
    elif shapes:  # Qwen: (frames, h, w) of each picture
        nested = isinstance(shapes[0], (list, tuple)) and isinstance(shapes[0][0], (list, tuple))
        shapes = shapes[0] if nested else shapes  # those of the first item
        grids = [tuple(shape[-2:]) for shape in shapes]
    names = ["image", "reference", *(f"reference{n}" for n in range(2, len(grids)))]
    return [dict(zip(names, grids, strict=False))] if grids else []


def _size(pipe, sample: torch.Tensor, grids: list[dict[str, Grid]]) -> Grid | None:
    """The picture's size in pixels: what is given to the denoiser times the factor that the pipeline states."""
    if sample.ndim == 4:
        names = ("vae_scale_factor", "movq_scale_factor")
        factor = next((getattr(pipe, name) for name in names if hasattr(pipe, name)), None)
        if factor is None:
            blocks = getattr(getattr(getattr(pipe, "vae", None), "config", None), "block_out_channels", (1,))
            factor = 2 ** (len(blocks) - 1)
        return None if pipe is None else tuple(n * factor for n in sample.shape[-2:])
    config = getattr(getattr(pipe, "image_processor", None), "config", None) or {}
    factor = config.get("vae_scale_factor")
    return tuple(n * factor for n in grids[0]["image"]) if factor and grids else None


def _prompts(pipe, seen: dict, kind: str, pictures: int) -> list[tuple[object, list[str]]]:
    """Each tokenizer with the prompt of each picture; empty where the call has embeddings only."""
    found, first = [], None
    for suffix in ("", "_2", "_3"):
        given = seen.get(f"{kind}prompt{suffix}")
        given = first if given is None else given
        if given is None and kind and seen.get("prompt") is not None:
            given = ""  # what pipelines take where there is no negative prompt
        if given is None:
            return []
        first = given if first is None else first
        tokenizer = getattr(pipe, f"tokenizer{suffix}", None)
        if callable(tokenizer):
            given = [given] if isinstance(given, str) else given
            given = [_spelled(pipe, tokenizer, text) for text in given]
            found.append((tokenizer, [given[n * len(given) // pictures] for n in range(pictures)]))
    return found


def _spelled(pipe, tokenizer, prompt: str) -> str:
    """With a learned word that stands for several tokens (textual inversion) written out."""
    if any(token in prompt for token in getattr(tokenizer, "added_tokens_encoder", ())):
        return getattr(pipe, "maybe_convert_prompt", lambda text, _: text)(prompt, tokenizer)
    return prompt
