"""Why two runs part: for each term, the causes that are known, most telling first.

A cause is a function of a `divergence.Pair`: it returns a sentence and its evidence, or None where it does not hold.
"a" is taken for the right run, "b" for the one in question.
"""

import torch

from workbench.stepping.state import denoiser_answers, guidance_parts

Told = tuple[str, dict] | None
CLOSE = 1e-3


def _facts(pair, group: str) -> tuple[dict, dict]:
    return pair.a.facts.get(group, {}), pair.b.facts.get(group, {})


def _argument(pair, name: str) -> tuple:
    """Values of an argument of the call in both runs; None where it was not given."""
    a, b = _facts(pair, "arguments")
    return a.get(name, {}).get("value"), b.get(name, {}).get("value")


def _differing_arguments(pair) -> list[str]:
    a, b = _facts(pair, "arguments")
    return sorted(n for n in {*a, *b} if a.get(n, {}).get("digest") != b.get(n, {}).get("digest"))


def _changed(pair) -> dict:
    """What b changed when it branched off, if it did."""
    return getattr(pair.b, "changes", {}) or getattr(pair.a, "changes", {})


# Settings that differ, by group


def versions(pair) -> Told:
    """Other versions of the libraries, or another processor."""
    a, b = _facts(pair, "versions")
    other = {n: (a.get(n), b.get(n)) for n in {*a, *b} if a.get(n) != b.get(n)}
    machines = pair.a.facts.get("platform"), pair.b.facts.get("platform")
    if machines[0] != machines[1]:
        other["platform"] = machines
    if not other:
        return None
    told = ", ".join(f"{n} {x} and {y}" for n, (x, y) in sorted(other.items()))
    return f"nothing else differs, but the runs were made with other versions: {told}.", {"versions": other}


def dtype(pair) -> Told:
    """Networks that compute in another precision, or on another device."""
    a, b = _facts(pair, "networks")
    for name in a.keys() & b.keys():
        for what in ("dtype", "device"):
            if a[name][what] != b[name][what]:
                return (
                    f"{name} computes in another {what}: {a[name][what]} in a, {b[name][what]} in b.",
                    {what: (a[name][what], b[name][what])},
                )
    return None


def weights(pair) -> Told:
    """Networks whose weights differ: an adapter loaded in one run only, or other weights altogether."""
    a, b = _facts(pair, "networks")
    for name in sorted(a.keys() & b.keys()):
        x, y = a[name], b[name]
        if x["adapters"] != y["adapters"]:
            with_one, names = ("a", x["adapters"]) if x["adapters"] else ("b", y["adapters"])
            return f"{name} has the LoRA adapter {', '.join(names)} loaded in {with_one} only.", {"network": name}
        if x["weights"] != y["weights"]:
            return (
                f"the weights of {name} differ: another model, or a LoRA that is fused or missing in one run.",
                {"network": name},
            )
    return None


def scheduler_class(pair) -> Told:
    """Another solver altogether."""
    a, b = _facts(pair, "schedulers")
    for name in a.keys() & b.keys():
        if a[name]["class"] != b[name]["class"]:
            return f"another scheduler: {a[name]['class']} in a, {b[name]['class']} in b.", {"scheduler": name}
    return None


def _config_difference(pair, names=None) -> dict:
    a, b = _facts(pair, "schedulers")
    out = {}
    for part in a.keys() & b.keys():
        x, y = a[part]["config"], b[part]["config"]
        out |= {n: (x.get(n), y.get(n)) for n in {*x, *y} if x.get(n) != y.get(n) and (names is None or n in names)}
    return out


def scheduler_config(pair) -> Told:
    """The scheduler set up otherwise."""
    other = _config_difference(pair)
    if not other:
        return None
    told = ", ".join(f"{n} {x} in a and {y} in b" for n, (x, y) in sorted(other.items()))
    return f"the scheduler is set up otherwise: {told}.", {"config": other}


def prediction_type(pair) -> Told:
    """The network's output taken for another kind of prediction."""
    other = _config_difference(pair, {"prediction_type"})
    if not other:
        return None
    x, y = other["prediction_type"]
    return (
        f"wrong prediction_type: the scheduler takes the prediction for {x} in a, for {y} in b.",
        {"prediction_type": (x, y)},
    )


