"""Answers to the exercises on latent diffusion (notebook 04), as in `answers`."""

import math

import torch

# diffusion.add_noise


def add_noise_loop(x0, noise, t, alphas_cumprod):
    out = torch.empty_like(x0)
    for k in range(len(t)):
        abar = alphas_cumprod[t[k]].item()
        out[k] = math.sqrt(abar) * x0[k] + math.sqrt(1 - abar) * noise[k]
    return out


def add_noise_einsum(x0, noise, t, alphas_cumprod):
    a = alphas_cumprod.index_select(0, t).sqrt()
    s = (1 - a.square()).sqrt()
    return torch.einsum("b,bchw->bchw", a, x0) + torch.einsum("b,bchw->bchw", s, noise)


def _noised(x0, noise, abar):
    return abar[:, None, None, None] ** 0.5 * x0 + (1 - abar[:, None, None, None]) ** 0.5 * noise


def add_noise_variances(x0, noise, t, alphas_cumprod):
    abar = alphas_cumprod[t][:, None, None, None]
    return abar * x0 + (1 - abar) * noise


def add_noise_exchanged(x0, noise, t, alphas_cumprod):
    return _noised(noise, x0, alphas_cumprod[t])


def add_noise_exploding(x0, noise, t, alphas_cumprod):
    return x0 + (1 - alphas_cumprod[t][:, None, None, None]).sqrt() * noise


def add_noise_first(x0, noise, t, alphas_cumprod):
    return _noised(x0, noise, alphas_cumprod[t[:1]])


def add_noise_width(x0, noise, t, alphas_cumprod):
    return alphas_cumprod[t].sqrt() * x0 + (1 - alphas_cumprod[t]).sqrt() * noise


def add_noise_again(x0, noise, t, alphas_cumprod):
    return _noised(x0, noise, alphas_cumprod.cumprod(0)[t])


def add_noise_off(x0, noise, t, alphas_cumprod):
    return _noised(x0, noise, alphas_cumprod[t - 1])


def add_noise_in_place(x0, noise, t, alphas_cumprod):
    abar = alphas_cumprod[t][:, None, None, None]
    return x0.mul_(abar.sqrt()).add_((1 - abar).sqrt() * noise)


def add_noise_numpy(x0, noise, t, alphas_cumprod):
    return add_noise_loop(x0, noise, t, alphas_cumprod).numpy()


# diffusion.predict_x0


def predict_x0_loop(latents, predicted, t, alphas_cumprod, prediction):
    out = []
    for x, y, step in zip(latents, predicted, t.tolist(), strict=True):
        a, s = math.sqrt(alphas_cumprod[step]), math.sqrt(1 - alphas_cumprod[step])
        out.append((x - s * y) / a if prediction == "epsilon" else a * x - s * y)
    return torch.stack(out)


def predict_x0_by_noise(latents, predicted, t, alphas_cumprod, prediction):
    a, s = _shares(t, alphas_cumprod)
    noise = s * latents + a * predicted if prediction == "v_prediction" else predicted
    return (latents - s * noise) / a


def _shares(t, alphas_cumprod):
    abar = alphas_cumprod[t].reshape(len(t), 1, 1, 1)
    return abar.sqrt(), (1 - abar).sqrt()


def predict_x0_always_noise(latents, predicted, t, alphas_cumprod, prediction):
    a, s = _shares(t, alphas_cumprod)
    return (latents - s * predicted) / a


def predict_x0_always_v(latents, predicted, t, alphas_cumprod, prediction):
    a, s = _shares(t, alphas_cumprod)
    return a * latents - s * predicted


def predict_x0_undivided(latents, predicted, t, alphas_cumprod, prediction):
    a, s = _shares(t, alphas_cumprod)
    return latents - s * predicted if prediction == "epsilon" else a * latents - s * predicted


def predict_x0_sign(latents, predicted, t, alphas_cumprod, prediction):
    a, s = _shares(t, alphas_cumprod)
    return (latents - s * predicted) / a if prediction == "epsilon" else a * latents + s * predicted


def predict_x0_noise_of_v(latents, predicted, t, alphas_cumprod, prediction):
    a, s = _shares(t, alphas_cumprod)
    return (latents - s * predicted) / a if prediction == "epsilon" else s * latents + a * predicted


def predict_x0_no_roots(latents, predicted, t, alphas_cumprod, prediction):
    a, s = (share.square() for share in _shares(t, alphas_cumprod))
    return (latents - s * predicted) / a if prediction == "epsilon" else a * latents - s * predicted


def predict_x0_first(latents, predicted, t, alphas_cumprod, prediction):
    return predict_x0_by_noise(latents, predicted, t[:1].expand(len(t)), alphas_cumprod, prediction)


def predict_x0_noise(latents, predicted, t, alphas_cumprod, prediction):
    return predicted.clone()


# diffusion.guidance


def guidance_weights(predicted, guidance_scale):
    half = len(predicted) // 2
    return (1 - guidance_scale) * predicted[:half] + guidance_scale * predicted[half:]


