"""Claims about attention, measured with tiny-t2i on the rendered benchmark."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from scipy.stats import spearmanr
from torch.nn import functional

from workbench import data
from workbench.claims import Claim
from workbench.image import resize
from workbench.lenses.attention import edit_attention, record_attention
from workbench.lenses.attention.hearing import probabilities
from workbench.lenses.attention.tokens import Tokens
from workbench.lenses.trials import kinds_of, latents_of, minus, model
from workbench.world.views import plural


def _named_objects() -> Iterator[tuple]:
    """(scene, noun as it is said, (H, W) bool where it is): named once in the caption, and large enough to be found."""
    for name in data.scenes():
        scene = data.scene(name)
        kinds, words = kinds_of(scene)
        caption = scene.caption.lower().replace(",", " ").split()
        for number, word in enumerate(words):
            said = [other for other in caption if other in (word, plural(word))]
            there = kinds == number
            if len(said) == 1 and 0.01 <= there.float().mean() <= 0.5:
                yield scene, said[0], there


def _looking(scene, t: int = 400, seed: int = 0):
    """A record of the U-Net looking once at a scene's target, noised to t, with its caption."""
    pipe = model()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        latents = latents_of(scene.target) * pipe.vae.config.scaling_factor
        noise = torch.randn(latents.shape, generator=generator)
        noised = pipe.scheduler.add_noise(latents, noise, torch.tensor([t]))
        states = pipe.encode_prompt(scene.caption, "cpu", 1, False)[0]
        tokens = Tokens.of_prompt(pipe.tokenizer, scene.caption)
        size = tuple(scene.target.shape[-2:])
        with record_attention(pipe.unet, kinds="cross", size=size, tokens=tokens) as record:
            pipe.unet(noised, torch.tensor(t), states)
    return record


def overlap(heat: torch.Tensor, there: torch.Tensor) -> float:
    """Intersection over union of a mask and as many of the map's highest pixels as the mask has.

    A threshold of one's own for each map would have to be chosen; with the true area given, only the place counts.
    """
    count = int(there.sum())
    chosen = torch.zeros_like(there).flatten()
    chosen[heat.flatten().topk(count).indices] = True
    chosen = chosen.view_as(there)
    return float((chosen & there).sum() / (chosen | there).sum())


def _overlaps(maps: Callable) -> dict[str, list[float]]:
    """IoU by name, one value for each named object; ``maps(record, word)`` gives {name: (H, W)}."""
    found: dict[str, list[float]] = {}
    records: dict[str, object] = {}
    for scene, word, there in _named_objects():
        record = records.get(scene.name) or records.setdefault(scene.name, _looking(scene))
        for name, heat in maps(record, word).items():
            found.setdefault(name, []).append(overlap(heat, there))
    return found


def grids() -> dict:
    """F1."""

    def maps(record, word):
        return {f"{grid[0]} x {grid[1]}": record.token_map(word, layer=grid) for grid in set(record.grids().values())}

    found = _overlaps(maps)
    other = max((name for name in found if name != "16 x 16"), key=lambda name: np.mean(found[name]))
    return {f"16 x 16 - {other}": minus(found["16 x 16"], found[other]), **found, "chance": _chance()}


def _chance() -> list[float]:
    """IoU of a map that knows nothing, by area: share / (2 - share)."""
    shares = [float(there.float().mean()) for _, _, there in _named_objects()]
    return [share / (2 - share) for share in shares]


def start_token() -> dict:
    """F2."""
    masses, alike = [], []
    for name in data.scenes():
        record = _looking(data.scene(name))
        masses.append(record.mass("start"))
    for scene, word, _ in _named_objects():
        record = _looking(scene)
        pair = [record.token_map(word, how=how).flatten().numpy() for how in ("mean", "normalised")]
        alike.append(float(np.corrcoef(*pair)[0, 1]))
    return {"mass - half": [m - 0.5 for m in masses], "mass of the start": masses, "correlation of both maps": alike}


def early_steps(steps: int = 20, early: float = 0.3, seeds: int = 12) -> dict:
    """F3."""
    prompts = ("a photo of a room with a red sofa", "a photo of a house with a green door")
    kept, changed = [], []
    at = round(early * steps)
    for seed in range(seeds):
        for own, other in (prompts, prompts[::-1]):
            whole = _layout(_switched(own, own, at, steps, seed))
            kept.append(_alike(whole, _layout(_switched(own, other, at, steps, seed))))
            changed.append(_alike(whole, _layout(_switched(other, own, at, steps, seed))))
    return {"early - late": minus(kept, changed), "early steps with the prompt": kept, "late steps": changed}


def _switched(prompt: str, later: str, at: int, steps: int, seed: int) -> torch.Tensor:
    """A picture whose prompt is exchanged after so many steps."""
    states, empty = model().encode_prompt(later, "cpu", 1, True)

    def exchange(pipe, i, t, tensors):
        return {"prompt_embeds": torch.cat([empty, states])} if i + 1 == at else {}

    call = {"num_inference_steps": steps, "output_type": "pt", "generator": torch.Generator().manual_seed(seed)}
    inputs = ["latents", "prompt_embeds"]
    return model()(prompt, callback_on_step_end=exchange, callback_on_step_end_tensor_inputs=inputs, **call).images