def noise_schedule(pair) -> Told:
    """Another alpha or beta schedule: set up so, or tampered with."""
    a, b = _facts(pair, "schedulers")
    for name in a.keys() & b.keys():
        if a[name]["tables"] != b[name]["tables"] or (
            pair.moment_a and pair.moment_b and pair.moment_a.levels != pair.moment_b.levels
        ):
            betas = _config_difference(pair, {"beta_start", "beta_end", "beta_schedule", "trained_betas",
                                              "rescale_betas_zero_snr"})  # fmt: skip
            told = ", ".join(f"{n} {x} in a and {y} in b" for n, (x, y) in sorted(betas.items()))
            levels = [m.levels for m in (pair.moment_a, pair.moment_b) if m is not None]
            at = f" At t = {pair.moment_a.t:g} the picture's share is {levels[0][0]:.4f} in a, {levels[1][0]:.4f} in b."
            return (
                f"another alpha or beta schedule: {told or 'the tables differ though the settings agree'}."
                + (at if levels[0] != levels[-1] else ""),
                {"levels": levels, "config": betas},
            )
    return None


def eta(pair) -> Told:
    """Another eta: more or less noise put back in each step."""
    x, y = _argument(pair, "eta")
    if x == y:
        return None
    return f"another eta: {x} in a, {y} in b.", {"eta": (x, y)}


# The start


def seed(pair) -> Told:
    """Another seed."""
    changed = _changed(pair)
    if "noise_seed" in changed and pair.step > 0:
        return f"b draws with another noise seed ({changed['noise_seed']}) since it branched off.", {}
    a, b = _facts(pair, "generators")
    seeds = [[g["seed"] for g in group] for group in (a or [], b or [])]
    if seeds[0] == seeds[1]:
        return None
    return f"another seed: {_listed(seeds[0])} in a, {_listed(seeds[1])} in b.", {"seeds": seeds}


def used_generator(pair) -> Told:
    """A generator something had been drawn from before: kept from an earlier call, or shared."""
    a, b = _facts(pair, "generators")
    used = [any(g["used"] for g in group) for group in (a or [], b or [])]
    if used[0] == used[1]:
        return None
    which = "b" if used[1] else "a"
    return (
        f"the generator of {which} had been drawn from before the call (consumed by an earlier call, or shared): "
        f"same seed, other numbers.",
        {"used": used},
    )


def out_of_step_generator(pair) -> Told:
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


def latents_given(pair) -> Told:
    """Latents given as an argument, or edited."""
    if "edit" in _changed(pair):
        return f"b's latents were edited where it branched off, after step {pair.b.at}.", {}
    names = [n for n in _differing_arguments(pair) if n in ("latents", "image", "height", "width", "strength")]
    if not names:
        return None
    return f"the call was given other {' and '.join(names)}.", {"arguments": names}


def scale(pair) -> Told:
    """One start is the other times a number: a scale applied in one only."""
    ratio = _ratio(pair.a.states[0].latents, pair.b.states[0].latents) if pair.step == 0 else None
    if ratio is None:
        return None
    return _scale_sentence(pair, ratio, "latents before the first step")


def _ratio(x: torch.Tensor, y: torch.Tensor) -> float | None:
    """r with y = r x, or None."""
    if x.shape != y.shape or not float(x.abs().max()):
        return None
    x, y = x.double(), y.double()
    r = float((x * y).sum() / x.square().sum())
    return r if float((y - r * x).abs().max()) < CLOSE * float(y.abs().max()) and abs(r - 1) > CLOSE else None


def _scale_sentence(pair, ratio: float, what: str) -> Told:
    factors = {n["scaling_factor"] for group in _facts(pair, "networks") for n in group.values() if n["scaling_factor"]}
    for factor in factors:
        unscaled, twice = ("applied twice", "missing") if what == "decoded latents" else ("missing", "applied twice")
        for name, value in ((unscaled, 1 / factor), (twice, factor)):
            if abs(ratio / value - 1) < CLOSE:
                return (
                    f"scaling factor {name} in b: its {what} are those of a times {ratio:.4g}, and the autoencoder's "
                    f"scaling factor is {factor:.4g}.",
                    {"ratio": ratio},
                )
    return f"the {what} of b are those of a times {ratio:.4g}: a scale is missing or applied twice.", {"ratio": ratio}


# The timestep


