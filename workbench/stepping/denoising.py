"""`DenoisingRun`: a pipeline's call, step by step, forwards, backwards and sideways."""

import copy
import dataclasses
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from tqdm.auto import tqdm

from workbench import check
from workbench.stepping.engine import calls, switching
from workbench.stepping.engine.ambient import Ambient
from workbench.stepping.engine.execution import Execution
from workbench.stepping.engine.memory import Recent, Shelf
from workbench.stepping.engine.moment import Moment, Script
from workbench.stepping.engine.structure import mapped
from workbench.stepping.facts import facts
from workbench.stepping.pictures import PICTURES, Pictured
from workbench.stepping.state import States
from workbench.stepping.timeline import Timeline, one_at_a_time
from workbench.stepping.watching import Watched


class DenoisingRun(Pictured, Watched, Timeline):
    """A diffusers pipeline's call, paused between its steps.

    Untouched it gives, bit for bit, what ``pipe(**arguments, generator=torch.Generator().manual_seed(seed))`` gives.
    The pipeline is not changed and not busy: between two steps nothing runs, and several runs can stand still on one
    pipeline. Going back costs nothing; going on from there follows what is recorded. Another future is a `branch`.
    Any thread may look at it, and move it: one at a time, and the paused call is made anew in the thread that goes on.

    Args:
        pipe: any diffusers pipeline whose call has a denoising loop.
        seed: of the generator; a list gives each picture of a batch its own.
        memory: MiB that recorded steps may take before the oldest go to a temporary file.
        **arguments: of the pipeline's own call. A ``generator`` may be given instead of the seed; it is not consumed.

    Attributes:
        pipe, seed, arguments: as given.
        caveats: why the run may differ from the plain call, in words; empty where it is exact.
        facts: what it was made with, see `facts.facts`; empty before the first step.
        start_draws: what was drawn at random before step 1.
        decoded_from: what the network asked last was given, the decoder mostly; None before the end.

    Raises:
        TypeError: an argument the pipeline does not know, or a pipe that is none.
        ValueError: arguments the run sees to itself.

    Example:
        >>> run = DenoisingRun(load_pipeline("tiny-t2i"), seed=0, prompt="a photo of a red ball")
        >>> run.step(5).t
    """

    def __init__(self, pipe, *, seed: int | Sequence[int] = 0, memory: float = 1024, **arguments):
        super().__init__()
        self._setup(pipe, seed, memory, arguments)
        for told in self.caveats:
            warnings.warn(f"this run may differ from the plain call: {told}", stacklevel=2)

    def _setup(self, pipe, seed, memory: float, arguments: dict) -> None:
        calls.check_pipe(pipe)
        calls.check_arguments(pipe, arguments)
        self.pipe = pipe
        arguments = dict(arguments)
        generator = arguments.pop("generator", None)
        if generator is None:
            several = isinstance(seed, (list, tuple))
            seeds = [check.seed(s) for s in (seed if several else [seed])]
            seed = type(seed)(seeds) if several else seeds[0]
            generator = [torch.Generator().manual_seed(s) for s in seeds]
        generators = [generator] if isinstance(generator, torch.Generator) else list(generator)
        self.seed, self._fresh = seed, [(g.device, g.get_state()) for g in generators]
        self.arguments = calls.kept_arguments(arguments)
        self.caveats = calls.caveats(pipe)
        self.facts: dict = {}
        self.start_draws: list[torch.Tensor] = []
        self.decoded_from: torch.Tensor | None = None
        self._memory = check.number(memory, "memory", 0)
        self._shelf = Shelf(int(self._memory * 2**20))
        self._script = Script()
        self._lead: tuple[Shelf, int] | None = None  # moments a call follows in the place of the first so many
        self._ambient: Ambient | None = None
        self._execution: Execution | None = None
        self._begun = self._finished = False
        self._start: torch.Tensor | None = None
        self._start_generators: list[torch.Tensor] = []
        self._preparations: tuple = ()
        self._output = None
        self._pictures = Recent(PICTURES)
        self._total: int | None = None
        self._bar = None
        self._busy = False

    # Looking

    @property
    @one_at_a_time
    def output(self):
        """What the pipeline returned; goes to the end first, if need be, whatever the breakpoints."""
        while not self._finished:
            self._advance()
        return self._output

    @one_at_a_time
    def save(self, file, decoded: bool = True) -> Path:
        """Writes everything recorded into one file, see `recording.save_recording`."""
        from workbench.stepping.recording import save_recording

        return save_recording(self, file, decoded)

    @one_at_a_time
    def finish(self):
        """Goes on to the end, or to a breakpoint or watch; returns the pipeline's output, or the state there."""
        self._walk(None, None)
        return self.state if self.stopped else self.output

    def decode(self, i: int, what: str = "latents") -> torch.Tensor:
        """The latents after i steps, or what they were predicted to become, as a picture.

        The pipeline decodes by itself: its call runs once more with all steps skipped, and ends with these latents.

        Args:
            i: of a recorded state.
            what: "latents" or "denoised".

        Returns:
            (B, 3, H, W) in [0, 1], on the CPU. The last 64 asked for are kept, as decoding takes longer than moving.
        """
        check.choice(what, "what", ("latents", "denoised"))
        check.integer(i, "i", 1 if what == "denoised" else 0, self.recorded)
        return self._pictures.get((i, what), lambda: self._decoded(i, what))

    def _decoded(self, i: int, what: str) -> torch.Tensor:
        latents = getattr(self.states[i], what)
        if latents is None:
            raise ValueError(f"step {i} predicts no clean latents that are known to be such, expected what='latents'.")
        known = calls.accepted(self.pipe)
        wanted = {"output_type": "np", "return_dict": True}  # with "pt" some pipelines give [-1, 1]
        wanted = {name: value for name, value in wanted.items() if name in known}
        followed = self._next_script().moments[: min(1, self.recorded)]
        script = Script(followed, self._preparations, shown=latents)
        try:
            execution = self._executed(script, **wanted)
            execution.resume()
        except UnboundLocalError:  # interrupted, the pipeline lacks what its loop would have left behind
            execution = self._executed(dataclasses.replace(script, hurries=False), **wanted)
            execution.resume()
        return calls.picture_of(execution.output)

    # Branching

    @one_at_a_time
    def branch(
        self, at: int | None = None, *, scheduler=None, edit: Callable[[torch.Tensor], torch.Tensor] | None = None,
        noise_seed: int | None = None, pipe=None, **changes,
    ) -> "DenoisingRun":  # fmt: skip
        """Another future: a run that shares the first steps with this one and goes on differently.

        The call runs anew with the changed arguments, but its first steps take predictions and latents from this run:
        the scheduler remembers what it remembered here, the generators stand where they stood. Unchanged it ends in
        the same bits.

        Args:
            at: after which step; None takes where the run stands.
            scheduler: takes over from there, see `switching`.
            edit: ``edit(latents) -> latents`` changes the latents there.
            noise_seed: of what is drawn from there on.
            pipe: another pipeline of the same kind, with other weights, say; None takes this one.
            **changes: arguments of the pipeline's call: prompt, negative_prompt, guidance_scale, mask_image, eta ...

        Returns:
            The new run, standing at ``at``. This one is left as it is.

        Raises:
            ValueError: ``at`` is not recorded; steps already done do not go with the change (another
                num_inference_steps, strength or size).
        """
        at = self.i if at is None else check.integer(at, "at", 0, self.recorded)
        given = {"scheduler": scheduler, "edit": edit, "noise_seed": noise_seed, "pipe": pipe}
        given = {name: value for name, value in given.items() if value is not None}
        pipe = self.pipe if pipe is None else pipe
        if scheduler is not None:
            pipe = copy.copy(pipe)
            vars(pipe)["scheduler"] = scheduler
        calls.check_pipe(pipe)
        calls.check_arguments(pipe, changes)
        if "generator" in changes:
            raise ValueError("generator is given, expected noise_seed: what was drawn so far stays drawn.")
        if at:
            calls.check_same_grid(pipe, self.arguments, changes)
        _ = self.states  # begun
        seeds = None if noise_seed is None else check.seed(noise_seed)

        child = DenoisingRun.__new__(DenoisingRun)
        child._setup(pipe, self.seed, self._memory, {**self.arguments, **changes})
        child._fresh, child._ambient = self._fresh, self._ambient
        moments = self._shelf.first(at)
        generators = moments[-1].generators if at else self._start_generators
        if seeds is not None:
            generators = [torch.Generator(device).manual_seed(seeds).get_state() for device, _ in self._fresh]
        if scheduler is not None and at:
            moments = child._take_over(self, at)
        else:
            child._shelf.extend(moments if edit is None else moments.first(max(at - 1, 0)))
        unchanged = not changes and not given and self._like_parents
        child._script = Script(moments, self._preparations, tuple(generators), edit, exact=unchanged)
        if edit is not None and child._lead is not None:
            child._shelf = child._shelf.first(at - 1)
        child._start = self._start if at else None
        Timeline.__init__(child, self, at)  # last: whatever fails above leaves no trace in the tree
        child.changes = {**changes, **given}
        child._cursor = at
        return child

    def _take_over(self, parent: "DenoisingRun", at: int) -> Shelf:
        """Moments that this run's scheduler follows to stand where the parent stood; the last is put on the shelf."""
        begins, followed = Script((), parent._preparations), parent._next_script(at).moments
        lead = Shelf(self._shelf.limit)
        lead.extend(switching.handed_over(followed, parent._executed(begins), self._executed(begins)))
        last = len(lead) - 1
        self._lead = lead.first(last), at - 1
        self._shelf.extend(parent._shelf.first(at - 1))
        self._shelf.extend(lead[last:])
        return lead

    @property
    def _like_parents(self) -> bool:
        """Whether no run on the way from the root to this one changed anything."""
        return not self.changes and (self.parent is None or self.parent._like_parents)

    # What Timeline asks for

    @property
    def total(self) -> int | None:
        """How many steps there are; None before the first is computed where the pipeline does not tell."""
        return self._total

    @property
    def recorded(self) -> int:
        """How many steps are computed; moving among them costs nothing."""
        return len(self._shelf) if self._begun else max(self.at or 0, self._cursor)

    def _states(self) -> States:
        while not self._begun:
            self._advance()
        return States(self, self._shelf, self._start)

    @one_at_a_time
    def _compute(self) -> None:
        _ = self._states()
        before = len(self._shelf)
        try:
            self._advance()
            while not self._finished and len(self._shelf) == self._total:
                self._advance()  # to the end of the call, or into another loop of a pipeline with several
        except BaseException:
            if len(self._shelf) > before == self._cursor:
                self._cursor += 1  # the step itself is done
            raise
        if len(self._shelf) == before:
            raise StopIteration
        if self._bar is not None:
            self._bar.update(len(self._shelf) - before)

    @one_at_a_time
    def _advance(self) -> None:
        """Brings a call to where the recorded steps end, and on to its next pause."""
        if self._finished:
            raise StopIteration
        if self._busy:
            raise RuntimeError("the run is computing a step already: a function it was given asks for one more.")
        self._busy = True
        try:
            if self._execution is None or not self._execution.alive:
                self._drop()
                self._execution = self._executed(self._next_script() if self._begun else self._script)
                if self._begun:
                    self._resume()
            self._resume()
        except BaseException:
            self._drop()
            raise
        finally:
            self._busy = False

    def _next_script(self, n: int | None = None) -> Script:
        """How a new call comes to where the recorded steps end, or to step n."""
        n = len(self._shelf) if n is None else n
        generators = self._shelf[n - 1].generators if n else self._start_generators
        moments = self._shelf.first(n)
        if self._lead is not None and n > self._lead[1]:
            moments = self._lead[0] + moments[self._lead[1] :]
        edit = None if n else self._script.edit
        return Script(moments, self._preparations, tuple(generators), edit, exact=self._like_parents)

    def _resume(self) -> None:
        """Lets the call go on to its next pause, and puts away what it found."""
        execution = self._execution
        execution.resume()
        while execution.moments:
            self._put_away(execution.moments.pop(0))
        if not self._begun:
            self._start = execution.start if self._start is None else self._start
            self._start_generators, self.start_draws = execution.start_generators, execution.start_draws
            self._preparations = tuple(execution.preparations)
            self.facts = facts(self.pipe, self.arguments, self._fresh)
            self._begun = True
        ahead = len(self._shelf) - execution.done  # of another scheduler's steps in the first part
        self._total = None if execution.total is None else max(execution.total + ahead, len(self._shelf))
        if execution.finished:
            self._output, self._finished, self._total = execution.output, True, len(self._shelf)
            self.decoded_from = execution.decoded_from
            if execution.unseeded and not any("global" in told for told in self.caveats):
                self.caveats.append("it draws from the global generator, which a run sets to its own seed.")
            self._drop()

    def _put_away(self, moment: Moment) -> None:
        if moment.sample.is_inference():  # of use to nobody outside of inference mode
            moment = mapped(moment, torch.clone)
        moment.i = len(self._shelf) + 1
        self._shelf.extend([moment])

    def _executed(self, script: Script, **others) -> Execution:
        """A new call; PyTorch is set in it as it was when the run, or the one it branched off, began."""
        generators = [torch.Generator(device) for device, _ in self._fresh]
        for generator, (_, state) in zip(generators, self._fresh, strict=True):
            generator.set_state(state)
        self._ambient = self._ambient or Ambient.now()
        ambient = self._ambient.seeded(generators[0].initial_seed())
        return Execution(self.pipe, {**calls.kept_arguments(self.arguments), **others}, generators, ambient, script)

    def _drop(self) -> None:
        """Lets the paused call go; what is recorded stays."""
        execution, self._execution = getattr(self, "_execution", None), None
        if execution is not None:
            execution.close()

    def __del__(self):
        self._drop()

    def _walk(self, end, also) -> None:
        _ = self._states()
        missing = (self.total or 0) - self.recorded if end is None else end - self.recorded
        quiet = calls.is_quiet(self.pipe)
        try:
            with tqdm(total=max(missing, 0), desc=self.name, disable=quiet or missing < 2, leave=False) as self._bar:
                super()._walk(end, also)
        finally:
            self._bar = None

    def __repr__(self) -> str:
        end = "?" if self.total is None else self.total
        where = f"step {self.i} of {end}, {self.recorded} recorded"
        return f"DenoisingRun({type(self.pipe).__name__}, {self.name}, {where})"
