"""Answers to the exercises on the debugger (notebooks 06 to 08), as in `answers`."""

import math
import statistics

import torch

import workbench as wb

# stepping.guidance


def guidance_least_squares(state):
    way = (state.noise_pred_text - state.noise_pred_uncond).reshape(-1, 1)
    if not way.any():
        return None
    mixed = (state.noise_pred - state.noise_pred_uncond).reshape(-1, 1)
    return torch.linalg.lstsq(way, mixed).solution.item()


def guidance_dot(state):
    uncond, text, mixed = (x.flatten() for x in (state.noise_pred_uncond, state.noise_pred_text, state.noise_pred))
    if torch.equal(uncond, text):
        return None
    return (torch.dot(mixed - uncond, text - uncond) / torch.dot(text - uncond, text - uncond)).item()


def guidance_swapped(state):
    way = state.noise_pred_uncond - state.noise_pred_text
    return (((state.noise_pred - state.noise_pred_text) * way).sum() / way.square().sum()).item()


def guidance_from_zero(state):
    way = state.noise_pred_text - state.noise_pred_uncond
    return float((state.noise_pred * way).sum() / way.square().sum())


def guidance_not_squared(state):
    way = state.noise_pred_text - state.noise_pred_uncond
    return float(((state.noise_pred - state.noise_pred_uncond) * way).sum() / way.norm())


def guidance_sizes(state):
    return float(state.noise_pred.norm() / state.noise_pred_text.norm())


def guidance_lengths(state):
    way = state.noise_pred_text - state.noise_pred_uncond
    return float((state.noise_pred - state.noise_pred_uncond).norm() / way.norm())


def guidance_quotients(state):
    way = state.noise_pred_text - state.noise_pred_uncond
    return float(((state.noise_pred - state.noise_pred_uncond) / way).mean())


def guidance_tensor(state):
    return torch.tensor(guidance_dot(state))


def guidance_never_none(state):
    way = state.noise_pred_text - state.noise_pred_uncond
    return float(((state.noise_pred - state.noise_pred_uncond) * way).sum() / way.square().sum())


# stepping.settled


def _moved(before, after, cells, what="denoised"):
    change = getattr(after, what) - getattr(before, what)
    return ((change.square() * cells).sum() / (cells.sum() * change.shape[1])).sqrt().item()


def settled_loop(run, cells, tolerance):
    run.goto(0)
    before = run.step()
    while not run.done:
        try:
            after = run.step()
        except StopIteration:
            return None
        if after.i == before.i:
            return None
        if _moved(before, after, cells) < tolerance:
            return after.i
        before = after
    return None


def settled_states(run, cells, tolerance):
    run.finish()
    states = run.states
    return next((k for k in range(2, len(states)) if _moved(states[k - 1], states[k], cells) < tolerance), None)


def _settled_from_here(run, cells, tolerance, what="denoised"):
    def still(state):
        return state.i > 1 and _moved(run.states[state.i - 1], state, cells, what) < tolerance

    return run.run_until(still)


def settled_no_rewind(run, cells, tolerance):
    return _settled_from_here(run, cells, tolerance).i


def settled_no_question_at_the_end(run, cells, tolerance):
    run.goto(0)
    return _settled_from_here(run, cells, tolerance).i


def settled_whole(run, cells, tolerance):
    return settled_states(run, torch.ones_like(cells), tolerance)


def settled_latents(run, cells, tolerance):
    run.goto(0)
    return _settled_from_here(run, cells, tolerance, "latents").i


def settled_before(run, cells, tolerance):
    return settled_states(run, cells, tolerance) - 1


def settled_first_step(run, cells, tolerance):
    def still(state):
        before = run.states[state.i - 1].denoised
        before = state.denoised if before is None else before
        return ((state.denoised - before) * cells).square().mean().sqrt() < tolerance

    run.goto(0)
    return run.run_until(still).i