def timesteps_moved(pair) -> Told:
    """All timesteps moved by one place, or by a constant: an off-by-one."""
    ts = [[run.states[k].t for k in range(1, run.recorded + 1)] for run in (pair.a, pair.b)]
    k = pair.step - 1
    if k >= min(len(t) for t in ts):
        return f"a has {len(ts[0])} steps, b has {len(ts[1])}.", {"steps": [len(t) for t in ts]}
    x, y = ts[0][k], ts[1][k]
    for places, word in ((1, "ahead"), (-1, "behind")):
        if 0 <= k + places < len(ts[0]) and y == ts[0][k + places] and x != y:
            return f"off by one: b is one timestep {word} (t = {y:g} where a has {x:g}).", {"t": (x, y)}
    other = _config_difference(pair, {"steps_offset", "timestep_spacing", "set_alpha_to_one", "num_train_timesteps"})
    if other:
        told = ", ".join(f"{n} {p} in a and {q} in b" for n, (p, q) in sorted(other.items()))
        return f"the timesteps are laid out otherwise: {told} (t = {x:g} and {y:g}).", {"config": other}
    counts = _argument(pair, "num_inference_steps")
    if counts[0] != counts[1]:
        return f"another number of steps: {counts[0]} in a, {counts[1]} in b.", {"steps": counts}
    if abs(x - y) == 1:
        return f"off by one: b is at t = {y:g} where a is at {x:g}.", {"t": (x, y)}
    return None


# The denoiser's input


def swapped_prompts(pair) -> Told:
    """The halves with and without the prompt changed places."""
    a, b = (denoiser_answers(m)[-1].inputs for m in (pair.moment_a, pair.moment_b))
    for name in a:
        if name.endswith("[0]"):
            other = f"{name[:-3]}[1]"
            crossed = a[name] == b.get(other) and a[other] == b.get(name)
            if crossed and a[name] != a[other]:
                return (
                    f"conditional and unconditional are swapped: {_name(pair, name[:-3])} holds in b's first half what "
                    f"it holds in a's second.",
                    {"argument": name[:-3]},
                )
    return None


def prompt(pair) -> Told:
    """Other texts."""
    names = [n for n in _differing_arguments(pair) if "prompt" in n]
    halves = _differing_inputs(pair)
    if names:
        told = []
        for n in names:
            x, y = _argument(pair, n)
            told.append(f"{n} {x!r} in a, {y!r} in b")
        return f"another prompt: {'; '.join(told)}.", {"arguments": names}
    if any("encoder_hidden_states" in h for h in halves):
        told = weights(pair)
        if told:
            return told
        return (
            "the text states differ though the prompts are the same: another tokenizer, text encoder or clip_skip.",
            {"inputs": halves},
        )
    return None


def mask_channels(pair) -> Told:
    """Channels added to the latents: the mask's polarity, its edge, the known picture."""
    x, y = pair.moment_a.conditioning, pair.moment_b.conditioning
    if x is None or y is None or x.shape != y.shape or torch.equal(x, y):
        return None
    for c in range(x.shape[1]):
        p, q = x[:, c].double(), y[:, c].double()
        if torch.equal(p, q):
            continue
        if _binary(p) or _binary(q):
            return _mask_sentence(pair, p, q)
    ratio = _ratio(x, y)
    known = [c for c in range(x.shape[1]) if not _binary(x[:, c])]
    ratio = ratio or (_ratio(x[:, known], y[:, known]) if known else None)
    if ratio is not None:
        return _scale_sentence(pair, ratio, "known picture's latents")
    names = [n for n in _differing_arguments(pair) if "image" in n or "mask" in n]
    if names:
        return f"the call was given other {' and '.join(names)}.", {"arguments": names}
    return (
        "the known picture's latents differ though the pictures given are the same: the hole is blanked otherwise "
        "before encoding, or its encoding draws other noise.",
        {},
    )


def _binary(x: torch.Tensor) -> bool:
    return bool(((x == 0) | (x == 1)).all())


def _mask_sentence(pair, p: torch.Tensor, q: torch.Tensor) -> Told:
    """Two masks (B, h, w), 1 = repaint: turned round, or of other edges."""
    evidence = {"repainted": (float(p.mean()), float(q.mean()))}
    if torch.equal(p, 1 - q):
        return "mask polarity: b's mask is 1 where a's is 0, so b repaints what a keeps.", evidence
    if "mask_image" in _differing_arguments(pair) or "mask" in _differing_arguments(pair):
        grown = _grown(p, q)
        return f"another mask was given{grown}.", evidence
    return (
        f"the mask is shrunk to the latent grid otherwise{_grown(p, q)}: {p.mean():.1%} of the cells are repainted in "
        f"a, {q.mean():.1%} in b, though the same mask was given.",
        evidence,
    )


