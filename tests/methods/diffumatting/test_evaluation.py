"""How green is a background: by hand; and the training-free way there."""

import math

import pytest
import torch
from skimage import color

from tests.stepping import narrow
from workbench.methods.diffumatting import (
    autoencoder_floor,
    background_delta_e,
    border_delta_e,
    gsg,
    screen_direction,
    shift_colour_noise,
)


def flat(r, g, b, size=(20, 30)):
    return torch.tensor([r, g, b]).view(1, 3, 1, 1).expand(1, 3, *size).clone()


def test_gsg_by_hand():
    image = flat(0.0, 1.0, 0.0)
    image[..., 5:12, 8:20] = 0.5  # a thing: fewer pixels than the background
    off = image.clone()
    off[:, 0][off[:, 1] == 1] = 0.3
    found = gsg(torch.cat([image, off]))
    assert found.tolist() == pytest.approx([0, 255 * 0.3], abs=1e-3)
    assert gsg(flat(1.0, 1.0, 1.0)).item() == pytest.approx(255 * math.sqrt(2), rel=1e-6)
    assert gsg(image, screen=(0.5, 0.5, 0.5), k=2).item() == pytest.approx(255 * math.sqrt(0.75), rel=1e-6)


def test_background_differences_by_hand():
    image, alpha = flat(0.0, 1.0, 0.0), torch.zeros(1, 1, 20, 30)
    image[..., :2] = torch.tensor([0.2, 0.9, 0.1]).view(1, 3, 1, 1)  # two columns of thirty are off
    image[..., 10:20] = torch.tensor([0.5, 0.7, 0.4]).view(1, 3, 1, 1)
    alpha[..., 10:20] = 1
    (found,) = background_delta_e(image, alpha)
    lab = [color.rgb2lab([[c]]) for c in ([0.2, 0.9, 0.1], [0.0, 1.0, 0.0])]
    off = color.deltaE_ciede2000(*lab).item()
    assert found.mean == pytest.approx(off * 2 / 20, rel=1e-4)
    assert found.p95 == pytest.approx(off, rel=1e-4)
    assert found.pixels == 400
    assert found.near == pytest.approx(0.9 if off > 10 else 1)
    assert found.spill == pytest.approx(0.2, abs=1e-6)
    assert found.variance > 0
    (everything,) = background_delta_e(image, torch.ones_like(alpha))  # nothing is background: the border
    assert everything.pixels == 20 * 30 - 18 * 28
    (border,) = border_delta_e(image, width=2)
    assert border.pixels == 20 * 30 - 16 * 26
    assert math.isnan(background_delta_e(image, alpha * 0)[0].spill)
    with pytest.raises(ValueError, match="width is 11, expected a whole number from 1 to 10"):
        border_delta_e(image, width=11)


def test_the_autoencoders_floor():
    vae = narrow.text_to_image().vae
    found = autoencoder_floor(vae, (32, 48))
    with torch.no_grad():
        decoded = vae.decode(vae.encode(flat(0.0, 1.0, 0.0, (32, 48)) * 2 - 1).latent_dist.mean).sample / 2 + 0.5
    (expected,) = background_delta_e(decoded.clamp(0, 1), torch.zeros(1, 1, 32, 48))
    assert found.mean == pytest.approx(expected.mean, rel=1e-5)
    assert found.pixels == 32 * 48
    direction = screen_direction(vae, (32, 48))
    assert direction.shape == (1, 4, 1, 1)


def test_shifted_noise_by_hand():
    noise = torch.randn(2, 4, 40, 60, generator=torch.Generator().manual_seed(0))
    direction = torch.tensor([0.0, 1.0, -0.5, 0.0]).view(1, 4, 1, 1)
    before = noise.clone()
    shifted = shift_colour_noise(noise, direction, target=0.11, sigma=1e-3)  # a disc of nearly nothing
    assert torch.equal(noise, before)
    assert torch.equal(shifted[:, [0, 3]], noise[:, [0, 3]])

    def share(x, channel, sense):
        return (sense * x[:, channel] > 0).float().mean((1, 2))

    torch.testing.assert_close(share(shifted, 1, 1) - share(noise, 1, 1), torch.full((2,), 0.11), atol=2e-3, rtol=0)
    torch.testing.assert_close(share(shifted, 2, -1) - share(noise, 2, -1), torch.full((2,), 0.055), atol=2e-3, rtol=0)
    moved = shift_colour_noise(noise, direction, sigma=0.5) - noise
    middle, corner = moved[0, 1, 20, 30].abs(), moved[0, 1, 0, 0].abs()
    assert middle < 0.02 * corner  # the noise in the middle stays what it was
    assert torch.equal(shift_colour_noise(noise, direction, target=0.0), noise)
    with pytest.raises(ValueError, match=r"latents are \(2, 4, 40, 60\) and direction \(1, 3, 1, 1\)"):
        shift_colour_noise(noise, direction[:, :3])
    with pytest.raises(ValueError, match="sigma is 0"):
        shift_colour_noise(noise, direction, sigma=0)
