"""The optimisation as a whole: steps both ways, branches, and holes of every kind."""

import itertools

import pytest
import torch

import workbench as wb
from workbench.methods import neural_patch
from workbench.methods.neural_patch import PatchRun, fill
from workbench.methods.neural_patch.settings import PatchSettings
from workbench.methods.neural_patch.solver import Solver

QUICK = {"sizes": (48, 80), "iterations": 4, "refresh": 3}


def make(image, mask, network, **settings):
    return PatchRun(image, mask, network=network, **{**QUICK, **settings})


def last(steps):
    for step in steps:
        found = step
    return found


def test_moving_about(waves, gap, network):
    run = make(waves, gap, network)
    assert (run.total, run.sizes, run.box) == (8, [(38, 48), (64, 80)], (0, 0, 80, 64))
    start = run.state
    assert start.losses == {}
    assert run.step().i == 1
    state = run.step(4)
    assert (state.i, state.level, state.iteration) == (5, 2, 1)
    assert state.picture.shape == (1, 3, 64, 80)
    assert run.back(5) is start
    assert run.goto(5) is state
    assert run.run_until(lambda s: s.iteration == 3).i == 7
    assert run.finish().i == 8
    assert run.done
    assert "step 8 of 8" in repr(run)
    with pytest.raises(RuntimeError, match="the run is over"):
        run.step()


def test_the_run_ends_where_fill_ends(waves, gap, network):
    run = make(waves, gap, network)
    run.finish()
    result = last(fill(waves, gap, network=network, **QUICK)).image
    assert torch.equal(run.image(), result)
    assert torch.equal(result * (1 - gap), waves * (1 - gap))


def test_each_level_starts_from_the_last_and_refers_to_it(waves, gap, network):
    run = make(waves, gap, network)
    coarse, fine = run.goto(4), run.goto(5)
    hole = fine.mask
    enlarged = wb.image.resize(coarse.picture, (64, 80))
    torch.testing.assert_close(fine.content_reference * hole, enlarged * hole)
    assert torch.equal(fine.content_reference * (1 - hole), waves * (1 - hole))
    assert fine.losses["content"] == 0  # what it began with is what it refers to


def test_states_tell_energies_and_slopes(waves, gap, network):
    run = make(waves, gap, network)
    run.step(3)
    before, after = run.states[1], run.states[2]
    assert before.energies()["content"] == pytest.approx(after.losses["content"], rel=1e-5)
    told = after.energies()
    chosen = run.settings
    weights = {"content": chosen.content_weight, "colour": chosen.colour_weight, "tv": chosen.tv_weight}
    expected = sum(weights.get(name, chosen.texture_weight) * v for name, v in told.items() if name != "total")
    assert told["total"] == pytest.approx(expected, rel=1e-5)
    slopes = {name: after.gradient(name) for name in told}
    total = sum(slope for name, slope in slopes.items() if name != "total")
    torch.testing.assert_close(slopes["total"], total, rtol=1e-4, atol=1e-8)
    assert all(slope.abs().max() > 0 and (slope * (1 - after.mask)).abs().max() == 0 for slope in slopes.values())
    with pytest.raises(ValueError, match="term is 'style', expected one of: content, texture relu3_1"):
        after.gradient("style")


def test_pictures_of_neighbours(waves, gap, network):
    run = make(waves, gap, network)
    state = run.goto(6)
    offsets = state.offsets("relu3_1")
    assert offsets.shape == (1, 2, 16, 20)
    assert offsets.isnan().any()
    assert (offsets[offsets.isfinite()] % 4 == 0).all()  # whole cells
    assert state.similarity((40, 28)).shape == (1, 1, 16, 20)
    for figure in (state.show_matches(), wb.plot.show_offsets(offsets), wb.plot.show_curves(run.curves())):
        assert figure.encode()[1]
    with pytest.raises(ValueError, match="layer is 'relu1_1', expected one of: relu3_1"):
        state.offsets("relu1_1")


