"""The README keeps its word: its code runs, its files exist, its tables are complete."""

import re
from pathlib import Path

import pytest

import workbench as wb
from workbench import data

ROOT = Path(wb.__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.long
def test_the_three_lines_fill_a_photograph(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = re.search(r"```python\n(.*?)```", README, re.S).group(1)
    assert len([line for line in code.splitlines() if line]) == 3
    exec(code, {})
    filled, photo = wb.load_image("filled.png"), wb.load_image("rocket")
    assert filled.shape == photo.shape
    changed = ((filled - photo).abs().amax(1) > 0.05).float().mean()
    assert 0.01 < changed < 0.05  # the rocket, and nothing but the rocket


def test_links_lead_somewhere():
    for file in (ROOT / "README.md", ROOT / "data" / "README.md"):
        for link in re.findall(r"\]\(([^)#:]+)\)", file.read_text()):
            assert (file.parent / link).exists(), f"{file.name}: {link}"


def test_every_method_make_target_and_photograph_is_told():
    for method in wb.list_methods():
        assert f"| `{method}` |" in README
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M).group(1).split()
    head = (ROOT / "Makefile").read_text().split("SHELL")[0]
    told = [t for t in targets if t not in ("help", "lint", "unit", "notebooks", "browser")]
    assert all(f"make {t}" in head for t in told)
    table = (ROOT / "data" / "README.md").read_text()
    for name in data.photographs():
        entry = data.photograph(name)
        assert f"| `{name}` | {entry.size[0]} x {entry.size[1]} |" in table
        assert entry.licence in table


def test_one_list_of_versions():
    """environment.yml pins exactly; pyproject.toml gives ranges that admit the pins, for the same packages."""
    pins = dict(re.findall(r"^ *- ([a-z0-9-]+)==(\S+)$", (ROOT / "environment.yml").read_text(), re.M))
    ranges = dict(re.findall(r'^    "([a-z0-9-]+)>=([0-9.]+)",$', (ROOT / "pyproject.toml").read_text(), re.M))

    def version(text):
        return [int(n) for n in re.findall(r"\d+", text)]

    assert len(ranges) >= 15
    for package, lowest in ranges.items():
        assert version(pins[package]) >= version(lowest), package
    for file in ("README.md", "Makefile", ".ci/run"):
        assert not re.findall(r"[a-z]==\d", (ROOT / file).read_text()), file


def test_every_public_name_is_told():
    lessons = "".join(path.read_text() for path in sorted((ROOT / "notebooks").glob("*.ipynb")))
    for name in wb.__all__:
        assert f"wb.{name}" in README + lessons, name
