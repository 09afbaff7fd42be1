"""The order of imports (DESIGN.md): which room may know which. Breaches fail with file and line."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import workbench as wb

PACKAGE = Path(wb.__file__).parent
ORDER = [
    {"check", "lazy"},
    {"data", "raster"},
    {"image"},
    {"mask", "plot"},
    {"metrics", "seams"},
    {"claims"},
    {"world"},
    {"diffusion"},
    {"stepping", "lenses"},
    {"methods"},
    {"labs"},
]
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}
WIDGETS_MAY = {"check", "image", "raster", "mask", "plot", "widgets"}
JUDGES = {"claims", "evaluation"}
"""Files of a method that hold it against others: they may go through the door of all methods, `inpaint`."""
PICTURE_FILES = {"PIL", "imageio"}
FRONT_END = {"ipywidgets", "ipycanvas", "IPython", "traitlets"}


def room(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imports(path: Path):
    """(line, module) of every import in a file, also inside functions; names of the package in full."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively, expected full names"
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


def breaches(path: Path):
    here = room(path)
    for line, module in imports(path):
        parts = module.split(".")
        if parts[0] in FRONT_END and here != "widgets":
            yield f"{path.name}:{line} imports {module}: only widgets may"
        if parts[0] in PICTURE_FILES and here != "image":
            yield f"{path.name}:{line} imports {module}: only image knows files of pictures"
        if parts[0] != "workbench" or here == "__init__":
            continue
        there = parts[1] if len(parts) > 1 else "__init__"
        if here == "widgets":
            if there not in WIDGETS_MAY:
                yield f"{path.name}:{line} imports {module}: widgets get arrays and callables"
        elif there == here == "methods":
            method, other = path.relative_to(PACKAGE).parts[1].removesuffix(".py"), parts[2]
            doors = {method, "result"} | ({"inpaint"} if path.stem in JUDGES else set())
            if other not in doors and method != "__init__":
                yield f"{path.name}:{line} imports {module}: methods never import each other"
        elif there != here and LEVEL.get(there, 99) >= LEVEL[here]:
            yield f"{path.name}:{line} imports {module}: {here} stands below {there}"


@pytest.mark.long
def test_imports_run_one_way():
    found = [b for path in sorted(PACKAGE.rglob("*.py")) for b in breaches(path)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("check.py", "from workbench import image"),
        ("image.py", "import workbench.metrics"),
        ("mask.py", "from workbench.methods import inpaint"),
        ("plot.py", "import ipywidgets"),
        ("widgets/a.py", "from workbench import methods"),
        ("methods/spl/fill.py", "from workbench.methods.patchmatch import fill"),
        ("methods/spl/fill.py", "from workbench.methods import inpaint"),
        ("methods/spl/claims.py", "from workbench.methods.patchmatch import fill"),
        ("methods/a.py", "def f():\n    from workbench import labs"),
    ],
)
def test_a_breach_is_found(file, line, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(line)
    assert list(breaches(path))


def test_every_room_has_its_place():
    rooms = {room(path) for path in PACKAGE.rglob("*.py")} - {"__init__", "widgets"}
    assert rooms <= set(LEVEL)


def test_public_names_exist_and_have_docstrings():
    for name in wb.__all__:
        assert getattr(wb, name).__doc__, name
    assert set(wb.__all__) <= set(dir(wb))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = wb.nonsense


@pytest.mark.long
def test_importing_the_package_is_light():
    """The core never loads the widgets, and ``import workbench`` loads nothing heavy at all."""
    code = (
        "import sys, workbench as wb\n"
        "assert 'torch' not in sys.modules\n"
        "wb.load_image; wb.inpaint; wb.metrics.compare; wb.labs.check\n"
        "print([m for m in ('ipywidgets', 'ipycanvas', 'IPython', 'matplotlib.pyplot') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