def settled_largest(run, cells, tolerance):
    run.finish()
    changes = {k: ((run.states[k].denoised - run.states[k - 1].denoised) * cells).abs().max() for k in range(2, 8)}
    return next((k for k, change in changes.items() if change < tolerance), 6)


# stepping.who_changed


def who_changed_stack(pictures, box, above):
    x0, y0, x1, y1 = box
    film = torch.cat(pictures)[:, :, y0:y1, x0:x1]
    changes = (film[1:] - film[:-1]).abs().amax((1, 2, 3))
    found = (changes > above).nonzero()
    return int(found.max()) + 1 if len(found) else None


def who_changed_forwards(pictures, box, above):
    mask = wb.mask.box(pictures[0].shape[-2:], box)
    last = None
    for k in range(1, len(pictures)):
        if ((pictures[k] - pictures[k - 1]).abs() * mask > above).any():
            last = k
    return last


def who_changed_first(pictures, box, above):
    x0, y0, x1, y1 = box
    film = torch.cat(pictures)[:, :, y0:y1, x0:x1]
    return int(((film[1:] - film[:-1]).abs().amax((1, 2, 3)) > above).nonzero().min()) + 1


def who_changed_before(pictures, box, above):
    return who_changed_stack(pictures, box, above) - 1


def who_changed_anywhere(pictures, box, above):
    return who_changed_stack(pictures, (0, 0, 32, 24), above)


def who_changed_exchanged(pictures, box, above):
    return who_changed_stack(pictures, (box[1], box[0], box[3], box[2]), above)


def who_changed_mean(pictures, box, above):
    x0, y0, x1, y1 = box
    film = torch.cat(pictures)[:, :, y0:y1, x0:x1]
    return int(((film[1:] - film[:-1]).abs().mean((1, 2, 3)) > above).nonzero().max()) + 1


def who_changed_brighter(pictures, box, above):
    x0, y0, x1, y1 = box
    film = torch.cat(pictures)[:, :, y0:y1, x0:x1]
    return int(((film[1:] - film[:-1]).amax((1, 2, 3)) > above).nonzero().max()) + 1


def who_changed_since_the_first(pictures, box, above):
    x0, y0, x1, y1 = box
    film = torch.cat(pictures)[:, :, y0:y1, x0:x1]
    return int(((film - film[:1]).abs().amax((1, 2, 3)) > above).nonzero().max())


def who_changed_own_limit(pictures, box, above):
    return who_changed_stack(pictures, box, 0.05)


def who_changed_zero(pictures, box, above):
    return who_changed_stack(pictures, box, above) or 0


# faults.one, two, three, five: a diagnosis is three words


def says(step, term, culprit):
    """An answer that always says this."""

    def diagnosis(healthy, faulty):
        return step, term, culprit

    return diagnosis


def asks(culprit):
    """An answer that lets the debugger find the place."""

    def diagnosis(healthy, faulty):
        found = wb.first_divergence(healthy, faulty)
        return [found.step, found.term, culprit]

    return diagnosis


def only_the_culprit(healthy, faulty):
    return "small mask"


def two_by_hand(healthy, faulty):
    """The first step in which equal latents are asked about in another way."""
    for i in range(1, 5):
        a, b = healthy.step(), faulty.step()
        if a.inputs != b.inputs and torch.equal(a.latents_before, b.latents_before):
            return i, "input", "late timestep"
    return None


def three_by_hand(healthy, faulty):
    a, b = healthy.step(), faulty.step()
    assert torch.equal(a.solved, b.solved)
    end = healthy.goto(4).latents
    put_back = b.latents != b.solved
    clean = torch.equal(b.latents[put_back], end[put_back])
    return b.i, "blend", "clean blending" if clean else "other picture"


def five_by_hand(healthy, faulty):
    a, b = healthy.step(), faulty.step()
    same = torch.equal(a.noise_pred, b.noise_pred)
    return (1, "history", "stale solver") if same and a.history != b.history else (1, "solver", "other noise schedule")


