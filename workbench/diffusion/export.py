"""Writes a trained model for the world: half-precision safetensors, a card, checksums."""

import hashlib
import json
from pathlib import Path

from safetensors.torch import save_file
from torch import nn

from workbench.diffusion.libraries import ModelMixin, quiet

CHECKSUMS = "checksums.json"
"""In each model's folder: file -> SHA-256."""
_SOURCES = (
    "Learnt from: scenes rendered by `workbench.world` (training seeds only) and crops of the catalogue's photographs "
    "without chelsea, coffee and the motorcycle pair (`data/README.md` has their licences). 128 x 128 pixels."
)


def write_model(folder, parts: dict[str, nn.Module], title: str, about: str, trained: str, quality: dict) -> Path:
    """Writes networks as sub-folders (one named "" goes into the folder itself), with card and checksums.

    Args:
        folder: where to; what was there of the same name is replaced.
        parts: sub-folder -> network with ``save_pretrained``; stored as float16, left as they are.
        title: of the card.
        about: what it is and how its numbers are measured.
        trained: how, in a line.
        quality: measured numbers by name.

    Returns:
        The folder.
    """
    folder = Path(folder)
    for name, network in parts.items():
        save_half(network, folder / name)
    return finish(folder, title, about, trained, quality)


def save_half(network: nn.Module, folder: Path) -> None:
    """Stores a network as float16 and says float32 in its configuration, so that it is loaded to compute on a CPU."""
    folder.mkdir(parents=True, exist_ok=True)
    for link in (file for file in folder.iterdir() if file.is_symlink()):
        link.unlink()  # what it leads to is another model's
    state = {name: value.half() if value.is_floating_point() else value for name, value in network.state_dict().items()}
    if isinstance(network, ModelMixin):
        network.save_config(folder)
        state = {name: value.cpu().contiguous() for name, value in state.items()}
        save_file(state, folder / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    else:
        with quiet():
            network.save_pretrained(folder, state_dict=state)
    config = json.loads((folder / "config.json").read_text())
    if "dtype" in config:
        config["dtype"] = "float32"
    config.pop("_name_or_path", None)  # a path of the machine it was trained on
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def finish(folder: Path, title: str, about: str, trained: str, quality: dict) -> Path:
    """Writes the card ``README.md`` and the checksums of all files."""
    (folder / CHECKSUMS).unlink(missing_ok=True)
    weights = sorted(folder.rglob("*.safetensors"))
    size = sum(file.stat().st_size for file in weights) / 2**20
    lines = [
        f"# {title}",
        "",
        about,
        "",
        _SOURCES,
        "",
        f"- Trained: {trained}.",
        f"- Weights: {size:.1f} MiB, float16.",
        "",
    ]
    lines += ["| measured | |", "|---|---|", *(f"| {k} | {v:.4g} |" for k, v in quality.items()), ""]
    (folder / "README.md").write_text("\n".join(lines))
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    for file in files:
        file.chmod(0o644)  # safetensors writes for the owner only
    sums = {file.relative_to(folder).as_posix(): sha256(file) for file in files}
    (folder / CHECKSUMS).write_text(json.dumps(sums, indent=1) + "\n")
    return folder


def how_trained(folder) -> str:
    """What a model's card tells of its training; empty where it has no card."""
    card = Path(folder) / "README.md"
    lines = card.read_text().splitlines() if card.exists() else []
    return next((line.removeprefix("- Trained: ") for line in lines if line.startswith("- Trained: ")), "")


def sha256(file: Path) -> str:
    """The checksum of a file, as 64 hexadecimal digits."""
    with Path(file).open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def digest_of(*networks: nn.Module) -> str:
    """Sixteen digits that change with the weights, as they are stored in half precision."""
    digest = hashlib.sha256()
    for network in networks:
        for value in network.state_dict().values():
            digest.update(value.detach().half().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