def _grown(p: torch.Tensor, q: torch.Tensor) -> str:
    if bool((q >= p).all()):
        return " (b's covers a's and more)"
    return " (a's covers b's and more)" if bool((p >= q).all()) else ""


def scaled_input(pair) -> Told:
    """Equal latents that reach the denoiser at another scale."""
    if pair.moment_a.scaled == pair.moment_b.scaled or not torch.equal(pair.moment_a.sample, pair.moment_b.sample):
        return None
    return scheduler_class(pair) or (
        "the same latents reach the denoiser at another scale: scale_model_input is left out or differs in one run.",
        {},
    )


def other_input(pair) -> Told:
    """Any other argument of the denoiser."""
    names = [n for n in _differing_inputs(pair) if not n.endswith("]")]
    arguments = _differing_arguments(pair)
    if not names:
        return None
    given = f" The calls differ in {', '.join(arguments)}." if arguments else ""
    told = ", ".join(_name(pair, n) for n in names)
    return f"the denoiser is asked with other arguments: {told}.{given}", {"inputs": names}


def guided_or_not(pair) -> Told:
    """Guidance on in one run only."""
    rows = [len(m.answers) and m.answers[-1].output for m in (pair.moment_a, pair.moment_b)]
    parts = [guidance_parts(m) for m in (pair.moment_a, pair.moment_b)]
    if bool(parts[0]) == bool(parts[1]) or not all(r is not None for r in rows):
        return None
    x, y = _argument(pair, "guidance_scale")
    on = "a" if parts[0] else "b"
    return f"only {on} is guided: guidance_scale is {x} in a, {y} in b.", {"guidance_scale": (x, y)}


def _differing_inputs(pair) -> list[str]:
    a, b = (denoiser_answers(m)[-1].inputs for m in (pair.moment_a, pair.moment_b))
    return [n for n in {**a, **b} if a.get(n) != b.get(n)]


def _name(pair, name: str) -> str:
    return {"0": "the latents with what is added to them", "1": "the timestep"}.get(name, name)


# Guidance


def aligned_parts(a, b) -> tuple:
    """`guidance_parts` of two steps in the same order; each alone takes for the text what it is guided towards."""
    p, q = guidance_parts(a), guidance_parts(b)
    crossed = p and q and torch.equal(p[0], q[1]) and torch.equal(p[1], q[0])
    return p, q[::-1] if crossed else q


def guidance(pair) -> Told:
    """The mix of the two predictions: another scale, swapped parts, applied twice."""
    parts = aligned_parts(pair.moment_a, pair.moment_b)
    if not all(parts):
        return guided_or_not(pair)
    g = [_measured(m, p) for m, p in zip((pair.moment_a, pair.moment_b), parts, strict=True)]
    (x, rest_x), (y, rest_y) = g
    evidence = {"guidance": (x, y)}
    scales = _argument(pair, "guidance_scale")
    if abs(y - (1 - x)) < CLOSE * max(1, abs(x)) and abs(x - y) > CLOSE:
        return (
            f"conditional and unconditional are swapped when they are mixed: the measured guidance is {x:.4g} in a and "
            f"1 - {x:.4g} = {y:.4g} in b.",
            evidence,
        )
    if scales[0] == scales[1] and abs(x - 1) > CLOSE and abs(y - x * x) < CLOSE * max(1, x * x):
        return (
            f"guidance applied twice: the measured guidance is {x:.4g} in a and {x:.4g} x {x:.4g} = {y:.4g} in b.",
            evidence,
        )
    if abs(x - y) > CLOSE * max(1, abs(x)):
        called = f" guidance_scale is {scales[0]} in a, {scales[1]} in b." if scales[0] != scales[1] else (
            " Both calls ask for the same guidance_scale.")  # fmt: skip
        return f"another guidance scale: measured {x:.4g} in a, {y:.4g} in b.{called}", evidence
    if max(rest_x, rest_y) > CLOSE:
        return "the guided prediction is rescaled or otherwise changed in one run (guidance_rescale?).", evidence
    return None


def _measured(moment, parts) -> tuple[float, float]:
    """g of uncond + g (text - uncond), and the relative size of what that leaves unexplained."""
    uncond, text = (p.double() for p in parts)
    way, mixed = text - uncond, moment.noise_pred[:, : uncond.shape[1]].double()
    size = way.square().sum()
    if not size > 0:
        return 1.0, 0.0
    g = float(((mixed - uncond) * way).sum() / size)
    rest = mixed - uncond - g * way
    return g, float(rest.square().sum().sqrt() / mixed.square().sum().sqrt().clamp(min=1e-12))