# faults.four


def four_watch(run):
    def leaps(before, after):
        if before.i > 0 and not math.isclose(before.guidance, after.guidance, rel_tol=0.01):
            return "guidance is not what it was"
        return None

    run.watch(leaps)
    run.finish()
    if run.stopped is None:
        return None
    return run.state.i, "guidance", "guidance twice"


def four_states(run):
    run.finish()
    wrong = [state.i for state in run.states[1:] if abs(state.guidance - run.arguments["guidance_scale"]) > 0.01]
    return (wrong[0], "guidance", "guidance twice") if wrong else None


def four_wrong_watch(run):
    run.watch("nan")
    run.finish()
    return run.i, "guidance", "guidance twice"


def four_constant(run):
    return 3, "guidance", "guidance twice"


def four_before(run):
    found = four_watch(run)
    return found and (found[0] - 1, *found[1:])


def four_after(run):
    found = four_watch(run)
    return found and (found[0] + 1, *found[1:])


def four_term(run):
    found = four_watch(run)
    return found and (found[0], "text", "guidance twice")


def four_swapped(run):
    found = four_watch(run)
    return found and (found[0], "guidance", "swapped halves")


def four_stale(run):
    found = four_watch(run)
    return found and (found[0], "guidance", "stale solver")


def four_always(run):
    return four_watch(run) or (1, "guidance", "guidance twice")


# faults.six


def six_tolerance(healthy, faulty):
    for factor in (2, 1, 0.5, 0):
        fork = healthy.branch(at=0, cross_attention_kwargs={"scale": float(factor)})
        if wb.first_divergence(faulty, fork, tolerance=1e-4) is None:
            return factor
    return None


def six_nearest(healthy, faulty):
    wanted, far = faulty.goto(2).latents, {}
    for factor in (0.0, 0.5, 1.0, 2.0):
        fork = healthy.branch(at=0, cross_attention_kwargs={"scale": factor})
        far[factor] = (fork.goto(2).latents - wanted).abs().max().item()
    best = min(far, key=far.get)
    return best if far[best] < 1e-3 else None


def six_constant(healthy, faulty):
    return 2.0


def six_inverse(healthy, faulty):
    for factor in (0, 0.5, 1, 2):
        fork = faulty.branch(at=0, cross_attention_kwargs={"scale": factor})
        if torch.allclose(fork.step().noise_pred, healthy.goto(1).noise_pred, atol=1e-5):
            return factor
    return None


def six_too_strict(healthy, faulty):
    for factor in (0, 0.5, 1, 2):
        if wb.first_divergence(healthy.branch(at=0, cross_attention_kwargs={"scale": factor}), faulty) is None:
            return factor
    return None


def six_before_the_network(healthy, faulty):
    for factor in (0, 0.5, 1, 2):
        fork = healthy.branch(at=0, cross_attention_kwargs={"scale": factor})
        if torch.equal(fork.state.latents, faulty.state.latents):
            return factor
    return None


def six_always(healthy, faulty):
    return six_tolerance(healthy, faulty) or 1.0


def six_words(healthy, faulty):
    return "twice"


def six_as_it_is(healthy, faulty):
    return 1


# training.is_spike


def spike_loop(losses, ratio=3.0, window=20):
    newest, earlier = losses[-1], sorted(x for x in losses[-1 - window : -1] if math.isfinite(x))
    if newest != newest or newest in (math.inf, -math.inf):
        return True
    if not earlier:
        return False
    half = len(earlier) // 2
    middle = earlier[half] if len(earlier) % 2 else (earlier[half - 1] + earlier[half]) / 2
    return newest / middle > ratio


def spike_tensor(losses, ratio=3.0, window=20):
    values = torch.tensor(losses, dtype=torch.float64)
    if not values[-1].isfinite():
        return True
    before = values[:-1][-window:]
    return len(before) > 0 and bool(values[-1] > ratio * before.nanquantile(0.5))


