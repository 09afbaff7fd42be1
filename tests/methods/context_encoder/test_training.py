"""The Context Encoder's network and training: shapes, losses by hand, who learns from what, going on, going back."""

import json
from dataclasses import replace

import pytest
import torch

import workbench as wb
from tests.diffusion.conftest import write_views
from workbench.diffusion import models
from workbench.diffusion.training import Settings, Trainer, read_log
from workbench.diffusion.training_data import TrainingPictures
from workbench.methods.context_encoder import load_context_encoder, make_context_encoder, predict
from workbench.methods.context_encoder import train as training
from workbench.methods.context_encoder.networks import BLOCK, COLOUR, HOLE, Everywhere, blank, middle
from workbench.methods.context_encoder.train import Completing, ContextEncoderTask, overlap_weight, sharpness

NARROW = ((8, 8, 8, 8, 16), (8, 8, 8))
SETTINGS = Settings(steps=6, batch_size=4, warmup=2, learning_rate=3e-3, log_every=1, validate_every=3, precision="no")


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    return write_views(tmp_path_factory.mktemp("views") / "rooms")


@pytest.fixture
def make_task(views):
    def make(l2_share=0.999, photos=0.3):
        pictures, validation = TrainingPictures([views], photos), TrainingPictures([views], 0.0, 0.0)
        return ContextEncoderTask(Completing(make_context_encoder(*NARROW), l2_share), pictures, validation, count=2)

    return make


# The network


def test_the_bundled_size_and_what_comes_out():
    model = make_context_encoder().eval()
    assert models.mebibytes(model) < 2.5
    pictures = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    block = predict(model, pictures)
    assert block.shape == (2, 3, BLOCK, BLOCK)
    assert 0 <= block.min() <= block.max() <= 1
    torch.testing.assert_close(predict(model, pictures[1:]), block[1:])


def test_every_pixel_outside_the_hole_reaches_every_pixel_of_the_block_and_none_inside_does():
    model = make_context_encoder(*NARROW).eval()
    picture = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    before, inside = predict(model, picture), picture.clone()
    inside[..., middle(HOLE), middle(HOLE)] = 1
    assert torch.equal(predict(model, inside), before)
    x = blank(picture).requires_grad_()
    for y, column in ((0, 0), (63, 0), (20, 63)):  # corners and an edge of the block
        (gradient,) = torch.autograd.grad(model(x)[0, :, y, column].sum(), x)
        corners = [gradient[..., rows, columns] for rows in (slice(0, 8), slice(-8, None))
                   for columns in (slice(0, 8), slice(-8, None))]  # fmt: skip
        assert all(corner.abs().max() > 0 for corner in corners)


def test_blank_by_hand():
    picture = torch.rand(2, 3, 128, 128)
    blanked = blank(picture)
    inside = torch.zeros(128, 128, dtype=torch.bool)
    inside[36:92, 36:92] = True
    assert torch.equal(blanked[..., ~inside], picture[..., ~inside])
    for channel, value in enumerate(COLOUR):
        assert blanked[:, channel, inside].unique().tolist() == [pytest.approx(value)]


def test_everywhere_by_hand():
    """Each channel has its own matrix over the cells: here one turns the cells round, the other sums them."""
    layer = Everywhere(2, 6)
    with torch.no_grad():
        layer.weight[0], layer.weight[1] = torch.eye(6).flip(0), torch.ones(6, 6)
        layer.bias[1] = 10
    x = torch.arange(12.0).view(1, 2, 2, 3)
    y = layer(x)
    assert y[0, 0].flatten().tolist() == [5, 4, 3, 2, 1, 0]
    assert y[0, 1].flatten().tolist() == [6 + 7 + 8 + 9 + 10 + 11 + 10] * 6


def test_wrong_shapes_are_told():
    with pytest.raises(ValueError, match=r"down is \(8, 8\) and up \(8, 8, 8\), expected five and three"):
        make_context_encoder((8, 8), (8, 8, 8))
    model = make_context_encoder(*NARROW)
    with pytest.raises(ValueError, match=r"picture is \(128, 96\) \(H, W\), expected 128 x 128 .* wb.inpaint"):
        predict(model, torch.zeros(1, 3, 128, 96))
    with pytest.raises(ValueError, match="picture has values from -1 to -1"):
        predict(model, -torch.ones(1, 3, 128, 128))


# The losses