def _layout(image: torch.Tensor) -> torch.Tensor:
    """What is where, roughly: 8 x 8 colours, without their mean."""
    small = resize(image, (8, 8))
    return (small - small.mean((-2, -1), keepdim=True)).flatten()


def _alike(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(functional.cosine_similarity(a, b, dim=0))


def explicit() -> dict:
    """F4."""
    gaps: dict[torch.dtype, list[float]] = {torch.float32: [], torch.float16: []}
    for name in data.scenes()[::3]:
        record = _looking(data.scene(name))
        for entry in record._tape.entries.values():
            softmax = entry.softmax
            for kind, found in gaps.items():
                q, k = softmax.q.to(kind), softmax.k.to(kind)
                v = torch.randn(k.shape, generator=torch.Generator().manual_seed(0)).to(kind)
                fused = functional.scaled_dot_product_attention(q, k, v, scale=softmax.scale).float()
                open_ = probabilities(softmax.q, softmax.k, None, softmax.scale) @ v.float()
                found.append(float((fused - open_).abs().max()))
    return {
        "1e-5 - gap in float32": [1e-5 - gap for gap in gaps[torch.float32]],
        "gap in float32": gaps[torch.float32],
        "gap in float16": gaps[torch.float16],
    }


def heads(little: float = 0.05) -> dict:
    """F5: the best head is chosen on every second object and judged on the others, else it would win by luck."""

    def maps(record, word):
        layers = {name: grid for name, grid in record.grids().items() if grid == (16, 16)}
        found = {"mean": record.token_map(word, layer=list(layers))}
        for layer in layers:
            count = next(e.heads for e in record._tape.entries.values() if e.layer == layer)
            found |= {f"{layer} head {h}": record.token_map(word, layer=layer, head=h) for h in range(count)}
        return found

    found = _overlaps(maps)
    best = max((name for name in found if name != "mean"), key=lambda name: np.mean(found[name][::2]))
    lost = minus(found[best][1::2], found["mean"][1::2])
    return {f"{little:g} - IoU lost": [little - x for x in lost], "mean": found["mean"][1::2], best: found[best][1::2]}


def damage(seeds: int = 24, steps: int = 15) -> dict:
    """F8: rank correlation, for each prompt, of the words' attention mass and of what taking them away changes."""
    colours, things = ("red", "blue", "green", "yellow"), ("ball", "sofa", "cube", "table", "lamp", "plant")
    correlations = []
    for seed in range(seeds):
        prompt = f"a photo of a room with a {colours[seed % 4]} {things[seed % 6]} on a wooden floor"
        call = {"num_inference_steps": steps, "output_type": "pt"}
        words = [word for word in prompt.split() if word not in ("a", "of", "with", "on")]
        with record_attention(model(), kinds="cross", keep="tokens") as record:
            whole = model()(prompt, **call, generator=torch.Generator().manual_seed(seed)).images
        masses = [float(record.token_map(word, stretch=False).mean()) for word in words]
        harms = []
        for word in words:
            with edit_attention(model(), word, 0.0):
                without = model()(prompt, **call, generator=torch.Generator().manual_seed(seed)).images
            harms.append(float((without - whole).square().mean()))
        correlations.append(float(spearmanr(masses, harms).statistic))
    return {"rank correlation": correlations}


_DAAM = "Tang et al., ACL 2023 (DAAM)"
CLAIMS = (
    Claim("F1", "Maps of 16 x 16 find a noun's object best.", _DAAM,
          "Targets of the benchmark, noised to t = 400, seen with their captions; IoU of a noun's map, cut at the "
          "object's true area, with its ids.", grids),
    Claim("F2", "The start token takes most of the attention.", "common knowledge; Hertz et al., ICLR 2023",
          "As F1: mass of the start token, mean over all layers and places; beside it, how alike the map of a noun and "
          "its normalised form are.", start_token),
    Claim("F3", "Early steps fix the layout.", "Hertz et al., ICLR 2023",
          "Two prompts, 12 seeds, 20 steps: a run that has its prompt in the first 30 % of the steps only, and one "
          "that has it in the others only, against the run that has it throughout: cosine of 8 x 8 pictures.",
          early_steps),
    Claim("F4", "An explicit softmax equals fused attention in float32.", "PyTorch's documentation",
          "Queries and keys of tiny-t2i's layers, normal values: largest absolute difference, claim: at most 1e-5.",
          explicit),
    Claim("F5", "The mean over heads loses little against the best head.", _DAAM,
          "As F1, on 16 x 16; the best head is chosen on one half of the objects, judged on the other. Little: 0.05.",
          heads),
    Claim("F8", "A word's attention mass tells the damage of removing it.", "ours",
          "24 prompts with 6 words each, 15 steps: rank correlation of mass and mean squared change of the picture.",
          damage),
)  # fmt: skip
