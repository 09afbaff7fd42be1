"""Autoencoder, classifier, depth: losses, metrics by hand, a few steps of each task, export and reload."""

import math

import pytest
import torch

from workbench import check
from workbench.diffusion import classifier as classifiers
from workbench.diffusion import depth as depths
from workbench.diffusion import models, pipelines
from workbench.diffusion.classifier import ClassifierTask, Naming, load_classifier, make_classifier
from workbench.diffusion.denoiser import DenoiserTask, Denoising
from workbench.diffusion.depth import DepthTask, Estimating, load_depth, make_depth, share_within
from workbench.diffusion.export import how_trained, write_model
from workbench.diffusion.latents import build_cache, read_cache
from workbench.diffusion.prediction import denoised, wanted
from workbench.diffusion.training import Settings, Trainer
from workbench.diffusion.training_data import TrainingPictures, generator
from workbench.diffusion.vae import (
    Reconstruction,
    VaeTask,
    freeze_encoder,
    gradient_difference,
    load_autoencoder,
    opponent_colours,
    scaling_factor,
)
from workbench.world.views import LABELS

SETTINGS = Settings(steps=3, batch_size=2, warmup=1, learning_rate=3e-3, log_every=1, validate_every=3)


@pytest.fixture
def pictures(views):
    return TrainingPictures([views], photo_share=0.3)


@pytest.fixture
def validation(views):
    return TrainingPictures([views], style=0)


def run(task, folder, settings=SETTINGS):
    trainer = Trainer(task, settings, folder)
    trainer.run(bar=False)
    return trainer


@pytest.mark.long
def test_vae(pictures, validation, tmp_path):
    features = make_classifier(LABELS, (8, 8, 8, 8, 8))
    objective = Reconstruction(models.make_autoencoder(8, (8, 8, 8, 8)), features, adversarial_weight=0.1)
    before = {name: p.clone() for name, p in features.state_dict().items()}
    task = VaeTask(objective, pictures, validation, count=2)
    run(task, tmp_path)
    assert all(torch.equal(before[name], value) for name, value in features.state_dict().items())
    assert {"psnr_renders", "psnr_photographs", "ssim_renders"} <= set(task.validate())
    task.export(tmp_path / "export", "three updates")
    from workbench.diffusion.libraries import AutoencoderKL

    again = AutoencoderKL.from_pretrained(tmp_path / "export")
    latents = again.encode(task.renders * 2 - 1).latent_dist.mean * again.config.scaling_factor
    assert 0.1 < latents.std() < 10
    assert scaling_factor(again, task.renders) == pytest.approx(
        1 / (latents.std().item() / again.config.scaling_factor), rel=1e-4
    )


@pytest.mark.long
def test_a_decoder_goes_on_alone_and_the_latents_stay(pictures, validation, tmp_path):
    vae = models.make_autoencoder(8, (8, 8, 8, 8))
    vae.register_to_config(scaling_factor=0.7)
    write_model(tmp_path / "tiny-vae", {"": vae}, title="tiny-vae", about="", trained="long", quality={})
    vae = freeze_encoder(load_autoencoder(tmp_path / "tiny-vae"))
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    task = VaeTask(Reconstruction(vae), pictures, validation, count=2)
    run(task, tmp_path / "run")
    task.export(tmp_path / "export", "three updates")
    assert how_trained(tmp_path / "export") == "three updates."
    assert how_trained(tmp_path) == ""
    again = load_autoencoder(tmp_path / "export")
    changed = {name.split(".")[0] for name, value in vae.state_dict().items() if not torch.equal(before[name], value)}
    assert changed == {"decoder", "post_quant_conv"}
    assert again.config.scaling_factor == 0.7


def test_an_export_replaces_a_link_and_not_what_it_leads_to(tmp_path):
    """Bundled pipelines have the one autoencoder by links."""
    told = {"about": "", "trained": "", "quality": {}}
    write_model(tmp_path / "shared", {"": models.make_autoencoder(8, (8, 8, 8, 8), seed=0)}, title="one", **told)
    before = {file.name: file.read_bytes() for file in (tmp_path / "shared").iterdir()}
    (tmp_path / "pipe" / "vae").mkdir(parents=True)
    for name in ("config.json", "diffusion_pytorch_model.safetensors"):
        (tmp_path / "pipe" / "vae" / name).symlink_to(f"../../shared/{name}")
    write_model(tmp_path / "pipe", {"vae": models.make_autoencoder(8, (8, 8, 8, 8), seed=1)}, title="two", **told)
    assert before == {file.name: file.read_bytes() for file in (tmp_path / "shared").iterdir()}
    written = tmp_path / "pipe" / "vae" / "diffusion_pytorch_model.safetensors"
    assert not written.is_symlink()
    assert written.read_bytes() != before[written.name]


