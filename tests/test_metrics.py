"""Metrics against values worked out by hand and against independent implementations."""

import math
import sys
import types

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage import metrics as independent

from workbench import check, metrics
from workbench import mask as masks


@pytest.fixture
def noisy(photo):
    noise = torch.randn(photo.shape, generator=torch.Generator().manual_seed(0))
    return (photo + 0.1 * noise).clamp(0, 1)


# pictures


def test_errors_by_hand(photo, hole):
    photo = photo * 0.5
    result = photo.clone()
    result[..., 5:11, 12:21] += 0.1  # the whole hole is off by 0.1 ...
    result[..., 0, 0] += 0.3  # ... and one kept pixel by 0.3
    assert metrics.mean_l1(result, photo, hole).item() == pytest.approx(0.1)
    assert metrics.mean_l2(result, photo, hole).item() == pytest.approx(0.01)
    assert metrics.psnr(result, photo, hole).item() == pytest.approx(20)
    assert metrics.mean_l1(result, photo, hole, "keep").item() == pytest.approx(0.3 / (560 - 54))
    assert metrics.mean_l2(result, photo).item() == pytest.approx((54 * 0.01 + 0.09) / 560)
    assert metrics.mean_l1(result, photo, hole, "border").item() == pytest.approx(
        0.1 * (masks.border(hole, 3) * hole).sum().item() / masks.border(hole, 3).sum().item()
    )


def test_one_channel_counts_a_third(photo, hole):
    result = photo * 0.5
    result[:, 1] += 0.3
    assert metrics.mean_l1(result, photo * 0.5, hole).item() == pytest.approx(0.1)


def test_identical_pictures(photo, hole):
    for where in metrics.REGIONS:
        assert metrics.psnr(photo, photo, hole, where).item() == math.inf
        assert metrics.ssim(photo, photo, hole, where).item() == pytest.approx(1)
        assert metrics.gradient_similarity(photo, photo, hole, where).item() == pytest.approx(1)
        assert metrics.delta_e(photo, photo, hole, where).item() == 0


def test_batches_hold_each_item_s_own_value(photo, noisy, hole):
    both = metrics.psnr(torch.cat([noisy, photo]), torch.cat([photo, noisy.flip(3)]), torch.cat([hole, hole.flip(3)]))
    assert both.shape == (2,)
    assert both[0] == metrics.psnr(noisy, photo, hole)
    assert both[1] == metrics.psnr(photo, noisy.flip(3), hole.flip(3))
    assert both[0] != both[1]


def test_whole_picture_agrees_with_scikit_image(photo, noisy):
    a, b = (x[0].permute(1, 2, 0).double().numpy() for x in (noisy, photo))
    assert metrics.psnr(noisy, photo).item() == pytest.approx(independent.peak_signal_noise_ratio(b, a, data_range=1))
    _, full = independent.structural_similarity(
        a, b, channel_axis=-1, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    inner = masks.box((20, 28), (5, 5, 23, 15))  # away from the frame, where the two pad differently
    ours = metrics.ssim(noisy, photo, inner).item()
    assert ours == pytest.approx(full[5:15, 5:23].mean(), abs=1e-4)


def test_delta_e_of_black_and_white_is_100():
    black, white = torch.zeros(1, 3, 4, 6), torch.ones(1, 3, 4, 6)
    assert metrics.delta_e(black, white).item() == pytest.approx(100, abs=0.1)


def test_gradient_similarity_by_hand():
    """One vertical edge of height h has Prewitt magnitude h beside it; against a flat picture: c / (h^2 + c)."""
    edge, flat = torch.zeros(1, 3, 6, 8), torch.zeros(1, 3, 6, 8)
    edge[..., 4:] = 0.5
    beside = masks.box((6, 8), (3, 0, 5, 6))
    assert metrics.gradient_similarity(edge, flat, beside).item() == pytest.approx(0.0026 / (0.25 + 0.0026), rel=1e-4)


def test_gradient_similarity_finds_blur(photo, noisy, hole):
    blurred = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(noisy, (2, 2, 2, 2), mode="reflect"), 5, 1)
    assert metrics.gradient_similarity(blurred, noisy, hole) < 0.9


def test_seam_error_by_hand(hole):
    flat = torch.full((1, 3, 20, 28), 0.4)
    assert metrics.seam_error(flat, mask=hole).item() == 0
    assert metrics.seam_error(flat + 0.25 * hole, mask=hole).item() == pytest.approx(0.25)
    ramp = torch.linspace(0, 0.5, 28).expand(1, 3, 20, 28)
    assert metrics.seam_error(ramp, mask=hole).item() < 0.01  # a slope is no seam


def test_seam_error_sees_a_seam_in_texture(noisy, hole):
    good = metrics.seam_error(noisy, mask=hole)
    assert metrics.seam_error((noisy + 0.3 * hole).clamp(0, 1), mask=hole) > good + 0.1


