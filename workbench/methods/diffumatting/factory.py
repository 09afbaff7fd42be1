"""The matting factory: as many things with mattes as one likes, in a folder.

``python -m workbench.methods.diffumatting.factory --help`` is `make_dataset` from a shell.
"""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

from tqdm.auto import tqdm

from workbench import check
from workbench.diffusion.export import digest_of
from workbench.image import save_image
from workbench.methods.diffumatting.data import SpriteMattes
from workbench.methods.diffumatting.evaluation import gsg
from workbench.methods.diffumatting.generate import generate
from workbench.methods.diffumatting.loading import DiffuMatting, bundled_model

MANIFEST = "manifest.json"
PARTS = ("image", "alpha", "foreground")


def make_dataset(
    n: int,
    folder,
    prompts: Sequence[str],
    *,
    seed: int = 0,
    model: DiffuMatting | None = None,
    progress: bool = True,
    **options,
) -> Path:
    """Paints n things and writes picture, matte and foreground of each, and a manifest.

    Picture k has prompt k modulo the number of prompts, and seed ``seed + k``. What is there already stays: called
    again it goes on, with a larger n it adds.

    Args:
        n: how many in all.
        folder: gets ``image/``, ``alpha/``, ``foreground/`` with 00000.png ..., and ``manifest.json``: for each its
            prompt, seed, the background's colour, GSG, and the share of the picture that the thing covers.
        prompts: what is painted; that the background is green is added.
        seed: of the first.
        model: None takes the bundled one.
        progress: shows a bar.
        **options: of `generate`.

    Returns:
        The folder; ``FolderMattes(folder, "foregrounds", captions(folder))`` reads it.

    Raises:
        ValueError: no prompts, or a folder begun with other prompts, seed, options or another model.

    Source: DiffuMatting (Hu et al., ECCV 2024): the matting data factory.

    Example:
        >>> make_dataset(200, "out/factory", ["a photo of a red feather", "a photo of a grey creature"])
    """
    check.integer(n, "n", 1)
    check.seed(seed)
    if isinstance(prompts, str) or not len(prompts) or not all(isinstance(prompt, str) for prompt in prompts):
        raise ValueError(f"prompts is {prompts!r}, expected a list of strings, at least one.")
    folder, model = Path(folder), model or bundled_model()
    painter = digest_of(model.pipe.unet, model.pipe.text_encoder, model.pipe.vae, model.head)
    plan = {
        "model": painter,
        "seed": seed,
        "prompts": list(prompts),
        "options": {key: repr(v) for key, v in sorted(options.items())},
    }
    told = _begun(folder, plan)
    for k in tqdm(range(n), unit="thing", disable=not progress):
        name = f"{k:05d}"
        if name in told["things"] and all((folder / part / f"{name}.png").exists() for part in PARTS):
            continue
        made = generate(prompts[k % len(prompts)], seed + k, model=model, **options)
        for part in PARTS:
            save_image(getattr(made, part), folder / part / f"{name}.png")
        told["things"][name] = {
            "prompt": prompts[k % len(prompts)],
            "seed": seed + k,
            "colour": [round(v, 4) for v in made.colour],
            "gsg": round(gsg(made.image).item(), 3),
            "covers": round(made.alpha.mean().item(), 4),
        }
        _write(folder / MANIFEST, told)
    return folder


def captions(folder) -> dict[str, str]:
    """File name without ending -> prompt, of a folder that `make_dataset` wrote.

    Raises:
        FileNotFoundError: it has no manifest.
    """
    file = Path(folder) / MANIFEST
    if not file.exists():
        raise FileNotFoundError(f"{file} is not there, expected a folder that make_dataset wrote.")
    return {name: thing["prompt"] for name, thing in json.loads(file.read_text())["things"].items()}


def _begun(folder: Path, plan: dict) -> dict:
    """The manifest that is there, or a new one."""
    file = folder / MANIFEST
    if not file.exists():
        return {"plan": plan, "things": {}}
    told = json.loads(file.read_text())
    if told["plan"] != plan:
        different = ", ".join(key for key in plan if told["plan"].get(key) != plan[key])
        raise ValueError(f"{folder} was begun with other {different}, expected the same. Take another folder.")
    return told


def _write(file: Path, told: dict) -> None:
    """Whole or not at all."""
    part = file.with_name(f".{file.name}.part")
    part.write_text(json.dumps(told, indent=1) + "\n")
    os.replace(part, file)


def main(arguments=None) -> None:
    """Reads the command line, paints."""
    parser = argparse.ArgumentParser(
        prog="python -m workbench.methods.diffumatting.factory",
        description="Paints things with mattes into a folder. Interrupted, the same command goes on.",
    )
    parser.add_argument("--out", required=True, help="the folder to write to")
    parser.add_argument("--count", type=int, default=200, help="how many things (200)")
    parser.add_argument("--seed", type=int, default=0, help="of the first; each thing has its own (0)")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--prompts", nargs="+", help="what is painted, in turn")
    what.add_argument("--like", nargs="+", metavar="FOLDER", help="rendered sprites, whose captions are the prompts")
    options = parser.parse_args(arguments)
    try:
        prompts = options.prompts or _captions(SpriteMattes(options.like))
        make_dataset(options.count, options.out, prompts, seed=options.seed)
    except (ValueError, TypeError, OSError, check.NotAvailable) as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error


def _captions(sprites: SpriteMattes) -> list[str]:
    return [sprites[k].caption for k in range(len(sprites))]


if __name__ == "__main__":
    main()
