"""SPL's training: teachers, losses by hand, who learns from what, going on, going back, the command line."""

import json
from dataclasses import replace

import pytest
import torch

import workbench as wb
from tests.diffusion.conftest import write_views
from tests.methods.conftest import NARROW_SPL
from workbench import check
from workbench.diffusion.classifier import make_classifier
from workbench.diffusion.export import write_model
from workbench.diffusion.training import Settings, Trainer, read_log
from workbench.diffusion.training_data import TrainingPictures
from workbench.methods.spl import complete, load_spl, make_spl, make_teacher
from workbench.methods.spl import train as training
from workbench.methods.spl.networks import Completion
from workbench.methods.spl.teachers import Teacher
from workbench.methods.spl.train import Distilling, SplTask, fixed_masks

SETTINGS = Settings(steps=4, batch_size=2, warmup=1, learning_rate=3e-3, log_every=1, validate_every=2, precision="no")
DISCRIMINATOR = (4, 4, 4, 4)


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    return write_views(tmp_path_factory.mktemp("views") / "rooms")


@pytest.fixture(scope="module")
def classifier_folder(tmp_path_factory):
    network = make_classifier(("a", "b"), (4, 5, 6, 9, 8), seed=1)
    folder = tmp_path_factory.mktemp("models") / "classifier"
    return write_model(folder, {"": network}, title="a test", about="", trained="not at all", quality={})


@pytest.fixture
def make_task(views):
    def make(teacher=True, adversarial=0.1, **changes):
        pictures, validation = TrainingPictures([views], 0.3), TrainingPictures([views], 0.0, 0.0)
        teacher = Teacher(make_classifier(("a",), (4, 5, 6, 9, 8), seed=1)) if teacher else None
        objective = Distilling(make_spl(**NARROW_SPL), teacher, adversarial, DISCRIMINATOR)
        return SplTask(objective, pictures, validation, count=2, **changes)

    return make


# The teacher


def test_a_teacher_stays_as_it_is_whoever_trains():
    network = make_classifier(("a",), (4, 5, 6, 9, 8), seed=1)
    teacher, picture = Teacher(network), noise(2, 3, 32, 48)
    before = teacher(picture)
    assert before.shape == (2, 9, 4, 6)
    assert torch.equal(before, network.features(picture, ["relu4_2"])["relu4_2"])
    for module in teacher.modules():  # as a TrainingRun does, passing train() by
        module.training = True
    buffers = {name: value.clone() for name, value in teacher.named_buffers()}
    assert torch.equal(teacher(picture), before)
    assert all(torch.equal(buffers[name], value) for name, value in teacher.named_buffers())
    assert not any(p.requires_grad for p in teacher.parameters())
    assert teacher(picture.requires_grad_()).requires_grad is False


def test_teachers_are_calibrated(classifier_folder):
    pictures = noise(4, 3, 32, 32)
    for kind in ("classifier", "random"):
        source = classifier_folder if kind == "classifier" else None
        teacher = make_teacher(kind, pictures, source=source)
        assert teacher(pictures).std().item() == pytest.approx(1, abs=1e-3)
        assert teacher.channels == {"classifier": 9, "random": 160}[kind]


def test_a_random_teacher_tells_pictures_apart_and_depends_on_its_seed():
    """Without its normalisation set, an untrained network's features vary less than 1 % with the picture."""
    pictures = noise(4, 3, 32, 32)
    a, again, b = (make_teacher("random", pictures, seed=seed)(pictures) for seed in (0, 0, 1))
    assert torch.equal(a, again)
    assert not torch.equal(a, b)
    assert a.std(0).mean() > 0.2


def test_a_teacher_that_sees_more():
    teacher = Teacher(make_classifier(("a",), (4, 5, 6, 9, 8), seed=1), enlarge=2)
    assert teacher(noise(1, 3, 32, 48)).shape == (1, 9, 8, 12)


def test_a_teacher_by_its_known_scale(classifier_folder):
    pictures = noise(4, 3, 32, 32)
    teacher = make_teacher("classifier", pictures, source=classifier_folder)
    again = make_teacher("classifier", scale=teacher.scale.item(), source=classifier_folder)
    assert torch.equal(again(pictures), teacher(pictures))
    for given, told in (({}, "neither"), ({"pictures": pictures, "scale": 2.0}, "both")):
        with pytest.raises(ValueError, match=f"of pictures and scale {told} is given, expected one"):
            make_teacher("classifier", source=classifier_folder, **given)
    with pytest.raises(ValueError, match="scale alone is given"):
        make_teacher("random", scale=2.0)
    with pytest.raises(ValueError, match="scale"):
        make_teacher("classifier", scale=-1.0, source=classifier_folder)