@pytest.mark.parametrize("name", metrics.METRICS)
def test_metrics_refuse(name, photo, hole):
    metric = metrics.METRICS[name]
    with pytest.raises(TypeError, match="result is a ndarray"):
        metric(photo.numpy(), photo, hole)
    with pytest.raises(ValueError, match=r"\(20, 28\)|mask is"):
        metric(photo, photo, hole[..., :10, :])
    with pytest.raises(ValueError, match=r"empty|no edge"):
        metric(photo, photo, torch.zeros_like(hole))
    if name != "seam_error":
        with pytest.raises(ValueError, match="expected the same"):
            metric(photo, photo[..., :10], hole)
        with pytest.raises(ValueError, match="hole, border, keep, all"):
            metric(photo, photo, hole, "inside")


# the table


def test_compare(photo, noisy, hole):
    table = metrics.compare(
        {"noisy": noisy, "same": photo}, photo, hole, metrics=("psnr", "ssim keep", "mean_l1 border", "seam_error")
    )
    assert list(table.rows["noisy"]) == ["psnr hole", "ssim keep", "mean_l1 border", "seam_error border"]
    assert table.rows["noisy"]["psnr hole"] == metrics.psnr(noisy, photo, hole).item()
    assert table.best("psnr hole") == table.best("mean_l1 border") == "same"
    assert repr(table).splitlines()[0].split("  ")[-1].strip() == "seam_error border"
    assert "<b>inf</b>" in table._repr_html_()
    with pytest.raises(ValueError, match="a metric is 'pnsr'"):
        metrics.compare({"a": photo}, photo, hole, metrics=("pnsr",))
    with pytest.raises(ValueError, match="region of psnr is 'inside'"):
        metrics.compare({"a": photo}, photo, hole, metrics=("psnr inside",))
    with pytest.raises(ValueError, match="results is empty"):
        metrics.compare({}, photo, hole)


# mattes


@pytest.fixture
def mattes():
    generator = torch.Generator().manual_seed(3)
    truth = torch.rand(2, 1, 14, 19, generator=generator)
    alpha = (truth + 0.2 * torch.randn(truth.shape, generator=generator)).clamp(0, 1)
    trimap = torch.where(torch.rand(truth.shape, generator=generator) < 0.6, 0.5, 1.0)
    return alpha, truth, trimap


def test_sad_and_mse_by_hand():
    truth = torch.zeros(1, 1, 2, 3)
    alpha = torch.tensor([[0.5, 0.2, 0], [1, 0, 0]]).view(1, 1, 2, 3)
    trimap = torch.tensor([[0.5, 0.5, 0.5], [0, 0.5, 0]]).view(1, 1, 2, 3)
    assert metrics.matting_sad(alpha, truth, trimap).item() == pytest.approx(0.7 / 1000)
    assert metrics.matting_mse(alpha, truth, trimap).item() == pytest.approx(0.29 / 4)
    assert metrics.matting_sad(alpha, truth).item() == pytest.approx(1.7 / 1000)


def test_grad_agrees_with_an_independent_filter(mattes):
    alpha, truth, trimap = mattes
    x = np.arange(-4, 5)
    gauss = np.exp(-(x**2) / (2 * 1.4**2))
    kernel = np.outer(gauss, -x * gauss)
    kernel /= np.sqrt((kernel**2).sum())

    def magnitude(matte):
        matte = (matte - matte.min()) / (matte.max() - matte.min())
        return np.hypot(*(ndimage.correlate(matte, k, mode="nearest") for k in (kernel, kernel.T)))

    for b in range(2):
        a, t = (magnitude(m[b, 0].double().numpy()) for m in (alpha, truth))
        expected = ((a - t) ** 2)[trimap[b, 0].numpy() == 0.5].sum() / 1000
        assert metrics.matting_grad(alpha, truth, trimap)[b].item() == pytest.approx(expected)


def test_grad_of_a_step_by_hand():
    """Far from its ends a step of height 1 seen by an x-derivative of norm 1 gives the sum of half the kernel."""
    step, flat = torch.zeros(1, 1, 21, 21), torch.zeros(1, 1, 21, 21)
    step[..., 10:] = 1
    one_pixel = torch.zeros(1, 1, 21, 21)
    one_pixel[..., 10, 10] = 0.5
    x = np.arange(-4, 5)
    gauss = np.exp(-(x**2) / 3.92)
    kernel = np.outer(gauss, -x * gauss)
    expected = (kernel[:, x >= 0].sum() / np.sqrt((kernel**2).sum())) ** 2 / 1000
    assert metrics.matting_grad(step, flat, one_pixel).item() == pytest.approx(expected)


