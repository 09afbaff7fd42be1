"""The notebooks' form (DESIGN.md, Notebooks): what a reader can rely on in every lesson."""

import itertools
import re
from pathlib import Path

import nbformat
import pytest

import workbench as wb
from workbench import labs

FOLDER = Path(wb.__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
LESSONS = [path for path in NOTEBOOKS if path.stem not in ("00_start", "20_your_photos")]
"""Those with exercises; the two others are for use."""
MANY_EXERCISES = {
    "04_latent_diffusion": 6, "07_find_the_fault": 6, "12_neural_patch": 5,
    "13_spl": 5, "15_mimicbrush": 5, "16_diffumatting": 7,
}  # fmt: skip
"""How many a lesson may have, where it is more than 4: a formula or shape for each part, a diagnosis for each fault."""


def read(path: Path):
    return nbformat.read(path, 4)


def ids(paths):
    return [path.stem for path in paths]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=ids(NOTEBOOKS))
class TestEveryNotebook:
    def test_size_and_kernel(self, path):
        assert path.stat().st_size <= 600_000
        assert read(path).metadata.kernelspec.name == "python3"  # without it JupyterLab asks in a dialog

    def test_head_and_tail(self, path):
        cells = read(path).cells
        head, tail = cells[0].source, cells[-1].source
        assert head.startswith(f"# {path.stem[:2]} · ")
        for words in ("**What you will make:**", "After this you can", "**Minutes:**", "**Needs:**"):
            assert words in head, words
        assert 3 <= head.count("\n- ") <= 5
        for words in ("## What you have learned", "**One thing that fails:**", "**References:**"):
            assert words in tail, words

    def test_rhythm(self, path):
        in_a_row = 0
        for number, cell in enumerate(read(path).cells):
            in_a_row = in_a_row + 1 if cell.cell_type == "code" else 0
            assert in_a_row <= 2, f"cell {number} is the third code cell in a row"
            if cell.cell_type == "code":
                assert len(cell.source.splitlines()) <= 25, f"cell {number} is too long"

    def test_first_code_cell_sets_the_seed(self, path):
        first = next(cell for cell in read(path).cells if cell.cell_type == "code")
        assert "SEED = 0" in first.source

    def test_outputs_are_those_of_a_clean_run(self, path):
        code = [cell for cell in read(path).cells if cell.cell_type == "code"]
        assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
        for cell in code:
            for output in cell.outputs:
                assert output.output_type != "error"
                assert output.get("name") != "stderr", output.text
        assert any("# NBVAL_CHECK_OUTPUT" in cell.source for cell in code)

    def test_a_widget_is_followed_by_a_static_picture(self, path):
        code = [cell for cell in read(path).cells if cell.cell_type == "code"]
        for cell, following in itertools.pairwise(code):
            kinds = [{*output.get("data", {})} for output in cell.outputs]
            if any("application/vnd.jupyter.widget-view+json" in kind for kind in kinds):
                kinds += [{*output.get("data", {})} for output in following.outputs]
                assert any(kind & {"image/png", "image/jpeg"} for kind in kinds)


@pytest.mark.parametrize("path", LESSONS, ids=ids(LESSONS))
def test_every_lesson_has_exercises_with_hint_and_solution(path):
    source = "\n".join(cell.source for cell in read(path).cells)
    exercises = source.count("wb.labs.check(")
    assert 2 <= exercises <= MANY_EXERCISES.get(path.stem, 4)
    assert len(re.findall(r"\((?:easy|medium|hard), \d+ minutes\)", source)) == exercises
    assert source.count("<summary>Hint</summary>") == source.count("<summary>Solution</summary>") == exercises
    assert source.count("raise NotImplementedError") == exercises


def test_every_exercise_is_asked_somewhere_and_every_notebook_is_indexed():
    everything = "\n".join(cell.source for path in NOTEBOOKS for cell in read(path).cells)
    for name in labs.list_exercises():
        assert f'wb.labs.check("{name}"' in everything, name
    start = "\n".join(cell.source for cell in read(FOLDER / "00_start.ipynb").cells)
    for path in NOTEBOOKS[1:]:
        assert f"]({path.name})" in start, path.name


@pytest.mark.parametrize("path", LESSONS, ids=ids(LESSONS))
def test_the_solutions_are_right(path, capsys):
    """Each collapsed solution is itself checked."""
    cells = read(path).cells
    for cell, following in itertools.pairwise(cells):
        if cell.cell_type == "code" and "wb.labs.check(" in cell.source:
            name = cell.source.split('wb.labs.check("')[1].split('"')[0]
            solution = following.source.split("```python\n")[1].split("```")[0]
            space = {"wb": wb, "torch": __import__("torch")}
            exec(solution, space)
            function = cell.source.split("def ")[1].split("(")[0]
            labs.check(name, space[function])
            assert capsys.readouterr().out == f"{name}: right.\n"
