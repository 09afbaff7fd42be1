"""Claims about SPL: every measurement runs and gives numbers, and what judges them is right itself."""

import pytest
import torch

from tests.methods.conftest import NARROW_SPL
from workbench import check, claims
from workbench.diffusion.classifier import make_classifier
from workbench.diffusion.export import write_model
from workbench.methods.spl import claims as of_spl
from workbench.methods.spl import make_spl
from workbench.methods.spl.teachers import Teacher

CLAIMS = {claim.name: claim for claim in of_spl.CLAIMS}
CACHED = (of_spl.pictures, of_spl.holes, of_spl.trained, of_spl.scores, of_spl.teacher)


@pytest.fixture(scope="module")
def trained_folder(tmp_path_factory):
    """All runs with seeds 0 and 1, as the training command writes them, only untrained."""
    folder = tmp_path_factory.mktemp("out")
    for number, run in enumerate(of_spl.RUNS):
        injection = "concatenation" if run == "concatenation" else "spade"
        for seed in (0, 1):
            told = {"about": "A test.", "trained": "7 updates of 2 pictures in 0 minutes", "quality": {}}
            network = make_spl(10 * number + seed, injection=injection, **NARROW_SPL)
            write_model(folder / f"spl-{run}-{seed}", {"": network}, title=run, **told)
    return folder


@pytest.fixture(scope="module")
def small(trained_folder):
    """Two pictures of 32 x 48 px, two trainings of each run."""
    views = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    taught = Teacher(make_classifier(("a",), (4, 5, 6, 9, 8), seed=1))
    for kept in CACHED:
        kept.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(of_spl.trials, "TRAINED", trained_folder)
        patch.setattr(of_spl, "pictures", lambda: views)
        patch.setattr(of_spl, "teacher", lambda: taught)
        patch.setattr(of_spl, "bundled", lambda: of_spl.trained("full", 0))
        yield trained_folder
    for kept in CACHED:
        kept.cache_clear()


@pytest.mark.parametrize("name", CLAIMS)
def test_it_is_measured(small, name):
    finding = claims.measure(CLAIMS[name])
    assert finding.verdict in claims.VERDICTS
    assert {quantity.n for quantity in finding.quantities.values()} == {2}
    assert len(finding.quantities) >= 3


def test_the_claims_of_the_list():
    assert list(CLAIMS) == [f"S{n}" for n in range(1, 10)]
    assert CLAIMS.items() <= claims.list_claims().items()


def test_each_run_is_trained_by_a_command():
    """The lines are those the training takes, and write where the claims look."""
    from workbench.methods.spl.train import make_parser

    detector, *lines = of_spl.commands()
    learnt = [line for line in lines if "--variant detector-teacher" in line]
    assert {line.split("--teacher-weights ")[1].split()[0] for line in learnt} == {detector.split("--export ")[1]}
    assert len(lines) == len(of_spl.RUNS) * len(of_spl.SEEDS)
    for line in lines:
        options = make_parser().parse_args(line.split("train ")[1].split())
        run, seed = options.export.removeprefix("out/spl-").rsplit("-", 1)
        assert (run in of_spl.RUNS, int(seed)) == (True, options.seed)
        assert of_spl.folder_of(run, int(seed)).name == options.export.removeprefix("out/")
    assert {line.split("--steps ")[1].split()[0] for line in lines} == {str(of_spl.UPDATES)}


def test_a_gain_is_a_gain(small, monkeypatch):
    """A run that is better by as much as it is known to be, seed by seed, hole by hole."""
    known = torch.arange(12.0).view(6, 2)

    def scores(run, seed, kind="irregular"):
        better = {"full": known + seed, "unsupervised": torch.zeros(6, 2)}[run]
        return {"psnr": 20 + better, "gradient_similarity": better}

    monkeypatch.setattr(of_spl, "scores", scores)
    assert torch.equal(of_spl.gain("full", "unsupervised"), torch.stack([known, known + 1]))
    found = of_spl.prior_helps()
    assert next(iter(found.items())) == ("full - unsupervised, dB, by picture", [5.5, 6.5])
    assert found["full - unsupervised, dB, by training"] == [5.5, 6.5]
    assert found["unsupervised, dB"] == [20, 20]
    assert next(iter(of_spl.gain_grows().values())) == [6, 6]


def test_three_trainings_decide_fewer_do_not():
    values = torch.tensor([[1.0, 3.0], [2.0, 4.0], [-9.0, 3.0]])
    assert next(iter(of_spl.told("x", values).items())) == ("x, by training", [2, 3, -3])
    name, each = next(iter(of_spl.told("x", values[:2]).items()))
    assert (name, each) == ("x, by picture", [1.5, 3.5])


def test_holes_are_fixed_and_squares_as_large(small):
    strokes, squares = of_spl.holes(), of_spl.holes("squares")
    assert strokes.shape == squares.shape == (6, 2, 1, 32, 48)
    torch.testing.assert_close(squares.mean((2, 3, 4)), strokes.mean((2, 3, 4)), atol=0.03, rtol=0)
    assert not torch.equal(strokes[0, 0], strokes[0, 1])
    assert torch.equal(squares[0, 0].flip(-1), squares[0, 0])


def test_likeness_by_hand():
    truth = torch.tensor([[[[3.0, 2, 0, 1]], [[1.0, 2, 5, 3]]]])  # (1, 2, 1, 4), mean (1, 1)
    middle = torch.ones(1, 2, 1, 1)
    guess = torch.tensor([[[[9.0, 0, 0, 1]], [[1.0, 0, 5, -1]]]])
    everywhere = torch.ones(1, 1, 1, 4)
    assert of_spl.likeness(guess, truth, everywhere, middle).tolist() == pytest.approx([(1 - 1 + 1 - 1) / 4], abs=1e-6)
    first = torch.tensor([[[[1.0, 0, 0, 0]]]])
    assert of_spl.likeness(guess, truth, first, middle).item() == pytest.approx(1)
    assert of_spl.likeness(guess, truth, 0 * first, middle).item() == 0


def test_missing_and_unequal_trainings(small, monkeypatch, tmp_path):
    assert of_spl.seeds_of("full", "late") == [0, 1]
    monkeypatch.setattr(of_spl.trials, "TRAINED", tmp_path)
    with pytest.raises(
        check.NotAvailable,
        match=f"spl-full-0 is not there. Train it: .*--steps {of_spl.UPDATES} --variant full --seed 0",
    ):
        of_spl.prior_helps()
    for run, updates in (("full", 7), ("flips", 8)):
        told = {"about": "", "trained": f"{updates} updates of 2 pictures", "quality": {}}
        write_model(tmp_path / f"spl-{run}-0", {"": make_spl(**NARROW_SPL)}, title=run, **told)
    with pytest.raises(ValueError, match="budgets are full-0 7 updates of 2 pictures, flips-0 8 updates"):
        of_spl.styles_do_not_help()
