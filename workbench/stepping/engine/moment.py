"""What is kept of a run: the answers of its networks, its moments, and the script a call can follow."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch

from workbench.stepping.engine.structure import digest, fitted, skeleton, tensors


@dataclass(frozen=True)
class Answer:
    """What a network gave.

    Args:
        name: of the pipeline's component.
        method: "__call__", "encode" or "decode".
        inputs: digests of the arguments by name, see `input_digests`.
        output: a copy; of large answers that only another network gets to see, a skeleton.
        rows: of the first tensor among the arguments; None where that is not known.
    """

    name: str
    method: str
    inputs: dict[str, str]
    output: object
    rows: int | None = None

    def served(self, first: torch.Tensor | None):
        """The output once more, for arguments whose first tensor is ``first``."""
        if first is None:
            return fitted(self.output, None)
        return fitted(self.output, None if len(first) == self.rows else len(first), first.device)


@dataclass
class Moment:
    """What happened in one step, as the hooks saw it; see `state.State` for what it means.

    Args:
        i, t: number and timestep of the step.
        noise_pred, sample, solved: what the scheduler was given and what it returned.
        answers: of the networks that were asked in the step.
        extra: other tensors that the call's own callback asks for.
        draws: random tensors drawn by the scheduler.
        denoised: the clean latents predicted; None where the scheduler's kind of prediction is not known.
        levels: (a, s) of sample = a x0 + s noise; NaN where the scheduler does not tell.
        history: digest of the scheduler's memory before the step.
        scaled: digest of the latents as the denoiser got them, scaled; empty where they cannot be told apart.
        conditioning: channels added to them: mask and known picture.
        latents, generators: latents and states of the generators when the step was over.
    """

    i: int
    t: float
    noise_pred: torch.Tensor
    sample: torch.Tensor
    solved: torch.Tensor
    answers: list[Answer]
    extra: dict[str, torch.Tensor]
    draws: list[torch.Tensor]
    denoised: torch.Tensor | None
    levels: tuple[float, float]
    history: str
    scaled: str = ""
    conditioning: torch.Tensor | None = None
    latents: torch.Tensor | None = None
    generators: list[torch.Tensor] = field(default_factory=list)


@dataclass(frozen=True)
class Script:
    """The known beginning of a call.

    Args:
        moments: steps 1, 2, ... of the run it follows; the call goes live after the last.
        preparations: what the networks gave before step 1, asked again only with other arguments.
        generators: states of the generators after the last moment.
        edit: applied to the latents where the call goes live.
        exact: whether the call must come to the very same arguments by itself; checked.
        shown: latents to decode: every step after the script is skipped, and the call ends with this picture.
        hurries: whether the pipeline may skip them its own way, by being interrupted.
    """

    moments: Sequence[Moment] = ()
    preparations: tuple[Answer, ...] = ()
    generators: tuple[torch.Tensor, ...] = ()
    edit: Callable[[torch.Tensor], torch.Tensor] | None = None
    exact: bool = False
    shown: torch.Tensor | None = None
    hurries: bool = True


def denoiser_answers(moment: Moment) -> list[Answer]:
    """What the denoiser gave in a step: the network asked last before the scheduler, each time it was asked."""
    if not moment.answers:
        return []
    last = moment.answers[-1]
    return [a for a in moment.answers if (a.name, a.method) == (last.name, last.method)]


def asked_names(answers: Iterable[Answer]) -> set[tuple[str, str]]:
    """Who was asked for what: names and methods."""
    return {(a.name, a.method) for a in answers}


def trimmed(answers: list[Answer], before: set[tuple[str, str]]) -> list[Answer]:
    """Answers of a step as they are kept: of large ones that serve the denoiser only, the shapes.

    A control network's features take ten times what the rest of a step does.

    Args:
        answers: the denoiser's last.
        before: who was asked in the step before too; only of them it is known that no later step needs the answer.
    """
    if not answers:
        return answers
    denoiser = answers[-1].name, answers[-1].method
    sizes = [sum(t.nbytes for t in tensors(a.output)) for a in answers]
    return [
        replace(a, output=skeleton(a.output))
        if size > sizes[-1] and (a.name, a.method) in before and (a.name, a.method) != denoiser
        else a
        for a, size in zip(answers, sizes, strict=True)
    ]


def input_digests(names: Sequence[str], args: tuple, kwargs: dict) -> dict[str, str]:
    """Digest of each argument by name; of tensors with an even number of rows also of both halves.

    The halves ("name[0]", "name[1]") tell the part without the prompt from the part with it.

    Args:
        names: of the arguments given by position; those beyond them are told by their number.
        args, kwargs: the arguments.
    """
    found = {}
    named = [*names[: len(args)], *map(str, range(len(names), len(args)))]
    for name, value in (*zip(named, args, strict=True), *kwargs.items()):
        found[name] = digest(value)
        if isinstance(value, torch.Tensor) and value.ndim > 1 and len(value) % 2 == 0:
            found |= {f"{name}[{half}]": digest(part) for half, part in enumerate(value.chunk(2))}
    return found


def key_of(inputs: dict[str, str]) -> tuple:
    """Digests of arguments as a key."""
    return tuple(sorted(inputs.items()))