def test_the_discriminator_and_the_autoencoder_learn_apart():
    """Each side's loss reaches its own weights only."""
    objective = Reconstruction(models.make_autoencoder(8, (8, 8, 8, 8)), adversarial_weight=1.0)
    batch = {"image": torch.rand(1, 3, 32, 32), "noise": torch.zeros(1, 4, 4, 4), "anchor_weight": torch.zeros(())}
    losses = objective(batch)
    losses["fooled"].backward(retain_graph=True)
    assert all(p.grad is None for p in objective.discriminator.parameters())
    objective.zero_grad()
    losses["told_apart"].backward()
    assert all(p.grad is None or p.grad.abs().max() == 0 for p in objective.vae.parameters())
    assert any(p.grad.abs().max() > 0 for p in objective.discriminator.parameters())


def test_opponent_colours_by_hand():
    """Grey has no colour, equal steps of red and blue are opposite, green is against both."""
    grey, red, blue, green = (
        torch.tensor(c).view(1, 3, 1, 1) for c in ((1.0, 1, 1), (1.0, 0, 0), (0.0, 0, 1), (0.0, 1, 0))
    )
    found = {n: opponent_colours(c.expand(1, 3, 4, 8), (1, 2))[0, :, 0, 0] for n, c in
             (("grey", grey), ("red", red), ("blue", blue), ("green", green))}  # fmt: skip
    assert torch.allclose(found["grey"], torch.tensor([3**0.5, 0, 0]), atol=1e-6)
    assert torch.allclose(found["red"][1], -found["blue"][1])
    assert found["red"][1] > 0
    assert found["green"][2] > 0 > found["red"][2]
    assert torch.allclose(found["red"] + found["green"] + found["blue"], found["grey"], atol=1e-6)


def test_the_latents_are_led_at_first_only(views):
    """Crops of half the side, every fourth batch a quarter as many whole pictures; the lead fades."""
    pictures = TrainingPictures([views], 0.0)
    task = VaeTask(Reconstruction(models.make_autoencoder(4, (8, 8, 8))), pictures, pictures, count=2)
    crops, whole = (task.batch([[0, step, k] for k in range(4)]) for step in (0, 3))
    assert crops["image"].shape == (4, 3, 64, 64)
    assert crops["noise"].shape == (4, 4, 16, 16)
    assert whole["image"].shape == (1, 3, 128, 128)
    assert crops["anchor_weight"] == 1
    assert task.batch([[0, 10**6, 0]])["anchor_weight"] == 0


def test_gradient_difference_by_hand():
    a, b = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
    b[..., 2:] = 1  # one step in each row
    assert gradient_difference(a, b, scales=1).item() == pytest.approx(1 / 3)
    assert gradient_difference(a, a + 0.7, scales=2).item() == 0  # brightness alone is no edge


def test_classifier(pictures, validation, tmp_path, monkeypatch):
    pictures.photo_share = 0.0
    task = ClassifierTask(Naming(make_classifier(LABELS, (8, 8, 16, 16, 16))), pictures, validation)
    trainer = run(task, tmp_path / "run")
    assert 0 < task.validate()["mean_average_precision"] <= 1
    with trainer.ema.applied(task.objective):
        task.export(tmp_path / "tiny-classifier", "three updates")
    monkeypatch.setattr(pipelines, "MODELS", tmp_path)
    monkeypatch.setattr(classifiers, "_loaded", {})
    loaded = load_classifier()
    assert loaded.labels == LABELS
    assert loaded.cells(torch.rand(2, 3, 64, 96)).shape == (2, len(LABELS), 8, 12)
    image = torch.rand(2, 3, 48, 80)
    maps = loaded.features(image, ["relu2_2", "relu4_2"])
    assert maps["relu2_2"].shape == (2, 8, 24, 40)
    assert maps["relu4_2"].shape == (2, 16, 6, 10)
    with pytest.raises(ValueError, match="layer is 'relu9_9', expected one of: conv1_1"):
        loaded.features(image, ["relu9_9"])
    distance = classifiers.tiny_perceptual(image, image.flip(0))
    assert distance.shape == (2,)
    assert (distance > 0).all()
    assert classifiers.tiny_perceptual(image, image).abs().max() == 0
    with pytest.raises(ValueError, match="expected the same"):
        classifiers.tiny_perceptual(image, image[..., :40])
    for other in (image[:1], image[..., :8, :]):
        with pytest.raises(ValueError, match=r"expected as many of at least 16 x 16|expected the same"):
            classifiers.tiny_perceptual(image, other)
    with pytest.raises(ValueError, match=r"expected as many of at least 16 x 16"):
        classifiers.tiny_perceptual(image[..., :8, :], image[..., :8, :])