def guidance_lerp(predicted, guidance_scale):
    uncond, text = predicted.unflatten(0, (2, -1))
    return torch.lerp(uncond, text, guidance_scale)


def guidance_exchanged(predicted, guidance_scale):
    text, uncond = predicted.chunk(2)
    return uncond + guidance_scale * (text - uncond)


def guidance_every_second(predicted, guidance_scale):
    return torch.lerp(predicted[::2], predicted[1::2], guidance_scale)


def guidance_from_text(predicted, guidance_scale):
    uncond, text = predicted.chunk(2)
    return text + guidance_scale * (text - uncond)


def guidance_added(predicted, guidance_scale):
    uncond, text = predicted.chunk(2)
    return uncond + guidance_scale * text


def guidance_clamped(predicted, guidance_scale):
    return guidance_lerp(predicted, min(1.0, guidance_scale))


def guidance_doubled(predicted, guidance_scale):
    return guidance_lerp(predicted, guidance_scale).repeat(2, 1, 1, 1)


def guidance_channels(predicted, guidance_scale):
    uncond, text = predicted.chunk(2, dim=1)
    return torch.lerp(uncond, text, guidance_scale)


def guidance_fixed(predicted, guidance_scale):
    return guidance_lerp(predicted, 7.0)


# diffusion.nine_channels


def nine_channels_slices(latents, mask, masked_latents):
    count, _, height, width = latents.shape
    out = torch.zeros(count, 9, height, width)
    out[:, :4], out[:, 4:5], out[:, 5:] = latents, mask, masked_latents
    return out


def nine_channels_items(latents, mask, masked_latents):
    rows = []
    for k in range(len(latents)):
        rows.append(torch.cat([latents[k], mask[k % len(mask)], masked_latents[k % len(masked_latents)]]))
    return torch.stack(rows)


def _joined(*parts):
    count = max(len(part) for part in parts)
    return torch.cat([part if len(part) == count else part.repeat(count, 1, 1, 1) for part in parts], 1)


def nine_channels_mask_last(latents, mask, masked_latents):
    return _joined(latents, masked_latents, mask)


def nine_channels_picture_first(latents, mask, masked_latents):
    return _joined(masked_latents, mask, latents)


def nine_channels_mask_first(latents, mask, masked_latents):
    return _joined(mask, latents, masked_latents)


def nine_channels_turned(latents, mask, masked_latents):
    return _joined(latents, 1 - mask, masked_latents)


def nine_channels_blended(latents, mask, masked_latents):
    return _joined(torch.where(mask > 0.5, latents, masked_latents), mask, masked_latents)


def nine_channels_zeroed(latents, mask, masked_latents):
    return _joined(latents, mask, masked_latents * (1 - mask))


def nine_channels_twelve(latents, mask, masked_latents):
    return _joined(latents, mask.expand(-1, 4, -1, -1), masked_latents)


def nine_channels_first_item(latents, mask, masked_latents):
    return _joined(latents, mask[:1], masked_latents[:1])


# diffusion.mask_to_latent


def mask_to_latent_tiles(mask, factor, how):
    tiles = mask.unflatten(-1, (-1, factor)).unflatten(-3, (-1, factor))  # (B, 1, h, factor, w, factor)
    return tiles[..., 0, :, 0].contiguous() if how == "nearest" else tiles.amax((3, 5))


