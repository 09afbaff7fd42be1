"""Exercises of notebook 04: the formulas round a denoiser, its nine channels, and putting the kept pixels back."""

import torch
import torch.nn.functional as F

from workbench import mask as masks
from workbench.labs import Exercise, call, expect, expect_tensor


def add_noise(x0: torch.Tensor, noise: torch.Tensor, t: torch.Tensor, alphas_cumprod: torch.Tensor) -> torch.Tensor:
    """Clean latents with noise, each item at a level of its own.

    x_t = a x0 + s noise, a = sqrt(abar_t), s = sqrt(1 - abar_t)

    Args:
        x0, noise: (B, 4, h, w).
        t: (B,) int64, timesteps 0 to 999.
        alphas_cumprod: (1000,), abar of all timesteps.

    Returns:
        (B, 4, h, w).
    """
    signal = alphas_cumprod[t].view(-1, 1, 1, 1)  # (B, 1, 1, 1)
    return signal.sqrt() * x0 + (1 - signal).sqrt() * noise


def _test_add_noise(answer) -> None:
    x0, noise = _numbers(0, 2, 3, 4, 5, 3)  # as wide as the batch: numbers that run along the width fit, and are found
    t, table = torch.tensor([20, 400, 930]), _abar()
    before = x0.clone(), noise.clone(), t.clone(), table.clone()
    got = call(answer, x0, noise, t, table)
    _tensor(got, x0.shape)
    _untouched(before, (x0, noise, t, table))
    signal = table[t].view(-1, 1, 1, 1)

    def like(share, of_noise) -> bool:
        return torch.allclose(got, share * x0 + of_noise * noise, atol=1e-4)

    a, s = signal.sqrt(), (1 - signal).sqrt()
    expect(not like(signal, 1 - signal), "Your weights are abar and 1 - abar: those are variances. Take their roots.")
    expect(not like(s, a), "Picture and noise are exchanged: at t = 0 nearly all is picture, and abar is nearly 1.")
    expect(not like(1, s), "You leave the picture as large as it was, expected a x0: variances add up to 1.")
    expect(
        not like(a[:1], s[:1]) and not like(a.mean(), s.mean()),
        "All items of the batch get the same level: each has a t of its own.",
    )
    expect(
        not like(a.view(3), s.view(3)),
        "Your weights (B,) run along the width, the last dimension: make them (B, 1, 1, 1). It is only by chance that "
        "they fit.",
    )
    again = table.cumprod(0)[t].view(-1, 1, 1, 1)
    expect(
        not like(again.sqrt(), (1 - again).sqrt()), "You multiply up once more: alphas_cumprod are products already."
    )
    for shift in (-1, 1):
        other = table[t + shift].view(-1, 1, 1, 1)
        close = torch.allclose(got, other.sqrt() * x0 + (1 - other).sqrt() * noise, atol=1e-6)
        expect(not close, "You are one step off: alphas_cumprod[t] belongs to timestep t.")
    expect(
        torch.allclose(got, add_noise(*before), atol=1e-5), "Your x_t is not a x0 + s noise with the a and s of each t."
    )


def predict_x0(
    latents: torch.Tensor, predicted: torch.Tensor, t: torch.Tensor, alphas_cumprod: torch.Tensor, prediction: str
) -> torch.Tensor:
    """The clean latents that follow from what a denoiser says.

    x0 = (x - s e) / a where it says the noise e; x0 = a x - s v where it says v = a e - s x0

    Args:
        latents: x, with noise, (B, 4, h, w).
        predicted: e or v, the same shape.
        t: (B,) int64.
        alphas_cumprod: (1000,), abar of all timesteps; a = sqrt(abar_t), s = sqrt(1 - abar_t).
        prediction: "epsilon" or "v_prediction", which of the two it says.

    Returns:
        (B, 4, h, w).
    """
    signal = alphas_cumprod[t].view(-1, 1, 1, 1)  # (B, 1, 1, 1)
    a, s = signal.sqrt(), (1 - signal).sqrt()
    return a * latents - s * predicted if prediction == "v_prediction" else (latents - s * predicted) / a