def test_the_classifier_learns_from_things_cut_free(views, validation):
    alone = TrainingPictures([views], style=0, alone=1.0)
    task = ClassifierTask(Naming(make_classifier(LABELS, (8, 8, 8, 8, 8))), alone, validation)
    batch = task.batch([[0, 0, i] for i in range(8)])
    kinds, ball = batch["labels"][:, [LABELS.index("room"), LABELS.index("sprite")]], LABELS.index("ball")
    assert kinds.tolist() == [[0, 1]] * 8
    for labels, cells in zip(batch["labels"], batch["cells"], strict=True):
        told = {name for name, there in zip(LABELS, labels, strict=True) if there}
        assert told == ({"sprite", "red", "ball"} if labels[ball] else {"sprite"})  # an enlarged part may miss it
        assert labels[ball] or not (cells[ball] == 1).any()
    assert batch["labels"][:, ball].any()


def test_focal_loss_by_hand():
    """Two labels, two pictures of two cells: sure and right costs nothing, undecided (1/2)^2 log 2, unsure nothing."""
    truth = torch.tensor([[[1.0, 0.0], [1.0, 1.0]], [[0.0, 0.0], [1.0, -1.0]]])  # (B, L, cells)
    sure = (2 * truth.clamp(min=0) - 1) * 50
    assert classifiers.focal_loss(sure, truth).item() == 0
    undecided = torch.log(torch.tensor(2.0)) / 4
    logits = sure.clone()
    logits[0, 0, 0] = 0  # the only positive of the first label, 1 of 1
    assert classifiers.focal_loss(logits, truth).item() == pytest.approx(undecided.item() / 2)
    logits = sure.clone()
    logits[1, 1] = 0  # a positive of the second, 1 of 3, and an unsure cell
    assert classifiers.focal_loss(logits, truth).item() == pytest.approx(undecided.item() / 3 / 2)
    none = classifiers.focal_loss(torch.zeros(1, 1, 2), torch.zeros(1, 1, 2))  # no positive: as if there were one
    assert none.item() == pytest.approx(2 * undecided.item())


def test_average_precision_by_hand():
    scores = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    truth = torch.tensor([[1.0, 1.0], [0.0, 1.0], [1.0, 1.0], [0.0, 1.0]])  # the second label is always there
    assert classifiers.mean_average_precision(scores, truth) == pytest.approx((1 + 2 / 3) / 2)
    from sklearn.metrics import average_precision_score

    scores, truth = torch.rand(50, 3), (torch.rand(50, 3) < 0.3).float()
    expected = sum(average_precision_score(truth[:, k], scores[:, k]) for k in range(3)) / 3
    assert classifiers.mean_average_precision(scores, truth) == pytest.approx(expected)
    with pytest.raises(ValueError, match="no label is there in some"):
        classifiers.mean_average_precision(scores, torch.ones(50, 3))


def test_the_labels_of_a_part_are_those_of_what_is_seen_in_it():
    ids = torch.zeros(32, 48, dtype=torch.long)
    ids[:, 24:] = 1
    ids[0:8, 0:4] = 2  # half of the first cell, 2 % of the picture
    ids[16, 16:19] = 3  # three pixels: unsure in its cell, invisible in the picture
    found = classifiers.labels_of(ids, ["white wall", "shiny red ball", "blue cube"], "room")

    def cells(word):
        return found["cells"][LABELS.index(word)]

    def label(word):
        return found["labels"][LABELS.index(word)].item()

    assert [label(w) for w in ("room", "facade", "wall", "white", "ball", "red", "shiny", "cube", "blue")] == [
        1, 0, 1, 1, 1, 1, 1, 0, 0,
    ]  # fmt: skip
    assert torch.equal(cells("room"), torch.ones(4, 6))
    assert torch.equal(cells("wall"), torch.tensor([[0, 0, 0, 1, 1, 1]] * 4).float())
    assert cells("red").nonzero().tolist() == [[0, 0]]
    assert cells("cube")[2, 2] == -1
    assert cells("cube").abs().sum() == 1

    view = {
        "image": torch.rand(3, 128, 128), "labels": torch.zeros(len(LABELS)), "things": ["red ball"],
        "ids": torch.zeros(128, 128, dtype=torch.long),
    }  # fmt: skip
    view["labels"][1] = 1  # a facade
    view["ids"][:32, :32] = 1
    parts = [classifiers.enlarged_part(view, generator(i)) for i in range(60)]
    balls = torch.stack([part["labels"][LABELS.index("ball")] for part in parts])
    assert 0 < balls.mean() < 1
    assert all(part["labels"][1] == 1 and part["image"].shape == (3, 128, 128) for part in parts)
    whole = [part for part in parts if torch.equal(part["image"], view["image"])]
    assert 5 <= len(whole) <= 30
    assert all(
        torch.equal(part["cells"][LABELS.index("ball")].nonzero().amax(0), torch.tensor([3, 3])) for part in whole
    )