def test_conn_by_hand():
    """One row: truth is opaque; the estimate falls off, and a far pixel is cut off from the core by a gap."""
    truth = torch.ones(1, 1, 1, 5)
    alpha = torch.tensor([1.0, 1.0, 0.5, 0.0, 1.0]).view(1, 1, 1, 5)
    level = metrics.connectivity_level(alpha.double(), truth.double())
    # the gap splits the row from 0.1 on: pixel 4 is never in the largest region, pixel 2 leaves it at 0.6
    assert level.flatten().tolist() == pytest.approx([1, 1, 0.5, 0, 0])
    # phi(truth) = 1 - (1 - l); phi(alpha) = 1 - d where d >= 0.15
    expected = [0, 0, abs(1 - 0.5), abs(1 - 0), abs(0 - 0)]
    assert metrics.matting_conn(alpha, truth).item() == pytest.approx(sum(expected) / 1000)


def test_conn_counts_small_distances_as_connected():
    truth = torch.ones(1, 1, 1, 3)
    alpha = torch.tensor([1.0, 0.9, 0.86]).view(1, 1, 1, 3)  # d of the estimate: 0, 0, 0.06; of the truth: 0, 0.1, 0.2
    assert metrics.matting_conn(alpha, truth).item() == pytest.approx(0.2 / 1000)


def test_perfect_mattes_and_refusals(mattes):
    alpha, truth, trimap = mattes
    for metric in (metrics.matting_sad, metrics.matting_mse, metrics.matting_grad, metrics.matting_conn):
        assert metric(truth, truth, trimap).tolist() == [0, 0]
        assert (metric(alpha, truth, trimap) > 0).all()
        constant = metric(torch.full_like(truth, 0.3), truth, trimap)
        assert constant.isfinite().all()
        with pytest.raises(ValueError, match="expected the same"):
            metric(alpha, truth[..., 1:], trimap)
        with pytest.raises(ValueError, match="no unknown pixel"):
            metric(alpha, truth, torch.ones_like(trimap))
        with pytest.raises(ValueError, match="0, 0.5 and 1"):
            metric(alpha, truth, torch.full_like(trimap, 0.2))


# perceptual distances


def test_missing_packages_and_weights_are_told(photo, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "lpips", None)
    monkeypatch.setitem(sys.modules, "dreamsim", None)
    with pytest.raises(check.NotAvailable, match="pip install lpips"):
        metrics.lpips(photo, photo)
    with pytest.raises(check.NotAvailable, match="pip install dreamsim"):
        metrics.dreamsim(photo, photo)
    with pytest.raises(check.NotAvailable, match=r"weights of 'openai/clip-vit-base-patch32'.*model\.safetensors"):
        metrics.clip_similarity(photo, photo)
    with pytest.raises(check.NotAvailable, match="that folder"):
        metrics.dino_similarity(photo, photo, model=str(tmp_path))


def test_lpips_and_dreamsim_get_what_they_expect(photo, noisy, monkeypatch):
    """Stand-ins for the two packages, which need torchvision: they report the ranges and sizes that arrive."""
    seen = {}

    def model(a, b):
        seen["low"], seen["size"] = a.min().item(), tuple(a.shape)
        return (a - b).abs().mean((1, 2, 3)).view(-1, 1, 1, 1)

    monkeypatch.setattr(metrics, "_READY", {})
    monkeypatch.setitem(sys.modules, "lpips", types.SimpleNamespace(LPIPS=lambda net, verbose: model))
    monkeypatch.setitem(sys.modules, "dreamsim", types.SimpleNamespace(dreamsim=lambda **k: (model, None)))
    assert metrics.lpips(noisy, photo).shape == (1,)
    assert seen["low"] == pytest.approx(-1, abs=0.1)
    assert metrics.dreamsim(noisy, photo).item() > 0
    assert seen["low"] >= 0
    assert seen["size"] == (1, 3, 224, 224)


def test_clip_and_dino_on_small_models_of_the_published_kind(photo, noisy, tmp_path, monkeypatch):
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection, ViTConfig, ViTModel

    monkeypatch.setattr(metrics, "_READY", {})
    small = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    clip = CLIPVisionModelWithProjection(CLIPVisionConfig(**small, image_size=32, patch_size=8, projection_dim=12))
    clip.save_pretrained(tmp_path / "clip")
    ViTModel(ViTConfig(**small, image_size=32, patch_size=8)).save_pretrained(tmp_path / "dino")
    for metric, folder in ((metrics.clip_similarity, "clip"), (metrics.dino_similarity, "dino")):
        pair = metric(torch.cat([photo, noisy]), photo.repeat(2, 1, 1, 1), model=str(tmp_path / folder))
        assert pair[0].item() == pytest.approx(1, abs=1e-5)
        assert -1 <= pair[1] < 1


def test_bootstrap_intervals():
    rng = np.random.default_rng(0)
    values = rng.normal(5, 2, 400)
    low, high = metrics.bootstrap_interval(values, seed=1)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.15)  # the normal approximation
    assert metrics.bootstrap_interval(values, seed=1) == (low, high)
    assert metrics.bootstrap_interval([0.3]) == (0.3, 0.3)
    with pytest.raises(ValueError, match="values is empty"):
        metrics.bootstrap_interval([])
