"""Exercises of notebook 06: what a state tells, when a hole is decided, who changed a region."""

import functools
import itertools
import math
from types import SimpleNamespace

import torch

from workbench.labs import Exercise, call, expect, small


def guidance(state) -> float | None:
    """The factor that a step was guided with, measured from what it computed.

    noise_pred = uncond + g d, d = text - uncond; by least squares g = sum (noise_pred - uncond) d / sum d^2

    Args:
        state: with noise_pred, noise_pred_uncond and noise_pred_text, tensors of one shape.

    Returns:
        g; None where both parts are the same.
    """
    way = state.noise_pred_text - state.noise_pred_uncond
    size = way.square().sum()
    if size == 0:
        return None
    return float(((state.noise_pred - state.noise_pred_uncond) * way).sum() / size)


def _guided(g: float, seed: int) -> SimpleNamespace:
    """Three predictions as a step has them; the guided one carries the small error of half precision."""
    generator = torch.Generator().manual_seed(seed)
    uncond, way, error = torch.randn(3, 2, 4, 8, 12, generator=generator)
    text = uncond + 0.1 * way
    mixed = uncond + g * (text - uncond)
    return SimpleNamespace(
        noise_pred=mixed + 0.004 * error * mixed.abs(), noise_pred_uncond=uncond, noise_pred_text=text
    )


def _test_guidance(answer) -> None:
    for g, seed in ((3.0, 0), (7.5, 1), (-0.8, 2)):
        state = _guided(g, seed)
        got = call(answer, state)
        expect(
            isinstance(got, (int, float)) and not isinstance(got, bool),
            f"You return a {type(got).__name__}, expected a plain number: wrap it in float(...).",
        )
        uncond, text, mixed = state.noise_pred_uncond, state.noise_pred_text, state.noise_pred
        way = text - uncond

        def like(other, got=got) -> bool:
            return math.isclose(got, float(other), rel_tol=0.01, abs_tol=0.01)

        expect(
            not like(1 - guidance(state)) or like(g),
            f"You get {got:.3g} where g is {g:g}: that is 1 - g. The way leads from uncond to text.",
        )
        expect(
            not like((mixed * way).sum() / way.square().sum()),
            "You project noise_pred itself: subtract noise_pred_uncond first, for guidance starts there.",
        )
        expect(
            not like(((mixed - uncond) * way).sum() / way.square().sum().sqrt()),
            "You divide by the length of text - uncond, expected its square: the sum of squares.",
        )
        expect(
            not like(mixed.norm() / text.norm()) and not like(mixed.std() / text.std()),
            "You compare the sizes of noise_pred and text: both hold uncond, which is most of them.",
        )
        expect(
            not (g < 0 and like(-g)),
            f"You get {got:.3g} where g is {g:g}: a quotient of lengths has no sign. Sum products instead.",
        )
        expect(
            not like(((mixed - uncond) / way).mean()),
            "You average the quotients of single numbers: where text and uncond nearly agree they blow up. Sum first, "
            "then divide.",
        )
        expect(like(g), f"You get {got:.4g} where g is {g:g}.")
    state = _guided(3.0, 3)
    state.noise_pred_text = state.noise_pred_uncond.clone()
    got = call(answer, state)
    expect(got is None, f"You get {got} where both parts are the same: nothing can be measured there, return None.")


def settled(run, cells: torch.Tensor, tolerance: float) -> int | None:
    """The first step after which a region of the predicted picture hardly moves.

    rms over the region's cells and all channels of (denoised - denoised one step earlier) < tolerance

    Args:
        run: a DenoisingRun, wherever it stands.
        cells: (1, 1, h, w) on the latent grid, 1 = in the region.
        tolerance: above 0.

    Returns:
        i of that step, 2 at the earliest; None if there is none to the end.
    """

    def still(state) -> bool:
        return state.i > 1 and _movement(run, state, cells) < tolerance

    run.goto(0)
    found = run.run_until(still)
    return found.i if still(found) else None


def _movement(run, state, cells: torch.Tensor, what: str = "denoised") -> float:
    moved = getattr(state, what) - getattr(run.states[state.i - 1], what)
    return _rms(moved[cells.expand_as(moved) == 1])


def _rms(values: torch.Tensor) -> float:
    return float(values.square().mean().sqrt())


