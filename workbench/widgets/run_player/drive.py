"""Moving one run, or two that keep to the same step."""


class Drive:
    """One run, or two locked together: the second follows the first as far as it goes.

    Args:
        run: leads.
        other: follows; None for a run alone.

    Attributes:
        note: why the last move did not go all the way, where no breakpoint was to blame; None otherwise.
    """

    def __init__(self, run, other=None):
        self.run, self.other = run, other
        self.note: str | None = None
        self._ended: set[int] = set()  # ids of runs that were seen to go no farther, as recordings do

    @property
    def runs(self) -> list:
        """The one or two runs."""
        return [self.run] if self.other is None else [self.run, self.other]

    @property
    def i(self) -> int:
        """Where the first stands."""
        return self.run.i

    @property
    def recorded(self) -> int:
        """How far one can go without computing."""
        going = [run.recorded for run in self.runs if run.recorded != self._end(run)]
        return min(going, default=self.run.recorded)

    @property
    def stopped(self) -> str | None:
        """Which breakpoint or watch ended the last move."""
        told = [(run, run.stopped) for run in self.runs if getattr(run, "stopped", None)]
        if self.other is None:
            return told[0][1] if told else None
        return "; ".join(f"{name_of(run)}: {reason}" for run, reason in told) or None

    @property
    def over(self) -> bool:
        """Whether the first stands at its end."""
        return self.run.i == self._end(self.run)

    def forward(self) -> bool:
        """One step, which breakpoints and watches may end; whether there is a next one to be done.

        Raises:
            RuntimeError: the run is over.
        """
        self._begin()
        before = self.run.i
        self._step(self.run)
        if self.run.i == before:
            self._tell_end(self.run)
            return False
        if self.other is not None:
            try:
                self._follow()
            except BaseException:
                self.run.goto(before)
                raise
        return not self.over and self.stopped is None

    def back(self, n: int) -> None:
        """n steps back."""
        self._begin()
        self.run.back(n)
        if self.other is not None:
            self._place(self.other, self.run.i)

    def toward(self, i: int) -> bool:
        """Goes to step i, or computes one of the steps missing on the way; whether there is more to do."""
        self._begin()
        for run in self.runs:
            if run.recorded < self._within(run, i):
                run.goto(run.recorded)
                self._step_silently(run)
                return True
        for run in self.runs:
            self._place(run, i)
            if run.i < i:
                self._tell_end(run)
        return False

    def _follow(self) -> None:
        """The second run does the step that the first has done."""
        other, i = self.other, self.run.i
        if other.i == i - 1 and other.i != self._end(other):
            self._step(other)
            if other.i < i:
                self._ended.add(id(other))
        else:
            self._place(other, i)
        if other.i < i:
            self._tell_end(other)

    def _place(self, run, i: int) -> None:
        """Puts a run at step i, computing what is missing, or at the last it has."""
        while run.recorded < self._within(run, i):
            run.goto(run.recorded)
            self._step_silently(run)
        run.goto(self._within(run, i))

    @staticmethod
    def _step(run) -> None:
        """One step; a recording that has no more stays where it is."""
        if run.computes or run.i < run.recorded:
            run.step()

    def _step_silently(self, run) -> None:
        """One step that no breakpoint is told of."""
        before = run.i
        self._step(run)
        run.stopped = None
        if run.i == before:
            self._ended.add(id(run))

    def _within(self, run, i: int) -> int:
        end = self._end(run)
        return i if end is None else min(i, end)

    def _end(self, run) -> int | None:
        """The last step a run has, as far as is known."""
        return run.recorded if id(run) in self._ended else run.total

    def _tell_end(self, run) -> None:
        self._ended.add(id(run))
        self.note = f"{name_of(run)} ends at step {run.recorded}: it has no more."

    def _begin(self) -> None:
        self.note = None
        for run in self.runs:
            if getattr(run, "stopped", None):
                run.stopped = None


def name_of(run) -> str:
    """What a run is called."""
    return getattr(run, "name", "run")
