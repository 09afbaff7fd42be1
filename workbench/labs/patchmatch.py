"""Exercises of notebook 03: one step of propagation, one random search, one vote.

A field ``xy`` holds for every pixel where its best match lies: (1, 2, H, W) int64, x first, -1 = no match.
"""

import torch

from workbench.labs import Exercise, call, expect, expect_tensor


def propagate(xy: torch.Tensor, dx: int, dy: int) -> torch.Tensor:
    """What each pixel tries in propagation: its neighbour's match, moved by the step between the two.

    candidate(x, y) = xy(x - dx, y - dy) + (dx, dy)

    Args:
        xy: a field (1, 2, H, W), -1 = no match.
        dx, dy: the step from the neighbour to the pixel, any sign.

    Returns:
        (1, 2, H, W) int64; -1 where the neighbour lies outside the picture or has no match.
    """
    height, width = xy.shape[-2:]
    candidate = torch.full_like(xy, -1)
    to_y, to_x = slice(max(dy, 0), height + min(dy, 0)), slice(max(dx, 0), width + min(dx, 0))
    from_y, from_x = slice(max(-dy, 0), height + min(-dy, 0)), slice(max(-dx, 0), width + min(-dx, 0))
    candidate[..., to_y, to_x] = xy[..., from_y, from_x]
    step = torch.tensor([dx, dy]).view(1, 2, 1, 1)
    return torch.where(candidate >= 0, candidate + step, -1)


def _test_propagate(answer) -> None:
    generator = torch.Generator().manual_seed(0)
    xy = torch.randint(20, 90, (1, 2, 7, 11), generator=generator)
    xy[:, :, 3, 4] = -1
    before = xy.clone()
    for dx, dy in ((1, 0), (0, 1), (-1, 0), (0, -2)):
        got, right = call(answer, xy, dx, dy), propagate(before, dx, dy)
        expect_tensor(got)
        expect(got.shape == xy.shape, f"You return shape {tuple(got.shape)}, expected that of xy, {tuple(xy.shape)}.")
        expect(torch.equal(xy, before), "You change the field you were given; write into a copy.")
        step = torch.tensor([dx, dy]).view(1, 2, 1, 1)
        known = right >= 0
        told = f"for the step (dx, dy) = ({dx}, {dy})"
        expect(
            not torch.equal(got[known], (right - step)[known]),
            f"You copy the neighbour's match as it is, {told}: one pixel further here is one pixel further there, "
            "so add the step.",
        )
        mirrored = propagate(before, -dx, -dy)
        expect(
            not torch.equal(got, mirrored) and not torch.equal(got[known], (right - 2 * step)[known]),
            f"Your step has the wrong sign {told}: the pixel at (x, y) asks the one at (x - dx, y - dy).",
        )
        expect(
            not torch.equal(got, propagate(before, dy, dx)) and not torch.equal(got, propagate(before, dy, dx).flip(1)),
            f"You move along the wrong axis {told}: dx goes along the last dimension, dy along the one before.",
        )
        wrapped = torch.roll(before, (dy, dx), (2, 3)) + step
        expect(
            not torch.equal(got, wrapped) and not torch.equal(got, torch.where(wrapped == step - 1, -1, wrapped)),
            f"At the frame you ask the pixel on the opposite side, {told}: torch.roll wraps round. Put -1 there.",
        )
        lost = torch.where(right < 0, right + step, right)
        expect(
            not torch.equal(got, lost),
            f"A neighbour without a match (-1) has nothing to offer, {told}: the candidate must stay -1.",
        )
        expect(torch.equal(got[known], right[known]), f"Some candidates are wrong {told}.")
        expect(torch.equal(got, right), f"Where the neighbour is missing the candidate should be -1, {told}.")