def _test_predict_x0(answer) -> None:
    x0, noise = _numbers(1, 2, 2, 4, 6, 5)
    t, table = torch.tensor([60, 700]), _abar()
    signal = table[t].view(-1, 1, 1, 1)
    a, s = signal.sqrt(), (1 - signal).sqrt()
    x, v = a * x0 + s * noise, a * noise - s * x0
    for prediction, said in (("epsilon", noise), ("v_prediction", v)):
        given = x.clone(), said.clone(), t.clone(), table.clone()
        got = call(answer, *given, prediction)
        _tensor(got, x0.shape)
        _untouched((x, said, t, table), given)

        def like(other, got=got) -> bool:
            return torch.allclose(got, other, atol=1e-3)

        if prediction == "epsilon":
            expect(
                not like(a * x - s * said),
                "You treat the noise as if it were v: for 'epsilon' it is (x - s e) / a.",
            )
            expect(not like(x - s * said), "You take the noise away and stop: what is left is a x0. Divide by a.")
        else:
            expect(
                not like((x - s * said) / a),
                "You treat v as if it were the noise: for 'v_prediction' it is a x - s v.",
            )
            expect(not like(a * x + s * said), "For v your sign is wrong: x0 = a x - s v.")
            expect(not like(s * x + a * said), "s x + a v is the noise; the picture is a x - s v.")
        squares = (x - (1 - signal) * said) / signal, signal * x - (1 - signal) * said
        expect(not any(map(like, squares)), "Your a and s lack their roots: a = sqrt(abar), s = sqrt(1 - abar).")
        firsts = (x - s[:1] * said) / a[:1], a[:1] * x - s[:1] * said
        expect(not any(map(like, firsts)), "You take the first t for the whole batch: each item has one of its own.")
        expect(not like(noise), "You return the noise, expected the picture.")
        expect(like(x0), f"For prediction={prediction!r} your x0 is not the one that x was made from.")


def guidance(predicted: torch.Tensor, guidance_scale: float) -> torch.Tensor:
    """Classifier-free guidance of a prediction for a doubled batch.

    uncond + g (text - uncond)

    Args:
        predicted: (2 B, 4, h, w), as diffusers has it: first all items without the prompt, then all with it.
        guidance_scale: g.

    Returns:
        (B, 4, h, w).
    """
    uncond, text = predicted.chunk(2)
    return uncond + guidance_scale * (text - uncond)


def _test_guidance(answer) -> None:
    for g in (3.0, 7.5, 0.0):
        predicted = _numbers(2, 6, 4, 5, 8)
        before = predicted.clone()
        got = call(answer, predicted, g)
        expect_tensor(got)
        expect(
            got.shape != predicted.shape,
            "You return the doubled batch, expected (B, 4, h, w): the two halves become one.",
        )
        expect(
            got.shape != (6, 2, 5, 8),
            "You split the channels: chunk along dimension 0, where the two halves of the batch are.",
        )
        _tensor(got, (3, 4, 5, 8))
        _untouched((before,), (predicted,))
        uncond, text = before.chunk(2)

        def like(other, got=got) -> bool:
            return torch.allclose(got, other, atol=1e-4)

        if like(guidance(before, g)):
            continue
        expect(
            not like(text + g * (uncond - text)),
            "The halves are exchanged: in diffusers the one without the prompt comes first.",
        )
        even, odd = before[::2], before[1::2]
        expect(
            not like(even + g * (odd - even)),
            "You take every second item; the batch is [all without, all with], so cut it in the middle.",
        )
        expect(
            not like(text + g * (text - uncond)),
            "You start from text: then g = 0 would mean the prompt. Start from uncond, and g = 1 is the prompt.",
        )
        expect(not like(uncond + g * text), "You add g text: only the difference text - uncond is what the words say.")
        expect(
            not like(text),
            f"With g = {g:g} you stop at text: guidance goes on beyond it, do not clamp.",
        )
        expect(False, f"With g = {g:g} your prediction is not uncond + g (text - uncond).")


def nine_channels(latents: torch.Tensor, mask: torch.Tensor, masked_latents: torch.Tensor) -> torch.Tensor:
    """What the U-Net of Stable Diffusion's inpainting model takes.

    Args:
        latents: with noise, (B, 4, h, w).
        mask: on the latent grid, (B, 1, h, w), or (1, 1, h, w) for all items; 1 = repaint.
        masked_latents: of the picture without its hole, (B, 4, h, w), or (1, 4, h, w) for all items.

    Returns:
        (B, 9, h, w): latents, mask, masked_latents.
    """
    count = len(latents)
    return torch.cat([latents, mask.expand(count, -1, -1, -1), masked_latents.expand(count, -1, -1, -1)], 1)