def mask_to_latent_loop(mask, factor, how):
    count, _, height, width = mask.shape
    out = torch.zeros(count, 1, height // factor, width // factor)
    for y in range(height // factor):
        for x in range(width // factor):
            cell = mask[..., y * factor : (y + 1) * factor, x * factor : (x + 1) * factor]
            out[..., y, x] = cell[..., 0, 0] if how == "nearest" else cell.flatten(2).max(2).values
    return out


def mask_to_latent_always_any(mask, factor, how):
    return mask_to_latent_tiles(mask, factor, "any")


def mask_to_latent_share(mask, factor, how):
    return torch.nn.functional.avg_pool2d(mask, factor)


def mask_to_latent_all(mask, factor, how):
    return (
        mask_to_latent_tiles(mask, factor, how) if how == "nearest" else 1 - mask_to_latent_tiles(1 - mask, factor, how)
    )


def mask_to_latent_majority(mask, factor, how):
    return (mask_to_latent_share(mask, factor, how) > 0.5).float()


def mask_to_latent_middle(mask, factor, how):
    if how == "any":
        return mask_to_latent_tiles(mask, factor, how)
    return mask[..., factor // 2 :: factor, factor // 2 :: factor].clone()


def mask_to_latent_turned(mask, factor, how):
    return 1 - mask_to_latent_tiles(mask, factor, how)


def mask_to_latent_eight(mask, factor, how):
    return mask_to_latent_tiles(mask, 8, how)


def mask_to_latent_bool(mask, factor, how):
    return mask_to_latent_tiles(mask, factor, how) > 0


# diffusion.composite


def composite_index(image, generated, soft_mask):
    w = soft_mask.expand_as(image)
    out, touched = image.clone(), w > 0
    out[touched] = image[touched] * (1 - w[touched]) + generated[touched] * w[touched]
    return out


def composite_sound(image, generated, soft_mask):
    painted = generated.masked_fill(soft_mask == 0, 0)
    return image * (1 - soft_mask) + painted * soft_mask


def composite_plain(image, generated, soft_mask):
    return image * (1 - soft_mask) + generated * soft_mask


def composite_exchanged(image, generated, soft_mask):
    return composite_plain(generated, image, soft_mask)


def composite_hard(image, generated, soft_mask):
    return torch.where(soft_mask > 0.5, generated, image)


def composite_added(image, generated, soft_mask):
    return image * (1 - soft_mask) + generated


def composite_bent(image, generated, soft_mask):
    return composite_plain(image, generated, soft_mask**2)


def composite_from_generated(image, generated, soft_mask):
    return generated + (1 - soft_mask) * (image - generated)


def composite_from_image(image, generated, soft_mask):
    return image + soft_mask * (generated - image)


def composite_eight_bits(image, generated, soft_mask):
    return (composite_plain(image, generated, soft_mask) * 255).round() / 255


def composite_in_place(image, generated, soft_mask):
    return image.mul_(1 - soft_mask).add_(generated * soft_mask)


RIGHT = {
    "diffusion.add_noise": [add_noise_loop, add_noise_einsum],
    "diffusion.predict_x0": [predict_x0_loop, predict_x0_by_noise],
    "diffusion.guidance": [guidance_weights, guidance_lerp],
    "diffusion.nine_channels": [nine_channels_slices, nine_channels_items],
    "diffusion.mask_to_latent": [mask_to_latent_tiles, mask_to_latent_loop],
    "diffusion.composite": [composite_index, composite_sound],
}
WRONG = {
    "diffusion.add_noise": [
        ("those are variances", add_noise_variances),
        ("Picture and noise are exchanged", add_noise_exchanged),
        ("You leave the picture as large as it was", add_noise_exploding),
        ("each has a t of its own", add_noise_first),
        ("run along the width", add_noise_width),
        ("are products already", add_noise_again),
        ("You are one step off", add_noise_off),
        ("You change what you were given", add_noise_in_place),
        ("You return a ndarray", add_noise_numpy),
    ],
    "diffusion.predict_x0": [
        ("You treat v as if it were the noise", predict_x0_always_noise),
        ("You treat the noise as if it were v", predict_x0_always_v),
        ("Divide by a", predict_x0_undivided),
        ("your sign is wrong", predict_x0_sign),
        ("s x + a v is the noise", predict_x0_noise_of_v),
        ("lack their roots", predict_x0_no_roots),
        ("You take the first t", predict_x0_first),
        ("You return the noise", predict_x0_noise),
    ],
    "diffusion.guidance": [
        ("the one without the prompt comes first", guidance_exchanged),
        ("cut it in the middle", guidance_every_second),
        ("You start from text", guidance_from_text),
        ("You add g text", guidance_added),
        ("you stop at text", guidance_clamped),
        ("You return the doubled batch", guidance_doubled),
        ("You split the channels", guidance_channels),
        ("With g = 3 your prediction is not", guidance_fixed),
    ],
    "diffusion.nine_channels": [
        ("The mask comes in the middle", nine_channels_mask_last),
        ("The masked picture comes first in yours", nine_channels_picture_first),
        ("The mask is your channel 0", nine_channels_mask_first),
        ("Your mask is turned round", nine_channels_turned),
        ("You blend the known part into the noise", nine_channels_blended),
        ("0 is no grey in latents", nine_channels_zeroed),
        ("expected 9 channels", nine_channels_twelve),
        ("item for item", nine_channels_first_item),
    ],
    "diffusion.mask_to_latent": [
        ("the top left pixel decides alone", mask_to_latent_always_any),
        ("Your cells hold shares", mask_to_latent_share),
        ("only cells that are hole throughout", mask_to_latent_all),
        ("the majority of a cell's pixels", mask_to_latent_majority),
        ("You ask the pixel in the middle", mask_to_latent_middle),
        ("Your mask is turned round", mask_to_latent_turned),
        ("For factor 4 you return shape", mask_to_latent_eight),
        ("Your mask has dtype torch.bool", mask_to_latent_bool),
    ],
    "diffusion.composite": [
        ("0 times NaN is NaN", composite_plain),
        ("You paste the photograph into the hole", composite_exchanged),
        ("Your edge is hard", composite_hard),
        ("it shines everywhere", composite_added),
        ("Between 0 and 1 yours is not", composite_bent),
        ("differ in their last bit", composite_from_generated),
        ("where w = 1 take generated itself", composite_from_image),
        ("do you pass through 8 bits", composite_eight_bits),
        ("You change what you were given", composite_in_place),
    ],
}