class Constant(torch.nn.Module):
    """A network that answers with one value."""

    def __init__(self, value):
        super().__init__()
        self.value = torch.nn.Parameter(torch.tensor(value))

    def forward(self, x):
        return self.value.expand(len(x), 3, BLOCK, BLOCK)


def test_the_l2_loss_by_hand():
    """Truth 0.75 = 0.5 in [-1, 1]; the block says 0.25: 1/16 a pixel, ten times on the rim of 4 px."""
    image = torch.full((2, 3, 128, 128), 0.75)
    losses = Completing(Constant(0.25), 1.0)({"image": image})
    share = (56 * 56 + 10 * (64 * 64 - 56 * 56)) / 64**2
    assert losses["loss"].item() == pytest.approx(share / 16)
    assert losses["per_sample"].tolist() == [pytest.approx(share / 16)] * 2
    assert overlap_weight()[0, 0, 3:5, 30].tolist() == [10, 1]
    image[0] = 0.625  # = 0.25: nothing to mend
    assert Completing(Constant(0.25), 1.0)({"image": image})["per_sample"].tolist() == [0, pytest.approx(share / 16)]


def test_the_joint_loss_by_hand():
    objective = Completing(Constant(0.25), 0.9)
    with torch.no_grad():
        for parameter in objective.discriminator.parameters():
            parameter.zero_()
        objective.discriminator.layers[-1].bias.fill_(20.0)  # used as 2: every patch looks real with odds of e^2
    losses = objective({"image": torch.full((1, 3, 128, 128), 0.75)})
    real, fake = torch.tensor(-2.0).exp().log1p().item(), torch.tensor(2.0).exp().log1p().item()
    assert losses["fooled"].item() == pytest.approx(real)
    assert losses["told_apart"].item() == pytest.approx((real + fake) / 2)
    expected = 0.9 * losses["l2"].item() + 0.1 * real + (real + fake) / 2
    assert losses["loss"].item() == pytest.approx(expected, rel=1e-5)


def test_each_loss_reaches_its_own_weights_only():
    objective = Completing(make_context_encoder(*NARROW), 0.5)
    losses = objective({"image": torch.rand(2, 3, 128, 128)})
    losses["fooled"].backward(retain_graph=True)
    assert all(p.grad is None for p in objective.discriminator.parameters())
    assert all(p.grad is not None for p in objective.network.parameters())
    objective.zero_grad()
    losses["told_apart"].backward()
    assert all(p.grad is None for p in objective.network.parameters())
    assert any(p.grad.abs().max() > 0 for p in objective.discriminator.parameters())
    assert Completing(make_context_encoder(*NARROW), 1.0).discriminator is None


def test_the_discriminator_learns_ten_times_more_slowly():
    """One step of AdamW moves what it computes with by a tenth of the learning rate, and the network by all of it."""
    objective = Completing(make_context_encoder(*NARROW), 0.999)
    plain = models.Discriminator(16)
    image = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(objective._scores(image), plain(image))
    optimizer = torch.optim.AdamW(objective.parameters(), 1e-3, weight_decay=0)
    used = {name: 0.1 * p.detach() for name, p in objective.discriminator.named_parameters()}
    before = {name: p.detach().clone() for name, p in objective.network.named_parameters()}
    objective({"image": torch.rand(2, 3, 128, 128)})["loss"].backward()
    optimizer.step()
    slow = torch.cat([(0.1 * p - used[n]).abs().flatten() for n, p in objective.discriminator.named_parameters()])
    fast = torch.cat([(p - before[n]).abs().flatten() for n, p in objective.network.named_parameters()])
    assert slow.median().item() == pytest.approx(1e-4, rel=0.02)
    assert fast.median().item() == pytest.approx(1e-3, rel=0.02)


def test_sharpness_by_hand():
    truth = torch.zeros(1, 3, 4, 4)
    truth[..., 2:] = 0.8  # one step of 0.8 in each row
    assert sharpness(truth, truth) == 1
    assert sharpness(truth / 2, truth) == pytest.approx(1 / 4)
    assert sharpness(torch.full_like(truth, 0.3), truth) == pytest.approx(0, abs=1e-12)


# The task


def test_a_batch_depends_on_its_numbers_only(make_task):
    task = make_task()
    numbers = [[7, 3, item] for item in range(8)]
    whole = task.batch(numbers)["image"]
    assert whole.shape == (8, 3, 128, 128)
    assert torch.equal(task.batch(numbers[5:])["image"], whole[5:])  # as another process would draw it
    assert torch.equal(task.batch(numbers[::-1])["image"], whole.flip(0))
    assert (
        len({tuple(item.flatten()[::999].tolist()) for item in whole}) >= 6
    )  # parts of one picture differ, wholes do not
    assert not torch.equal(task.batch([[7, 4, 0]])["image"], whole[:1])