def test_teachers_that_are_refused(tmp_path):
    pictures = noise(2, 3, 32, 32)
    with pytest.raises(ValueError, match="kind is 'parrot', expected one of: classifier, detector, random, tresnet"):
        make_teacher("parrot", pictures)
    with pytest.raises(check.NotAvailable, match="weights of TResNet-L are not bundled"):
        make_teacher("tresnet", pictures)
    with pytest.raises(check.NotAvailable, match="neither|no bundled model"):
        make_teacher("classifier", pictures, source=tmp_path / "no")
    with pytest.raises(ValueError, match="teacher gives 160 channels .* 1 times, expected 9 and 1"):
        Distilling(make_spl(**NARROW_SPL), make_teacher("random", pictures))


# The losses


class Constant(torch.nn.Module):
    """A generator that answers with two values."""

    def __init__(self, image, features):
        super().__init__()
        self.image, self.features = torch.nn.Parameter(torch.tensor(image)), torch.nn.Parameter(torch.tensor(features))
        self.config = make_spl(**NARROW_SPL).config

    def forward(self, image, mask):
        features = self.features.expand(len(image), 9, image.shape[-2] // 8, image.shape[-1] // 8)
        return Completion(self.image.expand_as(image), features, features)


class Knows(torch.nn.Module):
    """A teacher that always answers 2."""

    channels, enlarge = 9, 1

    def forward(self, image):
        return torch.full((len(image), 9, image.shape[-2] // 8, image.shape[-1] // 8), 2.0)


def test_the_losses_by_hand():
    """Off by 0.25 in a picture with a quarter hole: 1 + 2/4 times; prior off by 1.5: 1 + 3/4 times."""
    image, mask = torch.full((2, 3, 16, 32), 0.75), wb.mask.box((16, 32), (0, 0, 8, 16)).repeat(2, 1, 1, 1)
    image[1] = 0.5  # nothing to mend
    batch = {"image": image, "mask": mask, "prior_weight": torch.tensor(1.0)}
    losses = Distilling(Constant(0.5, 0.5), Knows(), 0)(batch)
    assert losses["per_sample"].tolist() == [pytest.approx(0.25 * 1.5), 0]
    assert losses["prior"].item() == pytest.approx(1.5 * 1.75)
    assert losses["loss"].item() == pytest.approx(10 * 0.25 * 1.5 / 2 + 1.5 * 1.75)
    late = Distilling(Constant(0.5, 0.5), Knows(), 0)({**batch, "prior_weight": torch.tensor(0.0)})
    assert late["loss"].item() == pytest.approx(10 * 0.25 * 1.5 / 2)
    untaught = Distilling(Constant(0.5, 0.5), None, 0)(batch)
    assert untaught["loss"].item() == pytest.approx(10 * 0.25 * 1.5 / 2)


def test_each_loss_reaches_its_own_weights_only():
    teacher = Teacher(make_classifier(("a",), (4, 5, 6, 9, 8), seed=1))
    objective = Distilling(make_spl(**NARROW_SPL), teacher, 1.0, DISCRIMINATOR)
    mask = wb.mask.box((64, 64), (8, 8, 40, 40)).repeat(2, 1, 1, 1)
    losses = objective({"image": noise(2, 3, 64, 64), "mask": mask, "prior_weight": torch.tensor(1.0)})
    assert losses["loss"].item() == pytest.approx(
        sum(w * losses[k].item() for k, w in {"image": 10, "prior": 1, "fooled": 1, "told_apart": 1}.items()), rel=1e-5
    )
    losses["fooled"].backward(retain_graph=True)
    assert all(p.grad is None for p in objective.discriminator.parameters())
    assert all(p.grad is not None for p in objective.network.decoder.parameters())
    objective.zero_grad()
    losses["prior"].backward(retain_graph=True)
    assert all(p.grad is None for p in objective.network.blocks.parameters())
    assert all(p.grad.abs().max() > 0 for p in objective.network.learner.to_teacher.parameters())
    objective.zero_grad()
    losses["told_apart"].backward()
    assert all(p.grad is None for p in objective.network.parameters())
    assert all(p.grad.abs().max() > 0 for p in objective.discriminator.parameters())
    assert all(p.grad is None for p in teacher.parameters())


def test_without_a_teacher_every_weight_still_gets_a_gradient():
    """So that several processes can share it out; it is 0 where nothing is learnt."""
    objective = Distilling(make_spl(**NARROW_SPL), None, 0)
    mask = wb.mask.box((32, 32), (8, 8, 20, 20))
    objective({"image": noise(1, 3, 32, 32), "mask": mask, "prior_weight": torch.tensor(1.0)})["loss"].backward()
    assert all(p.grad is not None for p in objective.parameters())
    assert not objective.network.learner.to_teacher.weight.grad.any()


def test_a_learner_that_learns_alone_moves_nothing_else():
    teacher = Teacher(make_classifier(("a",), (4, 5, 6, 9, 8), seed=1))
    objective = Distilling(make_spl(**NARROW_SPL), teacher, 1.0, DISCRIMINATOR)
    batch = {
        "image": noise(1, 3, 32, 32),
        "mask": wb.mask.box((32, 32), (8, 8, 20, 20)),
        "prior_weight": torch.tensor(1.0),
    }
    losses = objective({**batch, "alone": torch.tensor(1.0)})
    assert losses.keys() == {"loss", "prior"}
    assert losses["loss"].item() == pytest.approx(objective(batch)["prior"].item(), rel=1e-6)
    losses["loss"].backward()
    learner = {id(p) for p in objective.network.learner.parameters()}
    for p in objective.parameters():
        if p.requires_grad:
            assert p.grad.any() == (id(p) in learner)


def test_a_learner_without_a_teacher_cannot_learn_alone(make_task):
    with pytest.raises(ValueError, match=r"alone is \(0, 3\) without a teacher"):
        make_task(teacher=False, alone=(0, 3))


# The task


def test_a_batch_depends_on_its_numbers_only(make_task):
    task = make_task(prior_until=3, alone=(2, 5))
    numbers = [[7, 2, item] for item in range(4)]
    whole = task.batch(numbers)
    assert whole["image"].shape == (4, 3, 128, 128)
    assert whole["mask"].shape == (4, 1, 128, 128)
    part = task.batch(numbers[2:])
    assert all(torch.equal(part[key], whole[key][2:]) for key in ("image", "mask"))  # as another process would draw it
    shares = whole["mask"].mean((1, 2, 3))
    assert 0.04 < shares.min() < shares.max() < 0.61
    assert (whole["prior_weight"], task.batch([[7, 3, 0]])["prior_weight"]) == (1, 0)
    assert [task.batch([[7, step, 0]])["alone"].item() for step in (1, 2, 4, 5)] == [0, 1, 1, 0]


def test_holes_to_measure_with_are_the_same_and_spread():
    holes = fixed_masks(12)
    assert torch.equal(holes, fixed_masks(12))
    shares = holes.mean((1, 2, 3)).sort().values
    torch.testing.assert_close(shares, torch.linspace(0.05, 0.6, 25)[1::2], atol=0.011, rtol=0)


@pytest.mark.long
def test_training_lowers_both_losses(make_task, tmp_path):
    task = make_task(adversarial=0.0)
    trainer = Trainer(task, replace(SETTINGS, steps=25, warmup=3, learning_rate=1e-2), tmp_path)
    batch = task.batch([[0, 0, item] for item in range(2)])
    losses = [trainer.update(batch) for _ in range(25)]
    assert losses[-1]["image"] < 0.75 * losses[0]["image"]
    assert losses[-1]["prior"] < 0.9 * losses[0]["prior"]


@pytest.mark.long
def test_a_resumed_run_ends_where_it_would_have(make_task, tmp_path):
    from safetensors.torch import load_file

    for folder, parts in (("whole", (4,)), ("parts", (2, 4))):
        for steps in parts:
            trainer = Trainer(make_task(), replace(SETTINGS, final=1.0), tmp_path / folder)
            while trainer.step < steps:
                trainer.update(trainer.task.batch([[0, trainer.step, item] for item in range(2)]))
            trainer.save()
    a, b = (load_file(tmp_path / folder / "checkpoint.safetensors") for folder in ("whole", "parts"))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.long
def test_a_training_run_goes_back_and_forward_to_the_bit_and_branches(make_task):
    run = wb.TrainingRun(make_task(), learning_rate=3e-3, batch_size=2, memory=0)
    run.step(3)
    told, weights = run.history("loss"), run.weights()
    assert run.states[2].loss_per_sample.shape == (2,)
    assert {"image", "prior", "fooled", "told_apart"} <= set(run.state.losses)
    run.back(2)
    assert not all(torch.equal(weights[name], value) for name, value in run.weights().items())
    run.goto(3)
    assert run.history("loss") == told
    assert all(torch.equal(weights[name], value) for name, value in run.weights().items())
    assert not run.notes
    fork = run.branch(at=1, prior_until=2)  # S6: the prior left out from then on
    fork.step(2)
    assert fork.history("loss")[:2] == told[:2]
    assert fork.history("loss")[2] < told[2]
    with pytest.raises(ValueError, match="cannot|no |expected"):
        run.branch(at=1, holes="round")


@pytest.mark.parametrize("variant", ["full", "unsupervised"])
@pytest.mark.long
def test_the_command_line_trains_measures_and_exports(variant, views, classifier_folder, tmp_path, monkeypatch):
    def narrow(seed, **sizes):
        return make_spl(seed, **{**NARROW_SPL, "teacher_channels": 160, **sizes})

    monkeypatch.setattr(training, "make_spl", narrow)
    monkeypatch.setattr(training, "DISCRIMINATOR", DISCRIMINATOR)
    monkeypatch.setattr("workbench.diffusion.train.MODELS", tmp_path / "models")
    command = ["--variant", variant, "--data", str(views), "--validation", str(views), "--photos", "0"]
    command += ["--folder", str(tmp_path / "run"), "--steps", "2", "--batch-size", "2", "--validate-every", "2"]
    command += ["--log-every", "1", "--precision", "no"]
    if variant == "full":
        command += ["--teacher-weights", str(classifier_folder)]
    training.main(command)
    name = "tiny-spl" if variant == "full" else f"tiny-spl-{variant}"
    model = load_spl(tmp_path / "models" / name)
    assert (model.config.teacher_scale == 1) == (variant != "full")
    assert complete(model, noise(1, 3, 32, 32), wb.mask.box((32, 32), (4, 4, 9, 9))).image.shape == (1, 3, 32, 32)
    card = (tmp_path / "models" / name / "README.md").read_text()
    assert f"# {name}" in card
    assert "2 updates of 2 pictures" in card
    (numbers,) = (line["validation"] for line in read_log(tmp_path / "run") if "validation" in line)
    for kind in ("renders", "photographs"):
        assert numbers[f"psnr_{kind}"] > 3
        assert numbers[f"psnr_mean_{kind}"] > 5
        assert 0 < numbers[f"l1_{kind}"] < 1
        assert -1 <= numbers[f"ssim_{kind}"] <= 1
        assert (f"prior_hole_{kind}" in numbers) == (variant != "unsupervised")
    assert wb.load_image(tmp_path / "run" / "samples" / "0000002.png").shape == (1, 3, 4 * 128, 10 * 128)
    assert "diffusion_pytorch_model.safetensors" in json.loads(
        (tmp_path / "models" / name / "checksums.json").read_text()
    )


@pytest.mark.parametrize(
    ("variant", "injection", "kind", "channels"),
    [
        ("full", "spade", "classifier", 9),
        ("concatenation", "concatenation", "classifier", 9),
        ("detector-teacher", "spade", "detector", 9),
        ("random-teacher", "spade", "random", 9),
        ("unsupervised", "spade", None, 160),
    ],
)
def test_what_each_variant_is(variant, injection, kind, channels, views, monkeypatch):
    asked, built = [], {}

    def teacher(kind, pictures, **options):
        asked.append(kind)
        return Teacher(make_classifier(("a",), (4, 5, 6, 9, 8))).calibrate(pictures)

    monkeypatch.setattr(training, "make_teacher", teacher)
    monkeypatch.setattr(training, "CALIBRATION", 2)
    monkeypatch.setattr(
        training, "carry_out", lambda options, name, defaults, build: built.update(
            {name: build(options, SETTINGS, None, None)}
        ),
    )  # fmt: skip
    training.main(["--variant", variant, "--data", str(views), "--validation", str(views), "--photos", "0", "--mixed"])
    name = "tiny-spl" if variant == "full" else f"tiny-spl-{variant}"
    task = built[name]
    assert asked == ([kind] if kind else [])
    assert (task.objective.teacher is None) == (kind is None)
    assert task.objective.network.config.injection == injection
    assert task.objective.network.config.teacher_channels == channels
    assert (task.name, task.mixed) == (name, True)


def test_a_command_that_is_refused(views):
    command = ["--data", str(views), "--validation", str(views), "--steps", "1", "--precision", "no"]
    with pytest.raises(SystemExit, match="teacher is 'random' for variant 'unsupervised', expected none"):
        training.main([*command, "--variant", "unsupervised", "--teacher", "random"])
    with pytest.raises(SystemExit, match="weights of TResNet-L are not bundled"):
        training.main([*command, "--variant", "full", "--teacher", "tresnet"])
