"""A real JupyterLab and a real browser, both on this machine only."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Page, sync_playwright

REPOSITORY = Path(__file__).resolve().parents[2]
WINDOW = (1280, 900)
TOKEN = "workbench-tests"
SETTINGS = {
    "@jupyterlab/apputils-extension/notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
        "doNotDisturbMode": True,
    },
    "@jupyterlab/docmanager-extension/plugin": {"autosave": False},
}


@dataclass
class Jupyter:
    """A running server."""

    url: str
    root: Path

    def ask(self, method: str, path: str):
        """One call of the server's own API."""
        request = urllib.request.Request(
            f"{self.url}/api/{path}", method=method, headers={"Authorization": f"token {TOKEN}"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def stop_kernels(self) -> None:
        for session in self.ask("GET", "sessions"):
            self.ask("DELETE", f"sessions/{session['id']}")


@pytest.fixture(scope="package")
def jupyter(tmp_path_factory):
    """JupyterLab on a free port of the loopback interface, with folders of its own."""
    home = tmp_path_factory.mktemp("jupyter")
    folders = {
        name: home / name.lower()
        for name in (
            "JUPYTER_CONFIG_DIR",
            "JUPYTER_DATA_DIR",
            "JUPYTER_RUNTIME_DIR",
            "JUPYTERLAB_SETTINGS_DIR",
            "JUPYTERLAB_WORKSPACES_DIR",
            "IPYTHONDIR",
        )
    }
    for name, settings in SETTINGS.items():
        path = folders["JUPYTERLAB_SETTINGS_DIR"] / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings))
    root = home / "notebooks"
    root.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {name: str(path) for name, path in folders.items()}
    environment["PYTHONPATH"] = str(REPOSITORY)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}"]
    command += ["--LabApp.expose_app_in_browser=True", "--ServerApp.port_retries=0"]
    command += [f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={root}"]
    log = (home / "server.log").open("w")
    server = subprocess.Popen(
        command + (["--allow-root"] if os.geteuid() == 0 else []), env=environment, stdout=log, stderr=log
    )
    jupyter = Jupyter(f"http://127.0.0.1:{port}", root)
    try:
        _wait_for(jupyter, server, home / "server.log")
        yield jupyter
        jupyter.stop_kernels()
    finally:
        server.terminate()
        server.wait(10)
        log.close()


def _wait_for(jupyter: Jupyter, server: subprocess.Popen, log: Path) -> None:
    for _ in range(600):  # a busy machine takes its time
        if server.poll() is not None:
            pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-2000:]}", pytrace=False)
        try:
            jupyter.ask("GET", "status")
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    pytest.fail(f"JupyterLab did not answer within two minutes:\n{log.read_text()[-2000:]}", pytrace=False)


@pytest.fixture(scope="package")
def lessons(jupyter) -> Path:
    """A copy of the repository's notebooks that the server can open."""
    folder = jupyter.root / "notebooks"
    shutil.copytree(REPOSITORY / "notebooks", folder, ignore=shutil.ignore_patterns("out"))
    shutil.copytree(REPOSITORY / "data" / "pictures", jupyter.root / "data" / "pictures")
    return folder


def code_cells(path: Path) -> dict[int, str]:
    """The code cells of a notebook file: place -> source."""
    return {i: cell.source for i, cell in enumerate(nbformat.read(path, 4).cells) if cell.cell_type == "code"}


@pytest.fixture(scope="package")
def browser():
    """Chromium, as the system has it."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.fail("Chromium is missing, the browser tests need it: apt-get install chromium", pytrace=False)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory) -> Path:
    """Where pictures of the page are put: $WORKBENCH_SCREENSHOTS, or a temporary folder."""
    folder = os.environ.get("WORKBENCH_SCREENSHOTS")
    folder = Path(folder) if folder else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Notebook:
    """One open notebook; cells are counted from 0."""

    def __init__(self, page: Page, path: Path):
        self.page, self.path = page, path

    def cell(self, index: int):
        return self.page.locator(f'.jp-Notebook .jp-Cell[data-windowed-list-index="{index}"]')

    def run(self, index: int) -> str:
        """Runs a cell, waits until it is done, and gives the text it printed."""
        self.command("notebook:run-cell", index)
        self.page.wait_for_timeout(60)
        texts = self.cell(index).locator(".jp-OutputArea-output.jp-RenderedText").all_inner_texts()
        return "\n".join(texts).strip()

    def command(self, name: str, index: int = 0) -> None:
        """One of JupyterLab's own commands, on a cell."""
        self.page.evaluate(
            """async ([name, index]) => {
                jupyterapp.shell.currentWidget.content.activeCellIndex = index;
                await jupyterapp.commands.execute(name);
            }""",
            [name, index],
        )

    def save(self) -> nbformat.NotebookNode:
        """Saves the notebook and reads the file."""
        self.command("docmanager:save")
        return nbformat.read(self.path, 4)

    def wait_until_ready(self) -> None:
        """Waits for the notebook and its kernel; a cell run before that would ask for a kernel in a dialog."""
        self.page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=40_000)
        self.page.wait_for_function(
            "() => jupyterapp.shell.currentWidget?.sessionContext?.kernelDisplayStatus === 'idle'", timeout=40_000
        )
        self.page.evaluate("async () => { await jupyterapp.shell.currentWidget.sessionContext.ready }")


@pytest.fixture(scope="module")
def open_notebook(jupyter, browser):
    """A function that opens a notebook file, or makes one of some cells: open_notebook(cells, zoom=1.5).

    The browser's own zoom (Ctrl +) makes the page smaller in CSS pixels and each of them larger on the screen.
    """
    contexts = []

    def open_(source: list[str] | Path, zoom: float = 1.0, **options) -> Notebook:
        path = source if isinstance(source, Path) else jupyter.root / f"notebook{time.monotonic_ns()}.ipynb"
        if not path.exists():
            notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in source])
            notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
            nbformat.write(notebook, path)
        viewport = {"width": round(WINDOW[0] / zoom), "height": round(WINDOW[1] / zoom)}
        context = browser.new_context(viewport=viewport, device_scale_factor=zoom, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(5_000)
        page.goto(f"{jupyter.url}/doc/tree/{path.relative_to(jupyter.root)}?token={TOKEN}", timeout=30_000)
        opened = Notebook(page, path)
        opened.wait_until_ready()
        return opened

    yield open_
    for context in contexts:
        context.close()
    jupyter.stop_kernels()