def random_search(xy: torch.Tensor, radius: float, generator: torch.Generator) -> list[torch.Tensor]:
    """What each pixel tries in random search: places round its match, in ever smaller squares.

    u_i = v0 + w R_i / 2^i, R_i uniform in [-1, 1]^2, drawn anew for every pixel; i = 0, 1, ... while w / 2^i >= 1

    Args:
        xy: the matches v0, (1, 2, H, W) int64.
        radius: w, the first radius in pixels.
        generator: where the random numbers come from.

    Returns:
        One (1, 2, H, W) int64 tensor a radius, the largest first. Candidates may lie outside the picture.
    """
    candidates = []
    while radius >= 1:
        r = 2 * torch.rand(xy.shape, generator=generator) - 1
        candidates.append(xy + (radius * r).round().long())
        radius /= 2
    return candidates


def _test_random_search(answer) -> None:
    xy = torch.full((1, 2, 60, 80), 500)
    xy[:, 1] = 900
    state = torch.random.get_rng_state()
    got = call(answer, xy, 20.0, torch.Generator().manual_seed(1))
    again = call(answer, xy, 20.0, torch.Generator().manual_seed(1))
    touched = not torch.equal(torch.random.get_rng_state(), state)
    torch.random.set_rng_state(state)
    expect(
        isinstance(got, (list, tuple)) and all(isinstance(c, torch.Tensor) for c in got),
        f"You return a {type(got).__name__}, expected a list of tensors, one a radius.",
    )
    expect(
        len(got) == 5,
        f"From radius 20 you make {len(got)} candidates, expected 5: radii 20, 10, 5, 2.5, 1.25; the next is below 1.",
    )
    expect(all(c.shape == xy.shape for c in got), f"Each candidate should have the shape of xy, {tuple(xy.shape)}.")
    expect(
        all(not c.is_floating_point() for c in got),
        "Your candidates are fractions of a pixel, expected whole pixels: round, then .long().",
    )
    expect(
        not touched and all(torch.equal(a, b) for a, b in zip(got, again, strict=True)),
        "You draw from the global random state: pass generator=generator to torch.rand.",
    )
    moves = [(c - xy).float() for c in got]
    expect(
        moves[0].abs().max().item() <= 20,
        f"Some first candidates lie {moves[0].abs().max().item():.0f} pixels away, expected at most the radius, 20, "
        "from the match so far.",
    )
    expect(moves[0].std().item() > 1, "All pixels move alike: draw a number for every pixel.")
    expect(
        moves[0].mean().abs().item() < 1,
        "Your candidates lie on one side only: R runs from -1 to 1, torch.rand from 0 to 1.",
    )
    both = torch.corrcoef(moves[0].flatten(2)[0])[0, 1].abs().item()
    expect(both < 0.5, "x and y always move together, along a diagonal: draw one number for each.")
    widths = [m.abs().max().item() for m in moves]
    expect(
        all(w <= 20 / 2**i + 0.5 for i, w in enumerate(widths)),
        "The radius does not shrink: halve it from one candidate to the next.",
    )
    expect(
        all(abs(m.mean().item()) < 0.6 for m in moves),
        "Each candidate should lie round v0, the match given, not round the candidate before.",
    )


def vote(source: torch.Tensor, xy: torch.Tensor, weight: torch.Tensor, patch: int) -> torch.Tensor:
    """Voting: each pixel becomes the weighted mean of what all patches that cover it propose.

    result(p) = sum over d of w(p - d) source(xy(p - d) + d) / sum over d of w(p - d), d in the patch

    Args:
        source: the picture patches are copied from, (1, 3, H2, W2).
        xy: a full field (1, 2, H, W); every matched patch lies wholly inside the source.
        weight: (1, 1, H, W), above 0, how much each patch's opinion counts.
        patch: width of a patch, odd.

    Returns:
        (1, 3, H, W). Patches centred outside the picture do not exist and do not vote.
    """
    height, width = xy.shape[-2:]
    radius = patch // 2
    total, votes = source.new_zeros(1, 3, height, width), source.new_zeros(1, 1, height, width)
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            to_y, to_x = slice(max(dy, 0), height + min(dy, 0)), slice(max(dx, 0), width + min(dx, 0))
            from_y, from_x = slice(max(-dy, 0), height + min(-dy, 0)), slice(max(-dx, 0), width + min(-dx, 0))
            x, y = xy[0, :, from_y, from_x]
            w = weight[..., from_y, from_x]
            total[..., to_y, to_x] += w * source[:, :, y + dy, x + dx]
            votes[..., to_y, to_x] += w
    return total / votes


