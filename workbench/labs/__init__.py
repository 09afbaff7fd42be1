"""Exercises that check themselves.

`check` calls a learner's function on pictures it has not seen, says in one line what is wrong and which mistake
it looks like, and hands back a function to go on with: the learner's when it is right, the reference when not.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass

import torch

from workbench import check as checks

_ROOMS = (
    "conventions", "masks", "metrics", "patchmatch", "diffusion", "world", "stepping", "diagnoses", "training",
    "attention", "correspondence", "context_encoder", "neural_patch", "spl", "realfill", "mimicbrush", "diffumatting",
)  # fmt: skip
"""The modules of this package that hold exercises, in teaching order."""


class Mistake(Exception):
    """What is wrong with an answer, in words meant for the learner."""


@dataclass(frozen=True)
class Exercise:
    """One exercise.

    Args:
        name: room and task, as in "metrics.hole_psnr".
        reference: a right answer; its docstring is the task.
        test: calls an answer and raises `Mistake` where it is wrong.
    """

    name: str
    reference: Callable
    test: Callable[[Callable], None]


def list_exercises() -> list[str]:
    """Names of all exercises, in teaching order."""
    return list(_exercises())


def check(name: str, answer: Callable) -> Callable:
    """Checks the answer to an exercise, prints one line, and returns a function to go on with.

    Args:
        name: one of `list_exercises()`.
        answer: the learner's function. One that raises NotImplementedError counts as not done yet.

    Returns:
        ``answer`` when it is right, the reference otherwise: the notebook runs on either way.

    Raises:
        ValueError: no such exercise.
        TypeError: ``answer`` is no function.

    Example:
        >>> my_psnr = check("metrics.hole_psnr", my_psnr)
        metrics.hole_psnr: right.
    """
    exercise = _exercises()[checks.choice(name, "name", _exercises())]
    if not callable(answer):
        raise TypeError(f"answer is a {type(answer).__name__}, expected your function itself, without brackets.")
    try:
        exercise.test(answer)
    except NotImplementedError:
        print(f"{name}: not done yet. The reference stands in for it.")
    except Mistake as mistake:
        print(f"{name}: not right yet. {mistake} The reference stands in for it.")
    except Exception as error:  # the check itself met something that it did not expect
        told = f"{type(error).__name__}: {error}".split("\n")[0]
        print(f"{name}: cannot be judged. What you return is not of the kind that is asked ({told}). "
              "The reference stands in for it.")  # fmt: skip
    else:
        print(f"{name}: right.")
        return answer
    return exercise.reference


def call(answer: Callable, *arguments):
    """Calls a learner's function; an exception inside it becomes a `Mistake` that tells where.

    Who computes in double precision what was given in single is not wrong: such tensors come back as float32.
    """
    try:
        got = answer(*arguments)
        precisions = {value.dtype for value in arguments if isinstance(value, torch.Tensor)}
        return _single(got) if torch.float32 in precisions and torch.float64 not in precisions else got
    except NotImplementedError:
        raise
    except Exception as error:
        line = error.__traceback__
        while line.tb_next is not None and line.tb_frame.f_code is not getattr(answer, "__code__", None):
            line = line.tb_next
        raise Mistake(f"Your line {line.tb_lineno} raised {type(error).__name__}: {error}.") from error


def _single(got):
    """The same with float64 tensors as float32, also in a tuple or list."""
    if type(got) in (tuple, list):
        return type(got)(_single(one) for one in got)
    return got.float() if isinstance(got, torch.Tensor) and got.dtype == torch.float64 else got


def expect(condition: bool, message: str) -> None:
    """Raises `Mistake` with this message unless the condition holds."""
    if not condition:
        raise Mistake(message)


def expect_tensor(got, wanted: str = "a tensor"):
    """What was returned, or a `Mistake` where it is no tensor; ``wanted`` says which: "a tensor (B, C, h, w)"."""
    expect(isinstance(got, torch.Tensor), f"You return a {type(got).__name__}, expected {wanted}.")
    return got


def _exercises() -> dict[str, Exercise]:
    rooms = (importlib.import_module(f"workbench.labs.{room}") for room in _ROOMS)
    return {exercise.name: exercise for room in rooms for exercise in room.EXERCISES}