def test_neighbours_are_searched_when_it_is_time(waves, gap, network):
    run = make(waves, gap, network, sizes=(80,), iterations=7, refresh=3)
    run.finish()
    found = [state.neighbours["relu3_1"] for state in run.states[1:]]
    assert [found[k] is found[k - 1] for k in range(1, 7)] == [True, True, False, True, True, False]
    once = make(waves, gap, network, sizes=(80,), iterations=7, refresh=0)
    once.finish()
    assert all(state.neighbours["relu3_1"] is once.states[1].neighbours["relu3_1"] for state in once.states[1:])


@pytest.mark.parametrize("memory", [256, 0])
@pytest.mark.parametrize("at", [0, 2, 4, 6])
def test_an_unchanged_branch_goes_on_bit_for_bit(waves, gap, network, at, memory):
    """Also without memory for snapshots, when everything is computed again from the first."""
    run = make(waves, gap, network, memory=memory)
    run.finish()
    fork = run.branch(at)
    assert fork.i == at
    fork.finish()
    assert [s.losses for s in fork.states] == [s.losses for s in run.states]
    assert torch.equal(fork.state.free, run.state.free)
    assert fork.parent is run


def test_going_back_and_on_again_changes_nothing(waves, gap, network):
    straight, wandering = make(waves, gap, network), make(waves, gap, network)
    straight.finish()
    wandering.step(5)
    wandering.back(4)
    wandering.branch(texture_weight=0).step(2)
    wandering.finish()
    assert torch.equal(wandering.state.free, straight.state.free)


def test_branches_with_other_settings(waves, gap, network):
    run = make(waves, gap, network)
    run.goto(6)
    ends = {}
    for name, changes in {
        "no content": {"content_weight": 0},
        "no texture": {"texture_weight": 0},
        "rough": {"tv_weight": 0},
        "every time": {"refresh": 1},
        "one layer": {"layers": ("relu3_1",)},
        "correlation": {"match": "ncc"},
        "features": {"content_term": "features"},
        "random": {"network": "random"},
    }.items():
        fork = run.branch(5, **changes)
        assert fork.changes == changes
        assert torch.equal(fork.state.free, run.states[5].free)
        ends[name] = fork.finish()
        assert ends[name].picture.isfinite().all()
    run.finish()
    assert "content" not in ends["no content"].losses
    assert not any(name.startswith("texture") for name in ends["no texture"].losses)
    assert "texture relu4_1" not in ends["one layer"].losses
    for name, end in ends.items():
        assert not torch.equal(end.free, run.state.free), name
    assert "run.1 at 5: content_weight=0" in run.tree()


def test_branches_that_cannot_be(waves, gap, network):
    run = make(waves, gap, network)
    run.step(3)
    with pytest.raises(ValueError, match="iterations cannot be changed in a branch"):
        run.branch(iterations=9)
    with pytest.raises(ValueError, match="at is 5, expected"):
        run.branch(5)
    with pytest.raises(ValueError, match="no setting is called 'texture'"):
        run.branch(texture=2)
    with pytest.raises(ValueError, match=r"layer is 'relu9_1', expected one of: relu1_1"):
        run.branch(layers=("relu9_1",))
    with pytest.raises(ValueError, match="run.1 begins there. Branch its parent"):
        run.branch(2).branch(1)
    assert len(run.branches) == 1  # those that failed are not in the tree