def _test_nine_channels(answer) -> None:
    for items in (3, 1):
        latents, masked = _numbers(3, 2, 3, 4, 6, 10)
        masked = masked[:items]
        mask = torch.cat([masks.box((6, 10), (2 + k, 1, 6 + k, 4 + k)) for k in range(items)])
        before = latents.clone(), mask.clone(), masked.clone()
        got = call(answer, latents, mask, masked)
        expect_tensor(got)
        expect(
            got.ndim == 4 and got.shape[1] == 9,
            f"You return shape {tuple(got.shape)}, expected 9 channels: 4 + 1 + 4, joined along dimension 1.",
        )
        _tensor(got, (3, 9, 6, 10))
        _untouched(before, (latents, mask, masked))
        mask, masked = mask.expand(3, -1, -1, -1), masked.expand(3, -1, -1, -1)

        def like(*parts, got=got) -> bool:
            return torch.equal(got, torch.cat(parts, 1))

        expect(not like(latents, masked, mask), "The mask comes in the middle: noise, mask, masked picture.")
        expect(
            not like(masked, mask, latents),
            "The masked picture comes first in yours: the noisy latents are channels 0 to 3.",
        )
        expect(not like(mask, latents, masked), "The mask is your channel 0, expected channel 4.")
        expect(not like(latents, 1 - mask, masked), "Your mask is turned round: 1 = repaint, here as in the picture.")
        expect(
            not like(latents * mask + masked * (1 - mask), mask, masked),
            "You blend the known part into the noise: this model is shown it in channels 5 to 8 and needs no blending.",
        )
        expect(
            not like(latents, mask, masked * (1 - mask)),
            "You set masked_latents to 0 in the hole: 0 is no grey in latents. The hole was cut out before encoding.",
        )
        expect(
            like(latents, mask, masked),
            "Your channels are not latents, mask and masked_latents, item for item."
            + (" Here one mask and one picture serve all items." if items == 1 else ""),
        )


def mask_to_latent(mask: torch.Tensor, factor: int, how: str) -> torch.Tensor:
    """The mask on the latent grid, a cell for factor x factor pixels.

    Args:
        mask: (B, 1, H, W), 0 or 1, float32; H and W are multiples of ``factor``.
        factor: pixels a cell and side.
        how: "nearest": the top left pixel of the cell decides; "any": one hole pixel anywhere in it is enough.

    Returns:
        (B, 1, H / factor, W / factor), 0 or 1, float32.
    """
    return mask[..., ::factor, ::factor].clone() if how == "nearest" else F.max_pool2d(mask, factor)