def _spike(losses, ratio, window, usual=statistics.median):
    before = losses[-1 - window : -1]
    return not math.isfinite(losses[-1]) or (bool(before) and losses[-1] > ratio * usual(before))


def spike_mean(losses, ratio=3.0, window=20):
    return _spike(losses, ratio, window, statistics.mean)


def spike_all_of_it(losses, ratio=3.0, window=20):
    return _spike(losses, ratio, len(losses))


def spike_itself(losses, ratio=3.0, window=20):
    return losses[-1] > ratio * statistics.median(losses[-window:]) or not math.isfinite(losses[-1])


def spike_comparison(losses, ratio=3.0, window=20):
    return len(losses) > 1 and losses[-1] > ratio * statistics.median(losses[-1 - window : -1])


def spike_three(losses, ratio=3.0, window=20):
    return _spike(losses, 3.0, window)


def spike_eager(losses, ratio=3.0, window=20):
    return losses[-1] > 1.2 * statistics.median(losses[-1 - window : -1])


def spike_first(losses, ratio=3.0, window=20):
    return len(losses) == 1 or _spike(losses, ratio, window)


def spike_word(losses, ratio=3.0, window=20):
    return "yes"


# training.snr_weighted_loss


def snr_where(errors, t, alphas_cumprod, gamma):
    abar = alphas_cumprod.gather(0, t)
    snr = abar / (1 - abar)
    return torch.where(snr > gamma, gamma / snr, 1.0).mul(errors).mean()


def snr_loop(errors, t, alphas_cumprod, gamma):
    total = torch.zeros(())
    for error, step in zip(errors, t.tolist(), strict=True):
        ratio = alphas_cumprod[step] / (1 - alphas_cumprod[step])
        total = total + min(ratio, torch.tensor(gamma)) / ratio * error
    return total / len(errors)


def _weighted(errors, t, alphas_cumprod, weight):
    abar = alphas_cumprod[t]
    return (weight(abar / (1 - abar)) * errors).mean()


def snr_unweighted(errors, t, alphas_cumprod, gamma):
    return errors.mean()


def snr_not_divided(errors, t, alphas_cumprod, gamma):
    return _weighted(errors, t, alphas_cumprod, lambda snr: snr.clamp(max=gamma))


def snr_larger(errors, t, alphas_cumprod, gamma):
    return _weighted(errors, t, alphas_cumprod, lambda snr: snr.clamp(min=gamma) / snr)


def snr_roots(errors, t, alphas_cumprod, gamma):
    return _weighted(errors, t, alphas_cumprod, lambda snr: snr.sqrt().clamp(max=gamma) / snr.sqrt())


def snr_normalised(errors, t, alphas_cumprod, gamma):
    abar = alphas_cumprod[t]
    weight = (gamma * (1 - abar) / abar).clamp(max=1)
    return (weight * errors).sum() / weight.sum()


def snr_summed(errors, t, alphas_cumprod, gamma):
    return len(errors) * snr_where(errors, t, alphas_cumprod, gamma)


def snr_turned(errors, t, alphas_cumprod, gamma):
    return _weighted(errors, t, 1 - alphas_cumprod, lambda snr: snr.clamp(max=gamma) / snr)


def snr_five(errors, t, alphas_cumprod, gamma):
    return snr_where(errors, t, alphas_cumprod, 5.0)


def snr_each(errors, t, alphas_cumprod, gamma):
    return errors * 1.0


# training.lora_norm


def lora_norm_trace(b, a, lora_alpha):
    b, a = b.flatten(1), a.flatten(1)
    return (lora_alpha / len(a)) * torch.trace((b.T @ b) @ (a @ a.T)).sqrt().item()


