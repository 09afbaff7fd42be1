"""One call of a pipeline that can stand still between two steps.

The pipeline's own ``__call__`` runs in a greenlet, on a shallow copy of the pipeline (see `twins`). Each time the loop
has done a step, control goes back to whoever resumed it, and with it everything PyTorch keeps per thread.

A call can start with a script: the first steps of a run that is known. It then takes the networks' answers, the
scheduler's arguments and the latents from there, which rebuilds the scheduler's history and the generators exactly
without asking a network; after the script it goes on live.
"""

import contextvars
import functools
import inspect
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence, Sized
from types import SimpleNamespace

import greenlet
import torch

from workbench.stepping.engine.ambient import Ambient
from workbench.stepping.engine.draws import Draws
from workbench.stepping.engine.moment import (
    Answer,
    Moment,
    Script,
    asked_names,
    denoiser_answers,
    input_digests,
    key_of,
    trimmed,
)
from workbench.stepping.engine.prediction import denoised, first_number, history_digest, noise_levels
from workbench.stepping.engine.solving import bound_step, sample_of, step_names, with_sample
from workbench.stepping.engine.structure import cloned, digest, mapped, same_bits, tensors
from workbench.stepping.engine.twins import loop_frame, twin_pipeline


class Execution:
    """A call of a pipeline, paused between steps.

    Args:
        pipe: the pipeline; left as it is.
        arguments: of its call, without the generator.
        generators: fresh ones, as many as the call takes; consumed.
        ambient: what the call finds PyTorch set to; used up.
        script: how it begins.

    Attributes:
        pipe: the copy that runs.
        done: steps done, the script's included.
        total: steps there are as far as is known, those of one loop after the other; None before the first begins.
        timesteps: of the first loop; None where the pipeline does not show them.
        start, start_generators, start_draws: latents before step 1, states of the generators there, what was drawn.
        preparations: what the networks gave until then.
        moments: live steps, for the run to take away.
        output: what the call returned, once ``finished``.
        decoded_from: what the network asked last was given.
    """

    def __init__(self, pipe, arguments: dict, generators: list[torch.Generator], ambient: Ambient, script: Script):
        self.script, self.generators = script, generators
        self.done, self.total, self.timesteps = 0, None, None
        self.start: torch.Tensor | None = None
        self.start_generators: list[torch.Tensor] = []
        self.start_draws: list[torch.Tensor] = []
        self.preparations: list[Answer] = []
        self.moments: list[Moment] = []
        self.output, self.finished = None, False
        self.decoded_from: torch.Tensor | None = None

        self._thread = threading.get_ident()
        self._draws = Draws()
        self._ambient = ambient
        self._ambient.modes = [self._draws]
        self._looping = False  # whether what the networks say belongs to a step
        self._more = 0  # steps of a loop that has begun after the first
        self._inside = False  # whether a network is at work
        self._answers: list[Answer] = []
        self._served: Counter = Counter()
        self._given: torch.Tensor | None = None
        self._template: list[Answer] = []
        self._asked_before: set[tuple[str, str]] = set()
        self._shape = None  # what the scheduler last returned
        self._open: Moment | None = None
        self._frame = None
        self._calls_back = False  # whether the open step will be closed by the callback
        self._last: torch.Tensor | None = None
        self._moment: tuple[int, Moment] | None = None
        self._known = {(a.name, a.method, key_of(a.inputs)): a for a in script.preparations}
        self._user_callback = arguments.get("callback_on_step_end")
        twins: dict = {}
        self.pipe = twin_pipeline(pipe, self, twins)
        self._pipes = [twin for twin in twins.values() if hasattr(twin, "components")]
        self._greenlet = greenlet.greenlet(functools.partial(self._call, self._prepared(arguments)))
        self._greenlet.gr_context = contextvars.copy_context()

    # From outside

    @property
    def alive(self) -> bool:
        """Whether it can go on from here: neither over nor failed, and begun by this thread."""
        return not self.finished and not self._greenlet.dead and self._thread == threading.get_ident()

    @property
    def unseeded(self) -> bool:
        """Whether something was drawn without the generator given."""
        return self._draws.unseeded

    def resume(self) -> bool:
        """Runs on to the next pause: True there, False where the call is over (then there is an output)."""
        with Ambient.now().on():  # calls that another thread has let go end here, and put back what they had found
            greenlet.getcurrent()
        with self._ambient.on():
            self._greenlet.parent = greenlet.getcurrent()
            self._greenlet.switch()
        return not self.finished

    def close(self) -> None:
        """Ends the call where it stands; what it holds is let go."""
        call = self._greenlet
        if call and not call.dead and self._thread == threading.get_ident() and not sys.is_finalizing():
            self.script = Script()
            with self._ambient.on():
                call.parent = greenlet.getcurrent()  # maybe another call, inside which memory is cleaned up
                call.throw(greenlet.GreenletExit)
        self._greenlet = self._frame = None
        self.pipe, self._pipes = None, []  # the copies know us: apart, nothing waits for the garbage collector

    def __deepcopy__(self, memo) -> "Execution":
        return self  # a pipeline may copy its scheduler: the copy stays ours

    # Inside the greenlet: the call's beginning and end

    def _call(self, arguments: dict) -> None:
        self.output = self.pipe(**arguments)
        self._settle()
        self.decoded_from = cloned(self._given)
        self.finished = True

    def _pause(self) -> None:
        if self.done >= len(self.script.moments) and self.script.shown is None:
            greenlet.getcurrent().parent.switch()

    def _prepared(self, arguments: dict) -> dict:
        """The arguments with our callback and the generators."""
        arguments = dict(arguments)
        accepted = inspect.signature(type(self.pipe).__call__).parameters
        shows_latents = "latents" in getattr(self.pipe, "_callback_tensor_inputs", ["latents"])
        if "callback_on_step_end" in accepted and shows_latents:
            wanted = getattr(self._user_callback, "tensor_inputs", None)
            wanted = wanted or arguments.get("callback_on_step_end_tensor_inputs") or []
            arguments["callback_on_step_end"] = self._on_step_end
            if "callback_on_step_end_tensor_inputs" in accepted:
                arguments["callback_on_step_end_tensor_inputs"] = list(dict.fromkeys(["latents", *wanted]))
        if "generator" in accepted:
            arguments["generator"] = self.generators if len(self.generators) > 1 else self.generators[0]
        return arguments

    def loop(self, frame, iterable) -> None:
        """A loop begins: the first ends the preparations. See `twins.Host`."""
        timesteps = frame.f_locals.get("timesteps")
        if not isinstance(timesteps, Sized):
            timesteps = iterable if isinstance(iterable, Sized) else None
        self._more = len(timesteps) if timesteps is not None else 0
        if self._looping:
            return
        self.timesteps, self.total, self._more = timesteps, self._more or None, 0
        latents = frame.f_locals.get("latents")
        self._end_preparations(self._answers)
        self._answers = []
        if isinstance(latents, torch.Tensor):
            self._begin(latents)

    def _end_preparations(self, answers: list[Answer]) -> None:
        self._looping, self.preparations = True, list(answers)

    def _begin(self, latents: torch.Tensor, editable: bool = True) -> None:
        """State 0: everything is prepared, nothing is denoised."""
        script = self.script
        if script.shown is not None:
            if editable and self._can_interrupt() and latents.is_contiguous():
                latents.copy_(script.shown)
                self.pipe._interrupt = True
        elif not len(script.moments):
            self._release()
            if script.edit is not None and not editable:
                raise RuntimeError(
                    f"{type(self.pipe).__name__} does not show its latents before step 1, so they cannot be edited "
                    f"there. Branch at 1 or later."
                )
            if script.edit is not None:
                latents.copy_(script.edit(latents.clone()))
        self.start = self._last = latents.detach().clone()
        self.start_generators = [g.get_state() for g in self.generators]
        self.start_draws = self._draws.taken()
        if not len(script.moments):
            self._pause()

    def _can_interrupt(self) -> bool:
        """Whether the pipeline knows a way of its own of skipping the steps to come."""
        return self.script.hurries and hasattr(self.pipe, "_interrupt")

    def _release(self) -> None:
        """Where the script ends: the generators as they were there."""
        for generator, state in zip(self.generators, self.script.generators, strict=False):
            generator.set_state(state)

    # Inside the greenlet: networks

    def ask(self, name: str, method: str, names: Sequence[str], original: Callable, args: tuple, kwargs: dict):
        """The script answers, or the network itself. See `twins.Host`."""
        if self._inside:
            return original(*args, **kwargs)
        if not self._calls_back:
            self._settle()
        first = next((t for t in tensors((args, kwargs)) if t.ndim), None)
        self._given = first
        answer = self._scripted(name, method)
        if answer is not None:
            return answer.served(first)
        inputs = input_digests(names, args, kwargs)
        known = None if self._looping else self._known.get((name, method, key_of(inputs)))
        if known is not None:
            out = known.served(first)
            self._answers.append(known)
            return out
        self._inside = True
        try:
            with self._draws.aside():
                out = original(*args, **kwargs)
        finally:
            self._inside = False
        rows = None if first is None else len(first)
        self._answers.append(Answer(name, method, inputs, cloned(out), rows))
        return out

    def _scripted(self, name: str, method: str) -> Answer | None:
        """What the script has a network say at this place; None where it is asked live."""
        shows = self.script.shown is not None
        moment = self._followed(self.done)
        if moment is not None:
            answers = moment.answers if self._looping else self._before_loop(moment)
        elif shows and self._looping and self.done:  # anything of the right shape will do: the step is skipped
            answers = self._template
        else:
            return None
        found = [a for a in answers if (a.name, a.method) == (name, method)]
        self._served[name, method] += 1
        return found[min(self._served[name, method], len(found)) - 1] if found else None

    def _before_loop(self, moment: Moment) -> list[Answer]:
        """The denoiser's answers, where a pipeline does not tell that its loop begins: only it is known to be in it."""
        prepared = asked_names(self.script.preparations)
        return [a for a in denoiser_answers(moment) if (a.name, a.method) not in prepared]

    def _followed(self, k: int) -> Moment | None:
        """The script's moment of step k + 1; read once, as it may be in a file."""
        if k >= len(self.script.moments):
            return None
        if self._moment is None or self._moment[0] != k:
            self._moment = k, self.script.moments[k]
        return self._moment[1]

    # Inside the greenlet: steps

    def solve(self, scheduler, original: Callable, frame, args: tuple, kwargs: dict):
        """A step of the run. See `twins.Host`."""
        self._settle()
        if not self._looping:  # a pipeline without a progress bar: what was asked last is the denoiser
            last = self._answers[-1] if self._answers else None
            mine = [a for a in self._answers if last and (a.name, a.method) == (last.name, last.method)]
            self._end_preparations([a for a in self._answers if a not in mine])
            self._answers = mine
        bound = bound_step(scheduler, args, kwargs)
        output, timestep, sample = step_names(bound)
        if self.start is None:
            self._begin(bound.arguments[sample], editable=False)
        if self.done == self.total and self._more:
            self.total, self._more = self.total + self._more, 0
        self._frame, callback = loop_frame(frame, self._pipes)
        self._calls_back = callback == self._on_step_end
        self._served.clear()
        answers, self._answers = self._answers, []
        before, self._asked_before = self._asked_before, asked_names(answers)
        followed = self._followed(self.done)
        if followed is not None:
            return self._follow(followed, original, bound, output, sample)
        if self.script.shown is not None:
            self.done += 1
            self._template = self._template or answers
            return self._skipped(bound.arguments.get("return_dict") is False)
        given, predicted = self._kept(bound.arguments[sample]), cloned(bound.arguments[output])
        t, history = bound.arguments[timestep], history_digest(scheduler)
        levels = noise_levels(scheduler, t)
        self._draws.taken()
        out = original(*bound.args[1:], **bound.kwargs)
        self._open = Moment(
            self.done + 1, first_number(t), predicted, given, cloned(sample_of(out)), trimmed(answers, before), {},
            self._draws.taken(), denoised(scheduler, levels, predicted, given), levels, history,
            *self._seen_by_denoiser(given),
        )  # fmt: skip
        return out

    def _follow(self, moment: Moment, original: Callable, bound, output: str, sample: str):
        """A step of the script: the scheduler does it once more, so that it remembers it."""
        given, predicted = bound.arguments[sample], bound.arguments[output]
        if given.shape != moment.sample.shape:
            raise RuntimeError(
                f"step {self.done + 1} has latents {tuple(given.shape)}, the run it follows has "
                f"{tuple(moment.sample.shape)}: size or number of pictures differ. Branch at 0, or start a new run."
            )
        if self.script.exact and not (same_bits(moment.sample, given) and same_bits(moment.noise_pred, predicted)):
            raise RuntimeError(
                f"replaying step {self.done + 1} did not come to what was recorded: the pipeline keeps something from "
                f"step to step that is neither in its scheduler nor in its networks' answers."
            )
        bound.arguments[output], bound.arguments[sample] = moment.noise_pred.clone(), moment.sample.clone()
        out = original(*bound.args[1:], **bound.kwargs)
        self._open, self._template, self._shape = moment, self._template or moment.answers, out
        self._asked_before = asked_names(moment.answers)
        if self._calls_back:  # the latents are put in there
            return out
        solved = self._end_of_script(moment.latents) if self._is_last_edited() else moment.solved
        return with_sample(out, solved.clone())

    def _skipped(self, as_tuple: bool):
        """What a scheduler would return from a step that is skipped: the latents to show, wherever it has latents."""
        shown = self.script.shown
        if self._shape is not None:
            return mapped(self._shape, lambda x: shown.clone() if x.shape == shown.shape else x)
        return (shown.clone(), shown.clone()) if as_tuple else SimpleNamespace(prev_sample=shown.clone())

    def _is_last_edited(self) -> bool:
        return self.script.edit is not None and self.done + 1 == len(self.script.moments)

    def _end_of_script(self, latents: torch.Tensor) -> torch.Tensor:
        return self.script.edit(latents.clone()) if self._is_last_edited() else latents.clone()

    def _seen_by_denoiser(self, sample: torch.Tensor) -> tuple[str, torch.Tensor | None]:
        """Of the denoiser's input: digest of the latents in it, and channels added to them (mask, known picture)."""
        given, channels = self._given, sample.shape[1] if sample.ndim > 1 else 0
        if given is None or given.ndim != sample.ndim or given.shape[1] < channels:
            return "", None
        added = given[:, channels:]
        return digest(given[:, :channels]), cloned(added) if added.shape[1] else None

    def _kept(self, sample: torch.Tensor) -> torch.Tensor:
        """A copy of a sample; mostly these are the last step's latents, which are kept already."""
        return self._last if self._last is not None and same_bits(self._last, sample) else cloned(sample)

    def _on_step_end(self, pipe, i, t, given: dict) -> dict:
        """The pipeline's own callback: the step's end, after blending."""
        shown = self.script.shown
        if self._user_callback is not None and shown is None:
            asked = dict(given)
            given = {**asked, **(self._user_callback(pipe, i, t, given) or {})}
        if self._open is not None:
            extra = {n: v for n, v in given.items() if n != "latents" and isinstance(v, torch.Tensor)}
            given["latents"] = self._close(given["latents"], extra)
        elif shown is not None:
            given["latents"] = shown.clone()
        if shown is not None and self._can_interrupt() and self.done >= len(self.script.moments):
            self.pipe._interrupt = True
        return given

    def _settle(self) -> None:
        """Ends a step that no callback ended, at the first thing the pipeline does afterwards."""
        if self._open is None:
            return
        latents = self._frame.f_locals.get("latents") if self._frame is not None else None
        self._frame, self._calls_back = None, False
        fits = isinstance(latents, torch.Tensor) and latents.shape == self._open.solved.shape
        self._close(latents if fits else self._open.solved, {})

    def _close(self, latents: torch.Tensor, extra: dict) -> torch.Tensor:
        """Completes the open step; returns the latents to go on with."""
        moment, scripted = self._open, self.done < len(self.script.moments)
        edited = self._is_last_edited()
        if scripted and self._calls_back:
            latents = self._end_of_script(moment.latents)
        self._open, self._frame = None, None
        self.done += 1
        if scripted and self.done == len(self.script.moments):
            self._release()
        if not scripted or edited:
            self._last = moment.solved if same_bits(moment.solved, latents) else cloned(latents)
            states = [g.get_state() for g in self.generators]
            closed = {**vars(moment), "latents": self._last, "generators": states, "extra": cloned(extra)}
            self.moments.append(Moment(**closed))
        if self.script.shown is not None and self.done >= len(self.script.moments):
            return self.script.shown.clone()
        self._pause()
        return latents