@pytest.mark.long
def test_training_lowers_the_loss(make_task, tmp_path):
    """The same eight pictures, 40 times: the network must learn them well beyond a flat colour."""
    task = make_task(1.0)
    trainer = Trainer(task, replace(SETTINGS, steps=40, warmup=3, learning_rate=1e-2), tmp_path)
    batch = task.batch([[0, 0, item] for item in range(8)])
    losses = [trainer.update(batch)["loss"].item() for _ in range(40)]
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize("l2_share", [1.0, 0.999])
@pytest.mark.long
def test_a_resumed_run_ends_where_it_would_have(make_task, l2_share, tmp_path):
    for folder, parts in (("whole", (6,)), ("parts", (3, 6))):
        for steps in parts:
            trainer = Trainer(make_task(l2_share), replace(SETTINGS, steps=steps, final=1.0), tmp_path / folder)
            trainer.settings = replace(trainer.settings, steps=6)
            while trainer.step < steps:
                trainer.update(trainer.task.batch([[0, trainer.step, item] for item in range(4)]))
            trainer.save()
    a, b = (_weights(tmp_path / folder) for folder in ("whole", "parts"))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def _weights(folder):
    from safetensors.torch import load_file

    return load_file(folder / "checkpoint.safetensors")


def test_a_training_run_goes_back_and_forward_to_the_bit(make_task):
    run = wb.TrainingRun(make_task(), learning_rate=3e-3, batch_size=4, memory=0)
    run.step(5)
    told, weights = run.history("loss"), run.weights()
    assert run.states[2].loss_per_sample.shape == (4,)
    assert {"l2", "fooled", "told_apart"} <= set(run.state.losses)
    run.back(3)
    assert not all(torch.equal(weights[name], value) for name, value in run.weights().items())
    run.goto(5)
    assert run.history("loss") == told
    assert all(torch.equal(weights[name], value) for name, value in run.weights().items())
    assert not run.notes


@pytest.mark.parametrize("variant", ["l2", "adversarial"])
def test_the_command_line_trains_measures_and_exports(variant, views, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "make_context_encoder", lambda seed: make_context_encoder(*NARROW, seed=seed))
    monkeypatch.setattr("workbench.diffusion.train.MODELS", tmp_path / "models")
    command = ["--variant", variant, "--data", str(views), "--validation", str(views)]
    command += ["--folder", str(tmp_path / "run"), "--steps", "2", "--batch-size", "4", "--validate-every", "2"]
    command += ["--log-every", "1", "--precision", "no"]
    training.main(command)
    name = {"l2": "tiny-context-encoder-l2", "adversarial": "tiny-context-encoder"}[variant]
    model = load_context_encoder(tmp_path / "models" / name)
    assert not model.training
    assert predict(model, torch.rand(1, 3, 128, 128)).shape == (1, 3, 64, 64)
    card = (tmp_path / "models" / name / "README.md").read_text()
    assert f"# {name}" in card
    assert "2 updates of 4 pictures" in card
    assert ("adversarial share of 0.001" in card) == (variant == "adversarial")
    (numbers,) = (line["validation"] for line in read_log(tmp_path / "run") if "validation" in line)
    for kind in ("renders", "photographs"):
        assert numbers[f"psnr_{kind}"] > 3
        assert 0 < numbers[f"l1_{kind}"] < 1
        assert numbers[f"sharpness_{kind}"] >= 0
        assert numbers[f"psnr_mean_{kind}"] > 5
    assert wb.load_image(tmp_path / "run" / "samples" / "0000002.png").shape == (1, 3, 3 * 128, 10 * 128)
    checksums = json.loads((tmp_path / "models" / name / "checksums.json").read_text())
    assert "diffusion_pytorch_model.safetensors" in checksums


def test_a_share_that_does_not_fit_the_variant_is_refused(views):
    command = ["--data", str(views), "--validation", str(views), "--steps", "1", "--precision", "no"]
    with pytest.raises(SystemExit, match="l2_share is 0.9 for variant 'l2', expected 1 for l2"):
        training.main([*command, "--variant", "l2", "--l2-share", "0.9"])
    with pytest.raises(ValueError, match="l2_share is 2, expected a number from 0 to 1"):
        Completing(make_context_encoder(*NARROW), 2)
