"""The exercises of notebook 07: diagnoses of the six faults of `faults`, checked on very small pipelines."""

import copy
import functools
from dataclasses import dataclass

import torch

from workbench.labs import Exercise, call, expect, faults, small


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong with a run: the first step and term that it touches, and a name of `faults.CULPRITS`."""

    step: int
    term: str
    culprit: str


# Runs to diagnose


@functools.cache
def _broken(name: str, factor: float = 2.0):
    """(healthy pipeline, broken one), very small."""
    from workbench.diffusion.libraries import quiet

    pipe = small.pipeline(4 if name == "three" else 9)
    if name == "five":
        with quiet():
            from diffusers import PNDMScheduler
        pipe = copy.copy(pipe)
        vars(pipe)["scheduler"] = PNDMScheduler.from_config(pipe.scheduler.config, skip_prk_steps=True)
    if name == "six":
        pipe = faults.with_lora(pipe, targets=("to_q", "to_v"))
        twin = copy.copy(pipe)
        faults.strengthen_lora(twin, factor)
        return pipe, twin
    twin = faults.plant(pipe, name)
    if name == "five":  # it paints another picture first
        twin(**small.arguments(), num_inference_steps=4, generator=torch.Generator().manual_seed(9))
    return pipe, twin


def make_case(name: str, steps: int = 4, factor: float = 2.0) -> tuple:
    """(healthy run, faulty run) on a very small pipeline, as the checks hand them to an answer.

    Args:
        name: one of `faults.NAMES`.
        steps: of each run.
        factor: of "six": how many times too strong the LoRA is.
    """
    return tuple(small.make_run(pipe, steps) for pipe in _broken(name, factor))


# One, two, three, five: compare with a healthy run


def one(healthy, faulty) -> tuple[int, str, str]:
    """What is wrong with the faulty run of fault "one".

    Args:
        healthy, faulty: two runs of the same call.

    Returns:
        (step, term, culprit): the first step and the first term in which the runs part, one of `faults.TERMS`, and
        one of `faults.CULPRITS`.
    """
    return _first(healthy, faulty, "small mask")


def two(healthy, faulty) -> tuple[int, str, str]:
    """What is wrong with the faulty run of fault "two"; arguments and result as in `one`."""
    return _first(healthy, faulty, "late timestep")


def three(healthy, faulty) -> tuple[int, str, str]:
    """What is wrong with the faulty run of fault "three"; arguments and result as in `one`."""
    return _first(healthy, faulty, "clean blending")


def five(healthy, faulty) -> tuple[int, str, str]:
    """What is wrong with the faulty run of fault "five"; arguments and result as in `one`."""
    return _first(healthy, faulty, "stale solver")


def _first(healthy, faulty, culprit: str) -> tuple[int, str, str]:
    from workbench.stepping import first_divergence

    found = first_divergence(healthy, faulty)
    return found.step, found.term, culprit


def _check_triple(found) -> None:
    expect(
        isinstance(found, (tuple, list)) and len(found) == 3,
        f"You return a {type(found).__name__}, expected three things: step, term, culprit.",
    )
    step, term, culprit = found
    whole = isinstance(step, int) and not isinstance(step, bool)
    expect(whole, f"Your step is {step!r}, expected a whole number such as 3.")
    expect(term in faults.TERMS, f"Your term is {term!r}, expected one of: {', '.join(faults.TERMS)}.")
    expect(culprit in faults.CULPRITS, f"Your culprit is {culprit!r}, expected one of: {', '.join(faults.CULPRITS)}.")


def _check_place(step: int, term: str, right: Diagnosis) -> None:
    """The step and the term, wrong in the ways in which one goes wrong: too early, too late."""
    expect(
        step >= right.step,
        f"In step {step} both runs still have the same bits: go on to the first step in which something differs.",
    )
    expect(
        step <= right.step,
        f"Step {step} differs because step {right.step} already did, and everything after it follows.",
    )
    expect(
        faults.TERMS.index(term) <= faults.TERMS.index(right.term),
        f"The {term} term of step {step} differs only because its inputs already do: go one term back, and ask again.",
    )
    expect(
        faults.TERMS.index(term) >= faults.TERMS.index(right.term),
        f"The {term} term of step {step} has the same bits in both runs: go one term on.",
    )


def _test_diagnosis(name: str, right: Diagnosis, hints: dict[str, str], answer) -> None:
    found = call(answer, *make_case(name))
    _check_triple(found)
    step, term, culprit = found
    _check_place(step, term, right)
    if culprit != right.culprit:
        expect(
            False, hints.get(culprit, f"The place is right, but {culprit!r} ({faults.CULPRITS[culprit]}) it is not.")
        )


_ONE = {
    "mask polarity": "With the polarity turned round every cell of the mask would differ: count how many do.",
    "other picture": "The known picture's latents are equal; of what is added to the latents only the mask differs.",
    "no blending": "A pipeline of nine channels blends nothing, broken or not: it is told the mask as a channel.",
}
_TWO = {
    "shifted timesteps": "state.t is equal in every step, so the list is right. Who gets another t?",
    "other prompt": "The digest of encoder_hidden_states is equal: look in state.inputs for the one that is not.",
    "other weights": "In step 1 the network gives the same bits, so its weights are equal: what is it asked in step 2?",
    "other noise schedule": "The scheduler is asked the same t and has the same table; the network is asked before it.",
}
_THREE = {
    "no blending": "Something is put back: outside the hole latents and solved differ. Look at what.",
    "mask polarity": "Inside the hole both runs have equal latents after step 1, so both repaint the same cells.",
    "other picture": "It is the right picture: the healthy run puts back the very same numbers in its last step.",
    "small mask": "The cells that are put back are the same in both runs; their numbers are not.",
}
_FIVE = {
    "other noise schedule": "Both schedulers have the same tables: a fresh copy of the broken pipeline is right once.",
    "other weights": "noise_pred is equal in step 1, so the network is not to blame. What else goes into a step?",
    "shifted timesteps": "state.t is equal in every step. What does the scheduler know that is not an argument?",
    "guidance twice": "noise_pred is what comes out of guidance, and it is equal in step 1: go on to the scheduler.",
}


# Four: no healthy run, only a rule that every step must keep


def four(run) -> tuple[int, str, str] | None:
    """What is wrong with a run of fault "four", without another to compare it with.

    Args:
        run: of a call with guidance; faulty or not.

    Returns:
        (step, term, culprit): the first step that is wrong; None for a run in which nothing is.
    """
    run.watch(
        lambda before, after: "other guidance" if before.i and abs(after.guidance - before.guidance) > 0.1 else None
    )
    run.finish()
    return (run.i, "guidance", "guidance twice") if run.stopped else None


def _test_four(answer) -> None:
    answered = None
    for steps in (6, 9):
        healthy, run = make_case("four", steps)
        found = call(answer, run)
        _check_triple(found)
        step, term, culprit = found
        run.goto(steps)
        right = next(state.i for state in run.states[1:] if abs(state.guidance - 3) > 0.1)
        expect(
            step != steps,
            f"You return {step}, the last step: did the watch not stop the run? See run.stopped.",
        )
        expect(
            steps == 6 or step != answered or step == right,
            f"For a call of {steps} steps you return {step} again, where guidance is still right: ask the run.",
        )
        expect(
            step != right - 1, f"Step {step} is the last good one: a watch stops after the step that broke the rule."
        )
        expect(
            step == right,
            f"Step {step} is not where it begins: print state.guidance of each, and stop at the first that is off.",
        )
        expect(
            term == "guidance",
            f"The {term} term may look odd too, but measured guidance says it: both parts are sound, their mix is not.",
        )
        expect(
            culprit != "swapped halves",
            "Swapped halves would measure 1 - 3 = -2. What does state.guidance say, and what is it of 3?",
        )
        expect(
            culprit == "guidance twice",
            f"{culprit!r} ({faults.CULPRITS[culprit]}) would not change the measured guidance from 3 to 9.",
        )
        answered = step
    found = call(answer, healthy)
    expect(
        found is None,
        f"For a run in which nothing is wrong you return {found!r}, expected None: see whether the watch stopped it.",
    )


# Six: change one thing at a time until two runs agree


def six(healthy, faulty) -> float | None:
    """How many times too strong the LoRA of the faulty run is.

    Args:
        healthy, faulty: two runs of the same call.

    Returns:
        The factor out of 0, 0.5, 1, 2; None if none of them explains the faulty run.
    """
    wanted = faulty.goto(1).noise_pred
    for factor in (0, 0.5, 1, 2):
        fork = healthy.branch(at=0, cross_attention_kwargs={"scale": factor})
        if torch.allclose(fork.goto(1).noise_pred, wanted, atol=1e-5):
            return factor
    return None


def _test_six(answer) -> None:
    for factor in (2.0, 0.5):
        got = call(answer, *make_case("six", 3, factor))
        expect(
            isinstance(got, (int, float)) and not isinstance(got, bool),
            f"You return a {type(got).__name__}, expected a number. Does no branch agree? The call of a branch has an "
            "argument more, so compare the numbers (noise_pred, latents), or give first_divergence a tolerance.",
        )
        expect(
            factor != 0.5 or got != 2,
            "For another pair of runs the factor is 0.5, and you return 2 again: measure the runs you are given.",
        )
        expect(
            abs(got - 1 / factor) > 1e-3,
            f"You return {got:g} where the LoRA is {factor:g} times as strong: that is the inverse. Branch the healthy "
            "run, and look for what the faulty one does.",
        )
        expect(
            got != 0,
            "You return 0, the first factor you try: what you compare is equal whatever the scale. In state 0 "
            "the network has not been asked yet; compare after a step.",
        )
        expect(
            abs(got - factor) < 1e-3,
            f"You return {got:g} where the LoRA is {factor:g} times as strong as in the healthy run.",
        )
    pipe, _ = _broken("six")
    other = small.make_run(pipe, 3, prompt="a dark room")
    got = call(answer, small.make_run(pipe, 3), other)
    expect(
        got is None,
        f"Two runs differ in their prompts and you return {got}: return None where no factor makes them agree.",
    )


EXERCISES = (
    Exercise("faults.one", one, functools.partial(_test_diagnosis, "one", Diagnosis(1, "input", "small mask"), _ONE)),
    Exercise(
        "faults.two", two, functools.partial(_test_diagnosis, "two", Diagnosis(2, "input", "late timestep"), _TWO)
    ),
    Exercise(
        "faults.three",
        three,
        functools.partial(_test_diagnosis, "three", Diagnosis(1, "blend", "clean blending"), _THREE),
    ),
    Exercise("faults.four", four, _test_four),
    Exercise(
        "faults.five", five, functools.partial(_test_diagnosis, "five", Diagnosis(1, "history", "stale solver"), _FIVE)
    ),
    Exercise("faults.six", six, _test_six),
)
