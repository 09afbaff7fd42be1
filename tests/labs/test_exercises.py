"""Every exercise check is proven both ways: right answers pass, typical wrong ones fail with the words meant for them.

The answers here are written independently of the checks.
"""

import pytest
import torch

import workbench as wb
from tests.labs import answers
from workbench import labs

NAMES = labs.list_exercises()


def test_every_exercise_has_answers_to_try():
    assert set(answers.RIGHT) == set(answers.WRONG) == set(NAMES)
    assert all(len(right) >= 2 for right in answers.RIGHT.values())
    assert all(len(wrong) >= 5 for wrong in answers.WRONG.values())


@pytest.mark.parametrize(
    ("name", "answer"), [(n, a) for n in NAMES for a in answers.RIGHT[n]], ids=lambda v: getattr(v, "__name__", v)
)
def test_right_answers_pass(name, answer, capsys):
    assert labs.check(name, answer) is answer
    assert capsys.readouterr().out == f"{name}: right.\n"


@pytest.mark.parametrize(
    ("name", "words", "answer"),
    [(n, words, a) for n in NAMES for words, a in answers.WRONG[n]],
    ids=lambda v: getattr(v, "__name__", v)[:30],
)
def test_wrong_answers_fail_with_their_own_words(name, words, answer, capsys):
    assert labs.check(name, answer) is not answer
    said = capsys.readouterr().out
    assert said.startswith(f"{name}: not right yet. ")
    assert words in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("name", NAMES)
def test_each_mistake_has_words_of_its_own(name):
    words = [w for w, _ in answers.WRONG[name]]
    assert len(set(words)) == len(words)


@pytest.mark.parametrize("name", NAMES)
def test_unfinished_and_broken_answers(name, capsys):
    def unfinished(*arguments):
        raise NotImplementedError

    def broken(*arguments):
        return 1 / 0

    def forgetful(*arguments):
        pass

    reference = labs.check(name, unfinished)
    assert capsys.readouterr().out == f"{name}: not done yet. The reference stands in for it.\n"
    assert labs.check(name, reference) is reference
    assert "right" in capsys.readouterr().out
    labs.check(name, broken)
    assert "raised ZeroDivisionError: division by zero" in capsys.readouterr().out
    labs.check(name, forgetful)
    assert "You return a NoneType" in capsys.readouterr().out


def test_the_line_of_a_fault_is_named(capsys):
    def faulty(result, truth, mask):
        inner = result.sum((1, 2, 3))
        return inner[99]

    labs.check("metrics.hole_psnr", faulty)
    line = faulty.__code__.co_firstlineno + 2
    assert f"Your line {line} raised IndexError" in capsys.readouterr().out


def test_refusals():
    with pytest.raises(ValueError, match="name is 'nope', expected one of: conventions.to_image"):
        labs.check("nope", print)
    with pytest.raises(TypeError, match="without brackets"):
        labs.check(NAMES[0], torch.zeros(1))
    assert wb.labs is labs


def test_checks_leave_the_global_random_state_alone():
    state = torch.random.get_rng_state()
    for name in NAMES:
        for _, answer in answers.WRONG[name]:
            labs.check(name, answer)
    assert torch.equal(torch.random.get_rng_state(), state)


def in_double(function):
    """The same answer, its tensors in double precision."""

    def double(got):
        if type(got) in (tuple, list):
            return type(got)(double(one) for one in got)
        return got.double() if isinstance(got, torch.Tensor) and got.is_floating_point() else got

    return lambda *given: double(function(*given))


SINGLE = {"conventions.to_image", "realfill.random_mask"}
"""Exercises that ask for float32 of what is none."""


@pytest.mark.parametrize("name", sorted(set(NAMES) - SINGLE))
def test_double_precision_is_not_wrong(name, capsys):
    answer = in_double(labs._exercises()[name].reference)
    assert labs.check(name, answer) is answer
    assert capsys.readouterr().out == f"{name}: right.\n"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("got", [None, torch.tensor(1.0), "a word", [(1, (2, 3))], {}])
def test_whatever_comes_back_the_notebook_runs_on(name, got, capsys):
    assert labs.check(name, lambda *given: got) is labs._exercises()[name].reference
    told = capsys.readouterr().out
    assert "The reference stands in for it." in told
    assert told.count("\n") == 1
