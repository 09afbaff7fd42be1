"""What is told of a match that was picked, or of a point that was asked: a title, and facts with their class.

A class is the name of the ring that a fact is about (asked, found, true), or "off" for what is wrong.
"""

from workbench.widgets.match_view.asking import Answer
from workbench.widgets.match_view.lines import Lines

Facts = tuple[str, list[tuple[str, str]]]


def facts_of_answer(answer: Answer, knows_truth: bool, tolerance: float) -> Facts:
    """Numbers of what features said to a point."""
    facts = [(f"asked {_told(answer.point)} of {answer.side}", "asked")]
    facts.append((f"best match {_told(answer.best)} of {answer.other}", "found"))
    facts.append((f"similarity {answer.similarity:.3f}", ""))
    known = knows_truth and answer.side == "a"
    return "Point", facts + _truth(answer.truth, answer.error, known, tolerance)


def facts_of_match(lines: Lines, number: int, true, tolerance: float) -> Facts:
    """Numbers of a match; ``true`` is where its first point is in truth, or None."""
    facts = [(_told(lines.a[number]), "asked"), (_told(lines.b[number]), "found")]
    facts.append((f"confidence {lines.confidence[number]:.3f}", ""))
    error = None if true is None else float(lines.error[number])
    facts += _truth(true, error, lines.error is not None, tolerance)
    own = [name for name in lines.flags if name not in ("right", "wrong")]
    facts += [(name, "") if lines.flags[name][number] else (f"not: {name}", "off") for name in own]
    return f"Match {number}", facts


def _truth(true, error: float | None, known: bool, tolerance: float) -> list[tuple[str, str]]:
    if true is None:
        return [("in truth not visible there", "")] if known else []
    return [(f"truth {_told(true)}", "true"), (f"error {error:.1f} px", "off" if error > tolerance else "")]


def _told(point) -> str:
    return f"({point[0]:.1f}, {point[1]:.1f})"
