"""What the denoiser is asked: prompts, mask and known picture, the scale of the latents."""

import torch

from workbench.stepping.causes.pair import Pair, Told
from workbench.stepping.causes.sentences import another_mask, another_scale, calls_differ, ratio_of
from workbench.stepping.causes.settings import scheduler_class, weights
from workbench.stepping.engine.guidance import guidance_parts
from workbench.stepping.engine.moment import denoiser_answers


def guided_or_not(pair: Pair) -> Told:
    """Guidance on in one run only."""
    moments = pair.moment_a, pair.moment_b
    parts = [guidance_parts(moment) for moment in moments]
    if bool(parts[0]) == bool(parts[1]):
        return None
    x, y = pair.argument("guidance_scale")
    on = "a" if parts[0] else "b"
    return f"only {on} is guided: guidance_scale is {x} in a, {y} in b.", {"guidance_scale": (x, y)}


def swapped_prompts(pair: Pair) -> Told:
    """The halves with and without the prompt changed places."""
    a, b = (denoiser_answers(m)[-1].inputs for m in (pair.moment_a, pair.moment_b))
    for name in a:
        if name.endswith("[0]"):
            other = f"{name[:-3]}[1]"
            crossed = a[name] == b.get(other) and a[other] == b.get(name)
            if crossed and a[name] != a[other]:
                return (
                    f"conditional and unconditional are swapped: {_in_words(name[:-3])} holds in b's first half what "
                    f"it holds in a's second.",
                    {"argument": name[:-3]},
                )
    return None


def prompt(pair: Pair) -> Told:
    """Other texts."""
    names = [n for n in pair.differing_arguments() if "prompt" in n]
    if names:
        values = {n: pair.argument(n) for n in names}
        told = [f"{n} {x!r} in a, {y!r} in b" for n, (x, y) in values.items()]
        return f"another prompt: {'; '.join(told)}.", {"arguments": names}
    halves = pair.differing_inputs()
    if any("encoder_hidden_states" in h for h in halves):
        return weights(pair) or (
            "the text states differ though the prompts are the same: another tokenizer, text encoder or clip_skip.",
            {"inputs": halves},
        )
    return None


def mask_channels(pair: Pair) -> Told:
    """Channels added to the latents: the mask's polarity, its edge, the known picture."""
    x, y = pair.moment_a.conditioning, pair.moment_b.conditioning
    if x is None or y is None or x.shape != y.shape or torch.equal(x, y):
        return None
    for c in range(x.shape[1]):
        p, q = x[:, c].double(), y[:, c].double()
        if not torch.equal(p, q) and (_binary(p) or _binary(q)):
            return another_mask(pair, p, q)
    ratio = ratio_of(x, y)
    known = [c for c in range(x.shape[1]) if not _binary(x[:, c])]
    ratio = ratio or (ratio_of(x[:, known], y[:, known]) if known else None)
    if ratio is not None:
        return another_scale(pair, ratio, "known picture's latents")
    names = [n for n in pair.differing_arguments() if "image" in n or "mask" in n]
    if names:
        return f"the call was given other {' and '.join(names)}.", {"arguments": names}
    return (
        "the known picture's latents differ though the pictures given are the same: the hole is blanked otherwise "
        "before encoding, or its encoding draws other noise.",
        {},
    )


def scaled_input(pair: Pair) -> Told:
    """Equal latents that reach the denoiser at another scale."""
    if pair.moment_a.scaled == pair.moment_b.scaled or not torch.equal(pair.moment_a.sample, pair.moment_b.sample):
        return None
    return scheduler_class(pair) or (
        "the same latents reach the denoiser at another scale: scale_model_input is left out or differs in one run.",
        {},
    )


def other_input(pair: Pair) -> Told:
    """Any other argument of the denoiser."""
    names = [n for n in pair.differing_inputs() if not n.endswith("]")]
    if not names:
        return None
    told = ", ".join(_in_words(n) for n in names)
    return f"the denoiser is asked with other arguments: {told}.{calls_differ(pair)}", {"inputs": names}


def _binary(x: torch.Tensor) -> bool:
    return bool(((x == 0) | (x == 1)).all())


def _in_words(name: str) -> str:
    """An argument of the denoiser; U-Nets call the latents with what is added to them a sample."""
    return {"sample": "the latents with what is added to them", "timestep": "the timestep"}.get(name, name)