def _test_settled(answer) -> None:
    film, cells, moves = _recorded()
    right, whole = 3, torch.ones_like(cells)
    tolerance = (moves[right] * _movement(film, film.states[right], whole)) ** 0.5  # the whole moves more

    def again(at: int):
        run = film.branch(at=film.total)  # all its steps are recorded: nothing is computed
        film.branches.clear()
        run.goto(at)
        return run

    got = call(answer, again(0), cells, tolerance)
    expect(
        isinstance(got, int) and not isinstance(got, bool),
        f"You return a {type(got).__name__}, expected the number of a step, state.i.",
    )
    expect(
        got != 1,
        "You get step 1: nothing comes before it that it could be compared with, so step 2 is the first to ask.",
    )
    expect(
        got != right - 1,
        f"You get {got}, the step before: step {right} is the first that hardly moves the region.",
    )
    expect(
        got != _first(film, whole, tolerance),
        f"You get step {got}, when the whole picture settles; only the cells of the region count.",
    )
    expect(
        got != _first(film, cells, tolerance, "latents"),
        f"You get step {got} from the latents: they shed noise in every step. Ask what they will become, denoised.",
    )
    expect(
        got == right,
        f"You get step {got}, expected {right}: the region moves by {moves[right]:.3g} there (root mean square over "
        f"its cells and all channels), and the tolerance is {tolerance:.3g}.",
    )
    for stands in (film.total, 5):
        got = call(answer, again(stands), cells, tolerance)
        expect(
            got == right,
            f"The run stood at step {stands} when you got it, and you return {got}: run_until starts where the run "
            "stands. Go to 0 first.",
        )
    got = call(answer, again(0), cells, 1e-6)
    expect(
        got is None,
        f"You get {got} where the region never comes to rest: run_until also returns at the end of the run. Ask once "
        "more whether it holds there, and return None if not.",
    )


@functools.cache
def _recorded():
    """A run with all its steps, half of its cells (those that move least), and how much they move in each step."""
    run = small.make_run(steps=7)
    run.goto(7)
    pairs = list(itertools.pairwise(run.states[1:]))
    moved = torch.stack([(b.denoised - a.denoised).abs().mean(1, keepdim=True) for a, b in pairs])  # (6, 1, 1, h, w)
    quiet = moved.mean(0)
    cells = (quiet <= quiet.median()).float()  # (1, 1, h, w)
    return run, cells, {b.i: _movement(run, b, cells) for _, b in pairs}


def _first(run, cells, tolerance: float, what: str = "denoised") -> int | None:
    return next((s.i for s in run.states[2:] if _movement(run, s, cells, what) < tolerance), None)


def who_changed(pictures: list[torch.Tensor], box: tuple[int, int, int, int], above: float) -> int | None:
    """The last picture that changed a box by more than a limit.

    Args:
        pictures: predicted pictures (1, 3, H, W) in [0, 1], one a step.
        box: (x0, y0, x1, y1), end excluded.
        above: some number in the box must have changed by more than this, up or down.

    Returns:
        Its index in the list, 1 or more; None if none did.
    """
    x0, y0, x1, y1 = box
    for k in range(len(pictures) - 1, 0, -1):
        if float((pictures[k] - pictures[k - 1])[..., y0:y1, x0:x1].abs().max()) > above:
            return k
    return None


def _test_who_changed(answer) -> None:
    box = (12, 5, 20, 15)
    pictures = _film()
    got = call(answer, [p.clone() for p in pictures], box, 0.1)
    expect(
        isinstance(got, int) and not isinstance(got, bool),
        f"You return a {type(got).__name__}, expected an index of the list.",
    )
    expect(got != 2, "You get 2, the first change of the box: the last one decides what is seen in the end.")
    expect(got != 5, "You get 5, the picture before: the change is between 5 and 6, and it was picture 6 that made it.")
    expect(got != 9, "You get 9, which changed only pixels outside the box.")
    expect(got != 8, "You get 8: rows come before columns, so a box is [..., y0:y1, x0:x1].")
    expect(got != 10, "You get 10, where nothing changed at all: compare each picture with the one just before it.")
    expect(got != 4, "You get 4: one changed pixel is enough. Take the largest change in the box, not the mean.")
    expect(
        got != 3,
        "You get 3 and miss picture 6, where the box grew darker: changes count in both directions, so take abs().",
    )
    expect(got != 7, "You get 7, which changed by less than the limit.")
    expect(got == 6, f"You get {got}, expected 6.")
    got = call(answer, [p.clone() for p in pictures], box, 0.9)
    expect(got is None, f"You get {got} where no picture changed the box by more than 0.9: return None there.")


def _film() -> list[torch.Tensor]:
    """Eleven pictures: 2, 3 and 4 change the box, 6 one pixel of it, 7 too little; the others something else."""
    frames = [torch.full((1, 3, 24, 32), 0.5)]

    def next_frame(rows: tuple, columns: tuple, change: float) -> None:
        frame = frames[-1].clone()
        frame[..., slice(*rows), slice(*columns)] += change
        frames.append(frame)

    next_frame((20, 24), (0, 6), 0.3)  # 1: outside
    next_frame((5, 15), (12, 20), -0.3)
    next_frame((5, 15), (12, 20), 0.35)
    next_frame((5, 15), (12, 20), -0.2)
    next_frame((0, 4), (0, 32), 0.2)  # 5: outside
    next_frame((9, 10), (14, 15), -0.2)  # 6: one pixel, darker
    next_frame((5, 15), (12, 20), 0.08)  # 7: less than the limit
    next_frame((12, 20), (5, 12), 0.25)  # 8: the box with x and y exchanged
    next_frame((20, 24), (28, 32), -0.4)  # 9: outside
    next_frame((0, 1), (0, 1), 0.0)  # 10: nothing
    return frames


EXERCISES = (
    Exercise("stepping.guidance", guidance, _test_guidance),
    Exercise("stepping.settled", settled, _test_settled),
    Exercise("stepping.who_changed", who_changed, _test_who_changed),
)
