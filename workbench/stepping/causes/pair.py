"""Two runs at the step where they part, and what they tell of themselves."""

from dataclasses import dataclass

from workbench.stepping.engine.moment import Moment, denoiser_answers

Told = tuple[str, dict] | None
"""What a cause returns: a sentence and its evidence, or None where it does not hold."""


@dataclass(frozen=True)
class Pair:
    """Two runs at the step in question: what the causes are found from.

    Args:
        a, b: runs or recordings; "a" is taken for the right one.
        step, term: where they part, as in `divergence.Divergence`.
        moment_a, moment_b: what happened in the step; None where a run has no such step.
    """

    a: object
    b: object
    step: int
    term: str
    moment_a: Moment | None
    moment_b: Moment | None

    def facts(self, group: str) -> tuple:
        """A group of both runs' facts, see `facts.facts`."""
        return self.a.facts.get(group, {}), self.b.facts.get(group, {})

    def argument(self, name: str) -> tuple:
        """Values of an argument of the call in both runs, the call's own where it was not given."""
        a, b = self.facts("arguments")
        return a.get(name, {}).get("value"), b.get(name, {}).get("value")

    def differing_arguments(self) -> list[str]:
        """Names of the arguments of the call that differ."""
        a, b = self.facts("arguments")
        return sorted(n for n in {*a, *b} if a.get(n, {}).get("digest") != b.get(n, {}).get("digest"))

    def differing_inputs(self) -> list[str]:
        """Names of the denoiser's arguments that differ in the step, see `moment.input_digests`."""
        a, b = (denoiser_answers(m)[-1].inputs for m in (self.moment_a, self.moment_b))
        return [n for n in {**a, **b} if a.get(n) != b.get(n)]

    def differing_config(self, names=None) -> dict:
        """{setting of a scheduler: values in both} where they differ; only of ``names``, if given."""
        a, b = self.facts("schedulers")
        out = {}
        for part in a.keys() & b.keys():
            x, y = a[part]["config"], b[part]["config"]
            out |= {n: (x.get(n), y.get(n)) for n in {*x, *y} if x.get(n) != y.get(n) and (names is None or n in names)}
        return out

    def changed(self) -> dict:
        """What b changed when it branched off, if it did."""
        return getattr(self.b, "changes", {}) or getattr(self.a, "changes", {})
