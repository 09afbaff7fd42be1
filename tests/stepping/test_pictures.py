"""Strips, films, curves and trees of runs: of a real one, tiny, and of a recording without pictures."""

import math
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from tests.stepping.narrow import text_to_image
from workbench import check, image
from workbench.stepping import pictures
from workbench.stepping.denoising import DenoisingRun
from workbench.stepping.recording import load_recording, save_recording

SIZE = (32, 48)


@pytest.fixture(scope="module")
def pipe():
    return text_to_image()


def made(pipe, steps, **changes):
    settings = {"prompt": "a photo of a red ball", "guidance_scale": 3.0, "num_inference_steps": 6} | changes
    run = DenoisingRun(pipe, seed=3, height=SIZE[0], width=SIZE[1], **settings)
    run.goto(steps)
    return run


@pytest.fixture(scope="module")
def run(pipe):
    return made(pipe, 6)


@pytest.fixture
def bare(run, tmp_path):
    """A recording without decoded pictures."""
    recording = load_recording(save_recording(run, tmp_path / "run.safetensors", decoded=False))
    recording._kept_pictures.clear()
    return recording


def titles(figure):
    return [ax.get_title() for ax in figure.axes]


def test_strip_shows_steps_evenly(run):
    figure = pictures.strip(run, steps=3)
    assert titles(figure) == [f"{i} · t {run.states[i].t:g}" for i in (1, 3, 6)]
    shown = figure.axes[2].images[0].get_array()
    assert torch.equal(torch.tensor(shown), torch.tensor(image.to_uint8(run.decode(6, "denoised"))))
    assert titles(pictures.strip(run, "latents", steps=2)) == ["0", f"6 · t {run.states[6].t:g}"]
    assert len(pictures.strip(run, "noise_pred", 20).axes) == 6
    assert len(pictures.strip(run, "guidance", 1).axes) == 1


def test_strip_of_a_recording_without_pictures_says_so(bare):
    assert all(title.endswith("(false colours)") for title in titles(pictures.strip(bare)))
    with pytest.raises(check.NotAvailable):
        pictures.film(bare, "never.gif")


def test_strip_refusals(pipe, run):
    with pytest.raises(ValueError, match="what is 'x0', expected one of: denoised, latents, noise_pred, guidance"):
        pictures.strip(run, "x0")
    with pytest.raises(ValueError, match="no step is recorded"):
        pictures.strip(made(pipe, 0))
    with pytest.raises(ValueError, match="the run has no guidance"):
        pictures.strip(made(pipe, 1, guidance_scale=1.0), "guidance")
    with pytest.raises(ValueError, match="steps is 0"):
        pictures.strip(run, steps=0)


@pytest.mark.long
def test_compare_strip(run, bare):
    fork = run.branch(at=3, prompt="a blue cube")
    fork.finish()
    figure = pictures.compare_strip(run, fork, steps=6)
    assert len(figure.axes) == 18
    told = titles(figure)[12:]
    assert told[:3] == ["equal"] * 3
    assert all(words.startswith("up to") for words in told[3:])
    assert [figure.axes[k].get_ylabel() for k in (0, 6, 12)] == ["run", "run.1", "|a - b|"]
    same = titles(pictures.compare_strip(run, bare, steps=2))
    assert same[0].endswith("(false colours)")
    assert same[4:] == ["equal", "equal"]
    pictures.compare_strip(run, fork, "noise_pred")
    pictures.compare_strip(run, fork, "guidance")
    run.branches.clear()


def test_film_plays_all_steps(run, tmp_path):
    path = pictures.film(run, tmp_path / "folder" / "run.gif", seconds=3)
    with Image.open(path) as film:
        assert (film.n_frames, film.size, film.info["loop"]) == (6, (48, 32), 0)
        times = []
        for k in range(film.n_frames):
            film.seek(k)
            times.append(film.info["duration"])
    assert sum(times) == 3000
    assert [file.name for file in path.parent.iterdir()] == ["run.gif"]
    with Image.open(pictures.film(run, tmp_path / "short.gif", "latents", seconds=0.08)) as film:
        assert film.n_frames == 2
    with pytest.raises(ValueError, match="ends in '.mp4', expected .gif"):
        pictures.film(run, tmp_path / "run.mp4")


def test_save_film_refusals(tmp_path):
    with pytest.raises(ValueError, match="frames is empty"):
        image.save_film([], tmp_path / "a.gif")
    with pytest.raises(ValueError, match="expected one size"):
        image.save_film([torch.rand(1, 3, 4, 5), torch.rand(1, 3, 5, 4)], tmp_path / "a.gif")
    assert not (tmp_path / "a.gif").exists()


def test_series_are_the_states_numbers(run):
    assert pictures.series(run, "t") == (list(range(1, 7)), [s.t for s in run.states[1:]])
    steps, values = pictures.series(run, "latents_norm")
    assert steps == list(range(7))
    assert values[2] == pytest.approx(float(run.states[2].latents.norm() / run.states[2].latents.numel() ** 0.5))
    steps, values = pictures.series(run, "change")
    assert steps == list(range(2, 7))
    moved = run.states[4].denoised - run.states[3].denoised
    assert values[2] == pytest.approx(float(moved.square().mean().sqrt()))
    for name in ("sigma", "guidance", "guidance_norm", "noise_norm"):
        steps, values = pictures.series(run, name)
        assert steps == list(range(1, 7))
        assert all(math.isfinite(v) and v > 0 for v in values)
    assert pictures.series(run, "guidance")[1] == pytest.approx([3.0] * 6, rel=1e-3)


def test_plot_marks_breakpoints(run):
    run.break_at(4)
    run.break_at(t=run.states[2].t)
    figure = pictures.plot_series(run, "guidance_norm")
    dashed = {ln.get_xdata()[0]: ln.get_label() for ln in figure.axes[0].lines if ln.get_linestyle() == "--"}
    assert dashed == {2: f"break: t <= {run.states[2].t:g}", 4: "break: step 4"}
    run.breakpoints.clear()


def test_plot_refusals(pipe, run):
    with pytest.raises(ValueError, match="name is 'loss', expected one of: t, sigma"):
        pictures.plot_series(run, "loss")
    with pytest.raises(ValueError, match="no recorded step has a guidance_norm"):
        pictures.plot_series(made(pipe, 2, guidance_scale=1.0), "guidance_norm")


def test_tree_picture_draws_every_branch(run):
    first = run.branch(at=2, guidance_scale=1.0)
    first.goto(4)
    inner = first.branch(at=3, noise_seed=5)
    figure = pictures.tree_picture(first)
    told = {text.get_text(): text.get_weight() for text in figure.axes[0].texts}
    assert told == {"run": "normal", "run.1: guidance_scale=1.0": "bold", "run.1.1: noise_seed=5": "normal"}
    inner.goto(1)
    pictures.tree_picture(inner).encode()
    run.branches.clear()


def test_tree_of_something_without_branches():
    state = SimpleNamespace(i=0)
    alone = SimpleNamespace(states=[state], recorded=0, i=0, total=None)
    assert [text.get_text() for text in pictures.tree_picture(alone).axes[0].texts] == ["run"]