def _test_mask_to_latent(answer) -> None:
    size = (24, 48)
    mask = torch.cat([masks.box(size, (3, 6, 22, 15)), masks.ellipse(size, (20, 2, 45, 21))])
    mask[1, 0, 22, 1] = 1  # a speck
    for factor, how in ((4, "nearest"), (4, "any"), (8, "any"), (2, "nearest")):
        given = mask.clone()
        got = call(answer, given, factor, how)
        expect_tensor(got)
        cells = (2, 1, size[0] // factor, size[1] // factor)
        expect(
            got.shape == cells, f"For factor {factor} you return shape {tuple(got.shape)}, expected {cells}: (h, w)."
        )
        expect(got.dtype == torch.float32, f"Your mask has dtype {got.dtype}, expected torch.float32.")
        _untouched((mask,), (given,))
        share = F.avg_pool2d(mask, factor)
        expect(
            set(got.unique().tolist()) <= {0, 1},
            "Your cells hold shares between 0 and 1, expected a hard mask: each cell is hole or it is not.",
        )
        first, some = mask_to_latent(mask, factor, "nearest"), mask_to_latent(mask, factor, "any")
        right, other = (first, some) if how == "nearest" else (some, first)
        if torch.equal(got, right):
            continue
        expect(not torch.equal(got, 1 - right), "Your mask is turned round: 1 = hole, on both grids.")
        expect(
            not torch.equal(got, other),
            f"For how={how!r} you mark {int(other.sum())} cells, expected {int(right.sum())}: "
            + ("the top left pixel decides alone." if how == "nearest" else "one hole pixel anywhere is enough."),
        )
        expect(
            not torch.equal(got, (share == 1).float()),
            f"For how={how!r} you mark only cells that are hole throughout.",
        )
        expect(
            not torch.equal(got, (share > 0.5).float()) and not torch.equal(got, (share >= 0.5).float()),
            f"For how={how!r} you let the majority of a cell's pixels decide.",
        )
        middle = mask[..., factor // 2 :: factor, factor // 2 :: factor]
        expect(
            not torch.equal(got, middle), "You ask the pixel in the middle, expected the top left one, as diffusers."
        )
        expect(False, f"For how={how!r} you mark {int(got.sum())} cells, expected {int(right.sum())}.")


def composite(image: torch.Tensor, generated: torch.Tensor, soft_mask: torch.Tensor) -> torch.Tensor:
    """Puts the kept pixels back over what was painted.

    result = image (1 - w) + generated w; image itself, to the bit, where w = 0, and generated itself where w = 1

    Args:
        image: (B, 3, H, W).
        generated: (B, 3, H, W); where w = 0 it may be anything, NaN too.
        soft_mask: w, (B, 1, H, W) in [0, 1], 1 = hole.

    Returns:
        (B, 3, H, W).
    """
    mixed = torch.where(soft_mask == 1, generated, image * (1 - soft_mask) + generated * soft_mask)
    return torch.where(soft_mask == 0, image, mixed)


def _test_composite(answer) -> None:
    image, generated = _numbers(4, 2, 2, 3, 20, 28).sigmoid()  # rand's own numbers are too round to lose a last bit
    mask = torch.cat([masks.box((20, 28), (8, 6, 16, 13)), masks.ellipse((20, 28), (6, 4, 20, 16))])
    w = masks.feather(mask, 3)
    kept, hole, rim = ((x).expand_as(image) for x in (w == 0, w == 1, (w > 0) & (w < 1)))
    before = image.clone(), generated.clone(), w.clone()
    got = call(answer, image, generated, w)
    _tensor(got, image.shape)
    _untouched(before, (image, generated, w))
    right = composite(*before)

    def like(other) -> bool:
        return torch.allclose(got, other, atol=1e-3)

    expect(
        not like(generated * (1 - w) + image * w), "You paste the photograph into the hole: w = 1 means hole, painted."
    )
    expect(
        not any(like(torch.where(limit, generated, image)) for limit in (w > 0.5, w > 0, w == 1)),
        "Your edge is hard: between 0 and 1 the weight mixes the two.",
    )
    expect(not like(image * (1 - w) + generated), "What was painted is not multiplied by w: it shines everywhere.")
    expect(torch.allclose(got[rim], right[rim], atol=0.01), "Between 0 and 1 yours is not image (1 - w) + generated w.")
    same = torch.equal(got[kept], image[kept])
    off = int((got[kept] != image[kept]).sum())
    expect(
        same or (got[kept] - image[kept]).abs().max() > 1e-6,
        f"{off} kept numbers differ in their last bit: generated + (1 - w) (image - generated) rounds. Where w = 0 "
        "take image itself.",
    )
    expect(
        same,
        f"{off} of {int(kept.sum())} kept numbers are not bit-equal to the photograph's: do you pass through 8 bits, "
        "or blur once more?",
    )
    expect(
        torch.equal(got[hole], generated[hole]),
        "In the hole some numbers differ from what was painted, if only in the last bit: where w = 1 take generated "
        "itself.",
    )
    expect(torch.allclose(got, right, atol=1e-5), "Your mixture is not that of the formula.")
    broken = torch.where(kept, torch.nan, generated)
    got = call(answer, image, broken, w)
    expect(
        torch.equal(got[kept], image[kept]),
        "0 times NaN is NaN: one broken number outside the hole, and a kept pixel is gone. There choose by "
        "torch.where.",
    )


def _numbers(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _abar() -> torch.Tensor:
    """alphas_cumprod of Stable Diffusion's scaled-linear schedule, (1000,)."""
    return (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2).cumprod(0)


def _tensor(got, shape) -> None:
    expect_tensor(got)
    expect(got.shape == tuple(shape), f"You return shape {tuple(got.shape)}, expected {tuple(shape)}.")


def _untouched(before, after) -> None:
    same = all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    expect(same, "You change what you were given; work on copies.")


EXERCISES = (
    Exercise("diffusion.add_noise", add_noise, _test_add_noise),
    Exercise("diffusion.predict_x0", predict_x0, _test_predict_x0),
    Exercise("diffusion.guidance", guidance, _test_guidance),
    Exercise("diffusion.nine_channels", nine_channels, _test_nine_channels),
    Exercise("diffusion.mask_to_latent", mask_to_latent, _test_mask_to_latent),
    Exercise("diffusion.composite", composite, _test_composite),
)