def test_an_interrupted_iteration_leaves_the_last_complete_one(waves, gap, network, monkeypatch):
    straight, run = make(waves, gap, network), make(waves, gap, network)
    straight.finish()
    run.step(5)
    search = neural_patch.objective.Objective.wishes

    def interrupted(self, neighbours):
        raise KeyboardInterrupt

    monkeypatch.setattr(neural_patch.objective.Objective, "wishes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.finish()
    assert run.recorded == run.i == 7  # the search before step 8 was cut off
    monkeypatch.setattr(neural_patch.objective.Objective, "wishes", search)
    run.finish()
    assert torch.equal(run.state.free, straight.state.free)


def test_energy_falls_while_the_neighbours_stay(waves, gap, network):
    """One level, one search: L-BFGS makes a fixed energy smaller."""
    run = make(waves, gap, network, sizes=(80,), iterations=20, refresh=0)
    run.finish()
    totals = run.curves()["total"][1]
    assert totals[-1] < 0.8 * totals[0]


def test_curvature_is_of_one_energy_though_neighbours_were_searched(waves, gap, network):
    solver = Solver(waves, gap, network, None, PatchSettings(sizes=(80,), iterations=4, refresh=3))
    places = []
    for _ in range(4):  # the fourth begins with a search
        places.append(solver.x.detach().clone())
        solver.step()

    def slope(x):
        x = x.clone().requires_grad_()
        total = solver.objective.total(solver.objective.terms(x, solver._wishes))
        return torch.autograd.grad(total * x.numel(), x)[0]

    memory, before, after = solver.capture().memory, *places[2:]
    torch.testing.assert_close(memory["old_stps"][-1], (after - before).flatten(), rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(memory["old_dirs"][-1], (slope(after) - slope(before)).flatten(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("refresh", [1, 3])
def test_the_energy_does_not_leap_after_a_search(waves, gap, network, refresh):
    run = make(waves, gap, network, sizes=(80,), iterations=12, refresh=refresh)
    run.finish()
    totals = run.curves()["total"][1]
    assert all(after < 1.3 * before for before, after in itertools.pairwise(totals))


def test_a_step_that_runs_away_is_told(waves, gap, network, monkeypatch):
    solver = make(waves, gap, network)._solver
    monkeypatch.setattr(solver.objective, "total", lambda terms: terms["tv"] * torch.nan)
    with pytest.raises(RuntimeError, match="no longer finite at iteration 1.*smaller texture_weight"):
        solver.step()


# ---------------------------------------------------------------- fill


HOLES = {
    "at the frame": [(0, 0, 24, 20)],
    "two": [(8, 10, 20, 22), (52, 40, 66, 56)],
    "70 %": [(0, 0, 80, 45)],
    "one pixel": [(79, 63, 80, 64)],
    "a column": [(30, 0, 42, 64)],
}


@pytest.mark.parametrize("name", HOLES)
def test_holes_of_every_kind(waves, network, name):
    mask = wb.mask.union(*(wb.mask.box((64, 80), box) for box in HOLES[name]))
    step = last(fill(waves, mask, network=network, **QUICK))
    assert step.image.shape == waves.shape
    assert torch.equal(step.image * (1 - mask), waves * (1 - mask))
    assert wb.metrics.mean_l1(step.image, waves, mask) < 0.33  # what a guess at random is off by


@pytest.mark.parametrize("size", [(33, 47), (64, 17), (5, 90), (1, 40), (9, 9)])
def test_sizes_of_every_kind(network, size):
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    mask = wb.mask.centre(size, 0.4)
    step = last(fill(image, mask, network=network, **QUICK))
    assert torch.equal(step.image * (1 - mask), image * (1 - mask))
    assert step.image.isfinite().all()
    if min(size) < 20:
        assert "the texture term went without" in step.label


def test_one_colour_stays_one_colour(network):
    grey, mask = torch.full((1, 3, 48, 64), 0.3), wb.mask.centre((48, 64), 0.5)
    for match in ("ncc", "l2"):
        step = last(fill(grey, mask, network=network, match=match, **QUICK))
        assert (step.image - grey).abs().max() < 0.02  # five grey values of 255


def test_where_there_is_no_slope_nothing_moves(waves, gap, network):
    run = make(waves, gap, network, texture_weight=0, tv_weight=0)
    start = run.goto(5).picture
    assert torch.equal(run.finish().picture, start)
    assert torch.equal(run.branch(6).finish().picture, start)


@pytest.mark.long
def test_texture_alone_rebuilds_a_pattern_better_than_its_mean(waves, gap, network):
    """Waves of 16 x 8 pixels in a hole wider than one of them, no content term: what the edge shows must be continued.

    The mean fill is off by the waves' own variance; 3 dB more is half of that error. Patches of relu2_1 and relu3_1,
    because one cell of relu4_1 is as high as a wave.
    """
    mean = torch.where(gap > 0, (waves * (1 - gap)).sum((2, 3), keepdim=True) / (1 - gap).sum(), waves)
    settings = {"sizes": (80,), "content_weight": 0, "texture_weight": 1.0, "tv_weight": 0.0, "refresh": 1}
    step = last(fill(waves, gap, network="random", layers=("relu2_1", "relu3_1"), iterations=50, **settings))
    assert wb.metrics.psnr(step.image, waves, gap) > wb.metrics.psnr(mean, waves, gap) + 3


def test_content_alone_keeps_the_content(waves, gap, network):
    step = last(fill(waves, gap, content=waves, network=network, sizes=(80,), texture_weight=0, tv_weight=0))
    assert wb.metrics.psnr(step.image, waves, gap) > 60


def test_steps(waves, gap, network):
    steps = list(fill(waves, gap, network=network, show_every=3, **QUICK))
    assert [(s.i, s.total) for s in steps] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert steps[0].label == "level 1 of 2, 38 x 48, iteration 3"
    assert steps[0].image.shape == (1, 3, 38, 48)
    assert steps[0].box == (0, 0, 80, 64)
    assert steps[-1].box is None
    assert steps[-1].arrays["offsets relu3_1"].shape == (1, 2, 16, 20)
    assert steps[-1].arrays["mask"].shape == (1, 1, 64, 80)


def test_a_large_picture_is_told_to_be_reduced(network):
    image = torch.rand(1, 3, 90, 130, generator=torch.Generator().manual_seed(0))
    mask = wb.mask.centre((90, 130), 0.5)
    step = last(fill(image, mask, network=network, sizes=(32, 64), iterations=2))
    assert step.image.shape == image.shape
    assert "optimised at 44 x 64 and enlarged to 90 x 130" in step.label
    assert "sizes=(..., 130)" in step.label


def test_an_overlap_is_repainted_for_a_soft_edge(waves, gap, network):
    broken = torch.where(gap > 0, torch.zeros_like(waves), waves)
    result = wb.inpaint(broken, gap, "neural_patch", network=network, overlap=4, feather=3, **QUICK)
    ring = wb.mask.grow(gap, 4) - gap
    assert ((result.raw != waves) * ring).sum() > 0.9 * 3 * ring.sum()
    assert torch.equal(result.image * (1 - gap - ring), waves * (1 - gap - ring))
    soft = wb.mask.feather(gap, 3)
    torch.testing.assert_close(result.image, waves * (1 - soft) + result.raw * soft)
    hard = wb.inpaint(broken, gap, "neural_patch", network=network, overlap=4, **QUICK)
    assert torch.equal(hard.image * (1 - gap), waves * (1 - gap))


def test_interrupting_gives_what_there_is(waves, gap, network):
    def stop(step):
        if step.i == 2:
            raise KeyboardInterrupt

    result = wb.inpaint(waves, gap, "neural_patch", network=network, show_every=2, callback=stop, **QUICK)
    assert result.interrupted
    assert torch.equal(result.image * (1 - gap), waves * (1 - gap))
    assert result.image[:, :, 20:36, 30:50].std() > 0


def test_refusals(waves, gap, network):
    with pytest.raises(ValueError, match="image holds 2 pictures, expected one"):
        last(fill(waves.expand(2, -1, -1, -1), gap, network=network))
    with pytest.raises(ValueError, match="mask is 1 everywhere.*take 1 - mask"):
        last(fill(waves, torch.ones_like(gap), network=network))
    with pytest.raises(ValueError, match=r"mask has no hole \(all 0\)"):
        PatchRun(waves, torch.zeros_like(gap), network=network)
    with pytest.raises(ValueError, match="overlap is 200, which leaves no known pixel"):
        PatchRun(waves, gap, network=network, overlap=200)
    with pytest.raises(ValueError, match="show_every is 0"):
        last(fill(waves, gap, network=network, show_every=0))
    with pytest.raises(ValueError, match="no setting is called 'steps'"):
        PatchRun(waves, gap, network=network, steps=3)


def test_nothing_is_modified_and_no_random_state_touched(waves, gap, network):
    before = waves.clone(), gap.clone(), torch.random.get_rng_state()
    Solver(waves, gap, network, None, neural_patch.PatchSettings(**QUICK)).step()
    assert torch.equal(waves, before[0])
    assert torch.equal(gap, before[1])
    assert torch.equal(torch.random.get_rng_state(), before[2])