# The solver


def stale_history(pair) -> Told:
    """A multistep scheduler that remembers something else."""
    if pair.moment_a.history == pair.moment_b.history:
        return None
    return (
        "stale solver history: before this step the schedulers remember other earlier predictions or stand at another "
        "place, though everything given to them is equal (a scheduler used before, or not reset).",
        {"history": (pair.moment_a.history, pair.moment_b.history)},
    )


def fewer_draws(pair) -> Told:
    """Noise put back in one run only."""
    counts = len(pair.moment_a.draws), len(pair.moment_b.draws)
    if counts[0] == counts[1]:
        return None
    told = eta(pair) or scheduler_class(pair)
    return told or (f"the scheduler draws {counts[0]} times in a and {counts[1]} times in b.", {"draws": counts})


def solved_otherwise(pair) -> Told:
    """Equal arguments, equal tables, another result."""
    ratio = _ratio(pair.moment_a.solved, pair.moment_b.solved)
    if ratio is None:
        return None
    return f"the scheduler's result in b is that of a times {ratio:.4g}.", {"ratio": ratio}


# Blending


def blend(pair) -> Told:
    """Putting the known latents back: left out, with the mask turned round, or with another edge."""
    kept = [m.latents != m.solved for m in (pair.moment_a, pair.moment_b)]
    shares = [float(k.double().mean()) for k in kept]
    evidence = {"kept": tuple(shares)}
    if shares[0] and not shares[1]:
        return "b does not put the known latents back after the step, a does.", evidence
    if shares[1] and not shares[0]:
        return "b puts known latents back after the step, a does not.", evidence
    if torch.equal(*kept):
        names = _differing_arguments(pair)
        given = f" The calls differ in {', '.join(names)}." if names else ""
        return (
            f"other known latents are put back, in the same cells: another picture or another noise.{given}",
            evidence,
        )
    p, q = ((~k).any(1).double() for k in kept)
    overlap = float((p * q).sum() / torch.minimum(p.sum(), q.sum()).clamp(min=1))
    if overlap < CLOSE or torch.equal(p, 1 - q):
        return "mask polarity: b's mask is 1 where a's is 0, so b repaints what a keeps.", evidence
    return _mask_sentence(pair, p, q)


# The picture


def decoding(pair) -> Told:
    """Equal latents, another picture."""
    a, b = _facts(pair, "networks")
    for name in a.keys() & b.keys():
        x, y = a[name]["scaling_factor"], b[name]["scaling_factor"]
        if x != y:
            return f"missing or other scaling factor of {name}: {x} in a, {y} in b.", {"scaling_factor": (x, y)}
    given = [getattr(run, "decoded_from", None) for run in (pair.a, pair.b)]
    ratio = _ratio(*given) if all(g is not None for g in given) else None
    if ratio is not None:
        return _scale_sentence(pair, ratio, "decoded latents")
    told = dtype(pair) or weights(pair)
    if told:
        return told
    names = _differing_arguments(pair)
    given = f" The calls differ in {', '.join(names)}." if names else ""
    return (
        f"the latents are equal to the end, but they are decoded otherwise: a scaling factor left out, another "
        f"overlay or size.{given}",
        {},
    )


def _listed(values: list) -> str:
    return ", ".join(str(v) for v in values)


_SOLVER = (prediction_type, noise_schedule, scheduler_class, eta, fewer_draws, stale_history, scheduler_config,
           solved_otherwise, versions)  # fmt: skip
_NETWORK = (dtype, weights, versions)
CAUSES = {
    "start": (dtype, latents_given, seed, used_generator, scheduler_class, scale, out_of_step_generator, weights,
              scheduler_config, versions),
    "timestep": (timesteps_moved, scheduler_class, scheduler_config, versions),
    "input": (dtype, guided_or_not, swapped_prompts, prompt, mask_channels, scaled_input, other_input, weights,
              versions),
    "unconditional": _NETWORK,
    "text": _NETWORK,
    "prediction": _NETWORK,
    "guidance": (guidance, dtype, versions),
    "history": _SOLVER,
    "draw": (seed, used_generator, out_of_step_generator, versions),
    "solver": _SOLVER,
    "blend": (latents_given, blend, versions),
    "picture": (decoding, versions),
}  # fmt: skip
"""Term -> the causes that can be behind it, in the order they are tried."""