def test_depth(pictures, validation, tmp_path, monkeypatch):
    pictures.photo_share = 0.0
    task = DepthTask(Estimating(make_depth((8, 8, 8))), pictures, validation, count=3)
    run(task, tmp_path / "run")
    assert 0 <= task.validate()["delta_1.25"] <= 1
    task.export(tmp_path / "tiny-depth", "three updates")
    monkeypatch.setattr(pipelines, "MODELS", tmp_path)
    estimate = depths.estimate_depth(torch.rand(2, 3, 50, 70), load_depth())
    assert estimate.shape == (2, 1, 50, 70)
    assert (estimate > 0).all()
    assert estimate[1].median() == pytest.approx(1, abs=1e-5)
    with pytest.raises(check.NotAvailable, match="tiny-nothing"):
        load_depth("tiny-nothing")


def test_depth_is_judged_up_to_a_factor_and_without_the_sky():
    depth = torch.tensor([1.0, 2.0, 4.0, 8.0, 0.0, math.inf]).view(1, 1, 2, 3)
    estimate = (3 * torch.tensor([1.0, 2.0, 4.0, 20.0, 5.0, 5.0])).log().view(1, 1, 2, 3)
    assert share_within(estimate, depth).item() == pytest.approx(3 / 4)
    loss = Estimating(make_depth((8, 8, 8)))
    depth = depth.repeat_interleave(4, -1).repeat_interleave(4, -2)  # (1, 1, 8, 12)
    values = [loss({"image": torch.zeros(1, 3, 8, 12), "depth": k * depth})["edges"].item() for k in (1, 2)]
    assert values[0] == pytest.approx(values[1], rel=1e-4)  # twice as far all over has the same edges


@pytest.mark.long
def test_latents_are_cached_and_the_denoisers_learn_from_them(narrow, pictures, validation, tmp_path, monkeypatch):
    monkeypatch.setattr("workbench.diffusion.latents.SHARD", 4)
    vae, tokenizer = narrow["vae"], narrow["tokenizer"]
    build_cache(vae, pictures, tmp_path / "a", 10, holes=True, progress=False)
    for part in ((1, 2), (0, 2)):
        build_cache(vae, pictures, tmp_path / "b", 10, holes=True, part=part, progress=False)
    (tmp_path / "b" / "latents-0000004.safetensors").unlink()
    build_cache(vae, pictures, tmp_path / "b", 10, holes=True, progress=False)
    (one, captions), (two, again) = read_cache(tmp_path / "a"), read_cache(tmp_path / "b")
    assert captions == again
    assert len(captions) == 10
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert one["mask"].shape == (10, 1, 16, 16)
    assert one["mean_small"].shape == one["masked_std_small"].shape == one["smooth_mean_small"].shape == (10, 4, 8, 8)
    assert not torch.equal(one["masked_mean"], one["smooth_mean"])
    assert (
        one["mask_small"] >= torch.nn.functional.avg_pool2d(one["mask"].float(), 2).floor()
    ).all()  # no hole is lost
    with pytest.raises(ValueError, match="made with another count"):
        build_cache(vae, pictures, tmp_path / "a", 11, holes=True, progress=False)

    objective = Denoising(models.grow_input(narrow["unet"]), narrow["text_encoder"], train_text=False)
    task = DenoiserTask(objective, vae, tokenizer, (one, captions), validation, small_steps=2)
    assert [task.batch([[0, step, 0]])["masked"].shape[-1] for step in (0, 1, 2, 3)] == [8, 8, 16, 16]
    assert "first 2 updates" in task.about
    shown = task.batch([[0, 9, k] for k in range(40)])["masked"]  # of pictures told apart by their means
    kinds = [min(("masked", "smooth"), key=lambda k: (one[f"{k}_mean"].float() - x).square().mean((1, 2, 3)).min())
             for x in shown]  # fmt: skip
    assert {"masked", "smooth"} == set(kinds)
    assert kinds.count("smooth") > kinds.count("masked")
    monkeypatch.setattr("workbench.diffusion.denoiser.STEPS", 2)
    monkeypatch.setattr("workbench.diffusion.denoiser.SHOWN", 2)
    run(task, tmp_path / "run")
    assert set(task.validate()) == {"error", "hole_psnr"}
    assert (tmp_path / "run" / "samples" / "0000003.png").exists()
    task.export(tmp_path / "export", "three updates")
    assert pipelines.load_pipeline(tmp_path / "export").unet.config.in_channels == 9
    with pytest.raises(ValueError, match="4 input channels and the latents have holes"):
        DenoiserTask(
            Denoising(narrow["unet"], narrow["text_encoder"], True), vae, tokenizer, (one, captions), validation
        )


