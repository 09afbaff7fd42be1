"""Where a run starts from and how it goes: seeds, draws, latents that are given, timesteps."""

import torch

from workbench.stepping.causes.pair import Pair, Told
from workbench.stepping.causes.sentences import another_scale, both, ratio_of


def seed(pair: Pair) -> Told:
    """Another seed."""
    changed = pair.changed()
    if "noise_seed" in changed and pair.step > 0:
        return f"b draws with another noise seed ({changed['noise_seed']}) since it branched off.", {}
    a, b = pair.facts("generators")
    seeds = [[g["seed"] for g in group] for group in (a or [], b or [])]
    if seeds[0] == seeds[1]:
        return None
    told = [", ".join(str(number) for number in numbers) for numbers in seeds]
    return f"another seed: {told[0]} in a, {told[1]} in b.", {"seeds": seeds}


def used_generator(pair: Pair) -> Told:
    """A generator something had been drawn from before: kept from an earlier call, or shared."""
    a, b = pair.facts("generators")
    used = [any(g["used"] for g in group) for group in (a or [], b or [])]
    if used[0] == used[1]:
        return None
    which = "b" if used[1] else "a"
    return (
        f"the generator of {which} had been drawn from before the call (consumed by an earlier call, or shared): "
        f"same seed, other numbers.",
        {"used": used},
    )


def out_of_step_generator(pair: Pair) -> Told:
    """Draws that come earlier or later in one run than in the other: something else drew from the generator."""
    draws = [[*run.start_draws, *(d for k in range(1, run.recorded + 1) for d in run.states[k].draws)]
             for run in (pair.a, pair.b)]  # fmt: skip
    flat = [torch.cat([d.reshape(-1).double() for d in group]) if group else torch.zeros(0) for group in draws]
    if min(len(f) for f in flat) == 0:
        return None
    if len(flat[0]) != len(flat[1]) or not torch.equal(flat[0], flat[1]):
        known = set(flat[0].tolist())
        shared = sum(v in known for v in flat[1][:4096].tolist()) / min(4096, len(flat[1]))
        moved = "the same numbers come at another place: " if shared > 0.5 else ""
        return (
            f"the random draws differ though the seed is the same: {moved}something else drew from the generator of "
            f"one run (it is shared or consumed between steps), or the draws have another shape or order.",
            {"shared": shared},
        )
    return None


def latents_given(pair: Pair) -> Told:
    """Latents given as an argument, or edited."""
    if "edit" in pair.changed():
        return f"b's latents were edited where it branched off, after step {pair.b.at}.", {}
    names = [n for n in pair.differing_arguments() if n in ("latents", "image", "height", "width", "strength")]
    if not names:
        return None
    return f"the call was given other {' and '.join(names)}.", {"arguments": names}


def scale(pair: Pair) -> Told:
    """One start is the other times a number: a scale applied in one only."""
    ratio = ratio_of(pair.a.states[0].latents, pair.b.states[0].latents) if pair.step == 0 else None
    return None if ratio is None else another_scale(pair, ratio, "latents before the first step")


def timesteps_moved(pair: Pair) -> Told:
    """All timesteps moved by one place, or by a constant: an off-by-one."""
    ts = [[run.states[k].t for k in range(1, run.recorded + 1)] for run in (pair.a, pair.b)]
    k = pair.step - 1
    if k >= min(len(t) for t in ts):
        return f"a has {len(ts[0])} steps, b has {len(ts[1])}.", {"steps": [len(t) for t in ts]}
    x, y = ts[0][k], ts[1][k]
    for places, word in ((1, "ahead"), (-1, "behind")):
        if 0 <= k + places < len(ts[0]) and y == ts[0][k + places] and x != y:
            return f"off by one: b is one timestep {word} (t = {y:g} where a has {x:g}).", {"t": (x, y)}
    other = pair.differing_config({"steps_offset", "timestep_spacing", "set_alpha_to_one", "num_train_timesteps"})
    if other:
        return f"the timesteps are laid out otherwise: {both(other)} (t = {x:g} and {y:g}).", {"config": other}
    counts = pair.argument("num_inference_steps")
    if counts[0] != counts[1]:
        return f"another number of steps: {counts[0]} in a, {counts[1]} in b.", {"steps": counts}
    if abs(x - y) == 1:
        return f"off by one: b is at t = {y:g} where a is at {x:g}.", {"t": (x, y)}
    return None