def _test_vote(answer) -> None:
    generator = torch.Generator().manual_seed(0)
    source = torch.rand(1, 3, 20, 26, generator=generator)
    y = torch.randint(2, 18, (1, 1, 9, 13), generator=generator)
    x = torch.randint(2, 24, (1, 1, 9, 13), generator=generator)
    xy = torch.cat([x, y], 1)
    weight = 0.1 + torch.rand(1, 1, 9, 13, generator=generator)
    before = source.clone(), xy.clone(), weight.clone()
    got, right = call(answer, source, xy, weight, 5), vote(source, xy, weight, 5)
    expect_tensor(got)
    expect(got.shape == right.shape, f"You return shape {tuple(got.shape)}, expected {tuple(right.shape)}.")
    same = all(torch.equal(a, b) for a, b in zip(before, (source, xy, weight), strict=True))
    expect(same, "You change what you were given; work on copies.")

    def looks_like(other) -> bool:
        return torch.allclose(got, other.float(), atol=1e-4)

    inner = slice(2, -2)
    flat = torch.ones_like(weight)
    expect(
        not looks_like(source[:, :, y[0, 0], x[0, 0]]),
        "You copy only the middle pixel of each match: every one of the 25 patches that cover a pixel has a say.",
    )
    expect(
        not looks_like(vote(source, xy, flat, 5)),
        "You count every patch alike: multiply by weight, and divide by the sum of the weights.",
    )
    expect(
        not looks_like(_mirrored_vote(source, xy, weight)),
        "The offset has the wrong sign: a patch centred at p - d sees p at +d, so it proposes source(xy(p - d) + d).",
    )
    frame_only = torch.allclose(got[..., inner, inner], right[..., inner, inner], atol=1e-4)
    expect(
        not (frame_only and not looks_like(right)),
        "At the frame your picture is wrong: fewer patches cover a pixel there, so divide by the weights that voted.",
    )
    scale = got[..., inner, inner] / right[..., inner, inner]
    expect(
        scale.std().item() > 0.05 or abs(scale.mean().item() - 1) < 0.01,
        f"Your picture is {scale.mean().item():.2g} times too bright: divide by the sum of the weights that voted.",
    )
    expect(looks_like(right), "The votes are not those of the formula: is x taken from xy[:, 0] and y from xy[:, 1]?")


def _mirrored_vote(source, xy, weight) -> torch.Tensor:
    """The vote with the wrong sign, source(xy(p - d) - d), for patches of 5."""
    height, width = xy.shape[-2:]
    padded_xy = torch.nn.functional.pad(xy, (2, 2, 2, 2), value=2)  # weight 0 below: their votes do not count
    padded_weight = torch.nn.functional.pad(weight, (2, 2, 2, 2))
    total, votes = 0, 0
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            rows, columns = slice(2 - dy, 2 - dy + height), slice(2 - dx, 2 - dx + width)
            x, y = padded_xy[0, :, rows, columns]
            w = padded_weight[..., rows, columns]
            total, votes = total + w * source[:, :, y - dy, x - dx], votes + w
    return total / votes


EXERCISES = (
    Exercise("patchmatch.propagate", propagate, _test_propagate),
    Exercise("patchmatch.random_search", random_search, _test_random_search),
    Exercise("patchmatch.vote", vote, _test_vote),
)