def test_captions_are_told_whole_shortened_and_not_at_all(narrow, validation):
    whole = "a photo of a room with a red ball, a vase and a wooden table on a blue floor"
    cache = {name: torch.zeros(1, 4, 16, 16) for name in ("mean", "std")}, [whole]
    objective = Denoising(narrow["unet"], narrow["text_encoder"], train_text=False)
    task = DenoiserTask(objective, narrow["vae"], narrow["tokenizer"], cache, validation)
    ids = task.batch([[0, 0, k] for k in range(60)])["ids"]
    told = [narrow["tokenizer"].decode(row, skip_special_tokens=True).strip().replace(" ,", ",") for row in ids]
    assert 0 < told.count("") < 20
    assert 10 < told.count(whole) < 45
    assert len(set(told) - {"", whole}) > 8
    assert all(set(text.replace(",", "").split()) <= set(whole.replace(",", "").split()) for text in told)


@pytest.mark.parametrize("prediction", models.PREDICTIONS)
def test_the_loss_weighs_errors_of_the_picture_whatever_is_predicted(narrow, prediction):
    """An error of the picture counts clamp(SNR, 1, 5): SNR is 0.0047 at t = 999, 3.3 at t = 200, 8.5 at t = 100."""
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 3, 4, 8, 8, generator=generator)
    t, ids = torch.tensor([999, 200, 100]), torch.ones(3, 8, dtype=torch.long)
    batch = {"latents": latents, "noise": noise, "t": t, "ids": ids}
    objective = Denoising(narrow["unet"], narrow["text_encoder"], True, prediction)
    found, scheduler = objective(batch), objective.scheduler
    noisy = scheduler.add_noise(latents, noise, t)
    said = narrow["unet"](noisy, t, narrow["text_encoder"](ids).last_hidden_state).sample
    pictures = [denoised(scheduler, noisy[k : k + 1], said[k : k + 1], t[k]) for k in range(3)]
    errors = (torch.cat(pictures) - latents).square().mean((1, 2, 3))
    signal = scheduler.alphas_cumprod[t]
    snr = signal / (1 - signal)
    assert snr[0] < 0.005
    assert 1 < snr[1] < 5 < snr[2]
    torch.testing.assert_close(found["per_sample"], errors * torch.stack([torch.ones(()), snr[1], torch.tensor(5.0)]))
    torch.testing.assert_close(found["error"], (errors * snr).mean())
    with pytest.raises(ValueError, match="snr_floor is 6"):
        Denoising(narrow["unet"], narrow["text_encoder"], True, snr_floor=6)


@pytest.mark.parametrize("kind", models.PREDICTIONS)
def test_the_estimate_of_the_picture_inverts_the_noising(kind):
    scheduler = models.make_scheduler(training=True, prediction=kind)
    latents, noise = torch.randn(2, 3, 4, 3, 5, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([5, 400, 900])
    noisy, said = scheduler.add_noise(latents, noise, t), wanted(scheduler, latents, noise, t)
    torch.testing.assert_close(denoised(scheduler, noisy, said, t), latents, atol=1e-4, rtol=1e-4)
    for k in range(3):
        one = denoised(scheduler, noisy[k : k + 1], said[k : k + 1], float(t[k]))
        torch.testing.assert_close(one, latents[k : k + 1], atol=1e-4, rtol=1e-4)