def lora_norm_columns(b, a, lora_alpha):
    rank = a.shape[0]
    product = sum(torch.outer(b.flatten(1)[:, k], a[k].flatten()) for k in range(rank))
    return lora_alpha / rank * product.square().sum().sqrt().item()


def _product(b, a):
    return b.flatten(1) @ a.flatten(1)


def lora_norm_alpha(b, a, lora_alpha):
    return lora_alpha * _product(b, a).norm().item()


def lora_norm_no_scale(b, a, lora_alpha):
    return _product(b, a).norm().item()


def lora_norm_bound(b, a, lora_alpha):
    return lora_alpha / len(a) * b.norm().item() * a.norm().item()


def lora_norm_spectral(b, a, lora_alpha):
    return lora_alpha / len(a) * torch.linalg.svdvals(_product(b, a)).max().item()


def lora_norm_squares(b, a, lora_alpha):
    return lora_alpha / len(a) * _product(b, a).square().sum().item()


def lora_norm_outputs(b, a, lora_alpha):
    return lora_alpha / len(b) * _product(b, a).norm().item()


def lora_norm_tensor(b, a, lora_alpha):
    return lora_alpha / len(a) * _product(b, a).norm()


RIGHT = {
    "stepping.guidance": [guidance_least_squares, guidance_dot],
    "stepping.settled": [settled_loop, settled_states],
    "stepping.who_changed": [who_changed_stack, who_changed_forwards],
    "faults.one": [says(1, "input", "small mask"), asks("small mask")],
    "faults.two": [two_by_hand, asks("late timestep")],
    "faults.three": [three_by_hand, asks("clean blending")],
    "faults.four": [four_watch, four_states],
    "faults.five": [five_by_hand, asks("stale solver")],
    "faults.six": [six_tolerance, six_nearest],
    "training.is_spike": [spike_loop, spike_tensor],
    "training.snr_weighted_loss": [snr_where, snr_loop],
    "training.lora_norm": [lora_norm_trace, lora_norm_columns],
}
WRONG = {
    "stepping.guidance": [
        ("that is 1 - g", guidance_swapped),
        ("subtract noise_pred_uncond first", guidance_from_zero),
        ("expected its square", guidance_not_squared),
        ("You compare the sizes", guidance_sizes),
        ("a quotient of lengths has no sign", guidance_lengths),
        ("the quotients of single numbers", guidance_quotients),
        ("expected a plain number", guidance_tensor),
        ("nothing can be measured there", guidance_never_none),
    ],
    "stepping.settled": [
        ("run_until starts where the run stands", settled_no_rewind),
        ("Ask once more whether it holds there", settled_no_question_at_the_end),
        ("only the cells of the region count", settled_whole),
        ("they shed noise in every step", settled_latents),
        ("the step before", settled_before),
        ("nothing comes before it", settled_first_step),
        ("root mean square over", settled_largest),
    ],
    "stepping.who_changed": [
        ("the first change of the box", who_changed_first),
        ("the picture before", who_changed_before),
        ("only pixels outside the box", who_changed_anywhere),
        ("rows come before columns", who_changed_exchanged),
        ("one changed pixel is enough", who_changed_mean),
        ("changes count in both directions", who_changed_brighter),
        ("where nothing changed at all", who_changed_since_the_first),
        ("by less than the limit", who_changed_own_limit),
        ("return None there", who_changed_zero),
    ],
    "faults.one": [
        ("count how many do", says(1, "input", "mask polarity")),
        ("The unconditional term of step 1 differs only because", says(1, "unconditional", "other weights")),
        ("Step 2 differs because step 1 already did", says(2, "input", "small mask")),
        ("In step 0 both runs still have the same bits", says(0, "start", "small mask")),
        ("of what is added to the latents only the mask differs", says(1, "input", "other picture")),
        ("blends nothing, broken or not", says(1, "input", "no blending")),
        ("expected three things", only_the_culprit),
        ("Your culprit is 'the mask'", says(1, "input", "the mask")),
    ],
    "faults.two": [
        ("In step 1 both runs still have the same bits", says(1, "input", "late timestep")),
        ("Step 3 differs because step 2 already did", says(3, "input", "late timestep")),
        ("The guidance term of step 2 differs only because", says(2, "guidance", "guidance twice")),
        ("The timestep term of step 2 has the same bits", says(2, "timestep", "late timestep")),
        ("Who gets another t?", asks("shifted timesteps")),
        ("so its weights are equal", asks("other weights")),
        ("The digest of encoder_hidden_states is equal", asks("other prompt")),
        ("Your term is 'unet'", says(2, "unet", "late timestep")),
    ],
    "faults.three": [
        ("Step 2 differs because step 1 already did", says(2, "input", "clean blending")),
        ("The solver term of step 1 has the same bits", says(1, "solver", "clean blending")),
        ("The picture term of step 1 differs only because", says(1, "picture", "clean blending")),
        ("Something is put back", asks("no blending")),
        ("both repaint the same cells", asks("mask polarity")),
        ("It is the right picture", asks("other picture")),
        ("The place is right, but 'other weights'", asks("other weights")),
    ],
    "faults.four": [
        ("did the watch not stop the run?", four_wrong_watch),
        ("For a call of 9 steps you return 3 again", four_constant),
        ("is the last good one", four_before),
        ("is not where it begins", four_after),
        ("both parts are sound, their mix is not", four_term),
        ("would measure 1 - 3 = -2", four_swapped),
        ("would not change the measured guidance from 3 to 9", four_stale),
        ("For a run in which nothing is wrong", four_always),
    ],
    "faults.five": [
        ("Step 2 differs because step 1 already did", says(2, "input", "stale solver")),
        ("The solver term of step 1 differs only because", says(1, "solver", "stale solver")),
        ("The guidance term of step 1 has the same bits", says(1, "guidance", "guidance twice")),
        ("a fresh copy of the broken pipeline is right once", asks("other noise schedule")),
        ("so the network is not to blame", asks("other weights")),
        ("What does the scheduler know", asks("shifted timesteps")),
        ("it is equal in step 1: go on to the scheduler", asks("guidance twice")),
    ],
    "faults.six": [
        ("you return 2 again", six_constant),
        ("that is the inverse", six_inverse),
        ("Does no branch agree?", six_too_strict),
        ("the first factor you try", six_before_the_network),
        ("return None where no factor", six_always),
        ("You return a str", six_words),
        ("You return 1 where the LoRA is 2 times", six_as_it_is),
    ],
    "training.is_spike": [
        ("Take the median, no mean", spike_mean),
        ("only the last window steps count", spike_all_of_it),
        ("the newest is not among those", spike_itself),
        ("every comparison with NaN is False", spike_comparison),
        ("does not follow the ratio", spike_three),
        ("You call 0.7 a spike", spike_eager),
        ("The very first loss", spike_first),
        ("expected True or False", spike_word),
    ],
    "training.snr_weighted_loss": [
        ("You weigh all noise levels alike", snr_unweighted),
        ("For noise divide by SNR", snr_not_divided),
        ("expected the smaller", snr_larger),
        ("no roots", snr_roots),
        ("You divide by the sum of the weights", snr_normalised),
        ("You sum over the samples", snr_summed),
        ("Your SNR is turned round", snr_turned),
        ("does not follow gamma", snr_five),
        ("expected the mean over the samples", snr_each),
    ],
    "training.lora_norm": [
        ("You scale by lora_alpha alone", lora_norm_alpha),
        ("You leave the scale out", lora_norm_no_scale),
        ("that is an upper bound", lora_norm_bound),
        ("the largest singular value", lora_norm_spectral),
        ("You return the sum of squares", lora_norm_squares),
        ("You divide by the number of outputs", lora_norm_outputs),
        ("You return a Tensor", lora_norm_tensor),
    ],
}
