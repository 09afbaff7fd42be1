"""A training run in one safetensors file: a JSON manifest, the states, and the weights to go on from.

Two snapshots are kept, of the first step and of the newest: from the first everything between can be computed again,
from the newest the run goes on. Nothing in the file is executed. It holds no task (model, pictures): `load_run` is
given one, and compares its weights' shapes, its frozen weights and a batch with what the file remembers.
"""

import hashlib
import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from workbench.diffusion.training import Task
from workbench.stepping.timeline import Timeline
from workbench.stepping.training.memory import Snapshot, digest
from workbench.stepping.training.state import ByLayer, TrainingSettings, TrainingState
from workbench.stepping.training.update import trainable

FORMAT = "workbench.TrainingRun 1"
_NORMS = ("gradient_norms", "weight_norms", "update_norms")
_LOOKS = ("loss_per_sample", "loss_per_cell", "t")


def save_run(run, file) -> Path:
    """Writes a `TrainingRun`; an older file is replaced at once, or not at all.

    Raises:
        ValueError: the name does not end in .safetensors.
    """
    file = Path(file)
    if file.suffix != ".safetensors":
        raise ValueError(f"file is {file.name!r}, expected a name that ends in .safetensors.")
    if not run._learner.main:
        return file
    first, last = run._snapshots[run._first], run._snapshots[run.recorded]
    tensors = _packed(first, "first") | (_packed(last, "last") if last is not first else {})
    rows, told = _table(run.states)
    tensors |= told | {f"sample.{name}": value for name, value in _sample(run.task, run.settings, run.recorded).items()}
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    manifest = json.dumps({
        "format": FORMAT,
        "versions": _versions(),
        "task": run.task.name,
        "device": str(run._learner.device),
        "settings": run.settings.to_json(),
        "memory": run.memory, "snapshot_every": run.snapshot_every, "exact": run.exact,
        "name": run.name, "first": first.i, "last": last.i, "notes": run.notes,
        "layers": list(run._learner.layers.names),
        "frozen": _frozen(run),
        "states": rows,
    })  # fmt: skip
    part = file.with_name(f".{file.name}.part")
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, part, {"workbench": manifest, "blake2b": _seal(manifest, tensors)})
    os.replace(part, file)
    return file


def load_run(kind, file, task: Task, accelerator=None, **options):
    """Makes a run of ``kind`` from a file; it stands at its newest step. See `TrainingRun.load`."""
    file = Path(file)
    manifest, tensors = _read(file)
    settings = TrainingSettings(**{**manifest["settings"], "betas": tuple(manifest["settings"]["betas"])})
    first = _unpacked(tensors, "first", manifest["first"])
    last = first if manifest["last"] == manifest["first"] else _unpacked(tensors, "last", manifest["last"])
    _compare_weights(file, last, task)
    note = _compare_batch(file, tensors, _sample(task, settings, last.i))
    run = object.__new__(kind)
    Timeline.__init__(run)
    run._set_up(task, settings, last, accelerator)
    kept = {name: options.pop(name, manifest[name]) for name in ("memory", "snapshot_every", "exact")}
    if options:
        raise ValueError(f"{', '.join(options)} is no option, expected one of: {', '.join(kept)}, accelerator.")
    run._remember(**kept)
    if _frozen(run) != manifest["frozen"]:
        raise ValueError(
            f"{file} was trained on another base model than that of the task: their frozen weights differ. "
            "Load the same one."
        )
    run._begin(last, _states(manifest, tensors, task))
    run._first = first.i
    if run._learner.main:
        run._snapshots.add(first)
    run.name = manifest["name"]
    run.notes += manifest["notes"] + ([note] if note else []) + _other_versions(manifest["versions"])
    return run


# Snapshots


def _packed(snapshot: Snapshot, prefix: str) -> dict[str, torch.Tensor]:
    tensors = {f"{prefix}.weights.{name}": value for name, value in snapshot.weights.items()}
    tensors |= {f"{prefix}.buffers.{name}": value for name, value in snapshot.buffers.items()}
    for name, moments in snapshot.moments.items():
        tensors |= {f"{prefix}.moments.{key}.{name}": value for key, value in moments.items()}
    return tensors


def _unpacked(tensors: dict[str, torch.Tensor], prefix: str, i: int) -> Snapshot:
    moments: dict[str, dict] = {}
    for key, value in _under(f"{prefix}.moments.", tensors).items():
        moment, _, name = key.partition(".")
        moments.setdefault(name, {})[moment] = value
    weights, buffers = _under(f"{prefix}.weights.", tensors), _under(f"{prefix}.buffers.", tensors)
    return Snapshot(i, weights, moments, buffers)


def _under(prefix: str, tensors: dict) -> dict:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


# States


def _table(states) -> tuple[list[dict], dict[str, torch.Tensor]]:
    """States as rows of JSON, and their tensors end to end."""
    rows, parts = [], {name: [] for name in (*_LOOKS, *_NORMS)}
    for state in states:
        row = {
            name: getattr(state, name) for name in ("i", "loss", "losses", "learning_rate", "gradient_norm", "fault")
        }
        row |= {"digest": state.digest, "seconds": state.seconds, "numbers": [*state.numbers[:1], len(state.numbers)]}
        for name in _LOOKS:
            value = getattr(state, name)
            row[name] = None if value is None else list(value.shape)
            parts[name] += [] if value is None else [value.reshape(-1)]
        for name in _NORMS:
            values = getattr(state, name).values()
            row[name] = len(values)
            parts[name] += [torch.tensor(list(values), dtype=torch.float64)]
        rows.append(row)
    return rows, {f"states.{name}": torch.cat(values) for name, values in parts.items() if values}


def _states(manifest: dict, tensors: dict[str, torch.Tensor], task: Task) -> list[TrainingState]:
    layers, states = tuple(manifest["layers"]), []
    at = dict.fromkeys((*_LOOKS, *_NORMS), 0)

    def taken(name: str, count: int) -> torch.Tensor:
        at[name] += count
        return tensors[f"states.{name}"][at[name] - count : at[name]]

    for row in manifest["states"]:
        shapes = {name: row.pop(name) for name in _LOOKS}
        looks = {
            n: None if s is None else taken(n, torch.Size(s).numel()).reshape(s).clone() for n, s in shapes.items()
        }
        norms = {name: row.pop(name) for name in _NORMS}
        norms = {n: ByLayer(layers if count else (), taken(n, count).numpy().copy()) for n, count in norms.items()}
        *begin, count = row.pop("numbers")
        numbers = tuple((begin[0][0], begin[0][1], item) for item in range(count)) if begin else ()
        states.append(TrainingState(**row, **looks, **norms, numbers=numbers, recall=task.batch))
    return states


# What the file and the task must have in common


def _sample(task: Task, settings: TrainingSettings, step: int) -> dict[str, torch.Tensor]:
    """The first item of the next batch."""
    return task.batch([[settings.seed, step, 0]])


def _frozen(run) -> str:
    """A fingerprint of what is not trained: names, shapes, and up to 64 numbers of each tensor."""
    found = {}
    for name, p in run.task.objective.named_parameters():
        if name not in run._learner.parameters:
            flat = p.detach().reshape(-1)
            found[f"{name} {tuple(p.shape)}"] = flat[:: max(1, flat.numel() // 64)][:64]
    return digest(found)


def _compare_weights(file: Path, last: Snapshot, task: Task) -> None:
    wanted = {name: tuple(p.shape) for name, p in trainable(task).items()}
    found = {name: tuple(value.shape) for name, value in last.weights.items()}
    for name in sorted({*wanted, *found}):
        if wanted.get(name) != found.get(name):
            raise ValueError(
                f"{file} has {found.get(name, 'no tensor')} for the weight {name}, the task "
                f"{wanted.get(name, 'none')}. "
                "Make the task as it was then (model, rank, targets)."
            )


def _compare_batch(file: Path, tensors: dict, sample: dict[str, torch.Tensor]) -> str | None:
    """Nothing if the task's batches are those of the file to the bit, a note if nearly."""
    saved, exact = _under("sample.", tensors), True
    for name in sorted({*saved, *sample}):
        a, b = saved.get(name), sample.get(name)
        alike = a is not None and b is not None and a.shape == b.shape and a.dtype == b.dtype
        if not alike or not torch.allclose(a.double(), b.double(), rtol=0.01, atol=0.01):
            raise ValueError(
                f"{file} was trained on other batches than the task gives: {name!r} of the next one differs. "
                "Make the task with the same pictures, prompt, mask policy and autoencoder."
            )
        exact = exact and torch.equal(a, b)
    return None if exact else "batches are nearly those of the file, not to the bit: other hardware or libraries"


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("workbench", "torch", "diffusers", "peft"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # a checkout that was never installed
            found[name] = "not installed"
    return found


def _other_versions(saved: dict[str, str]) -> list[str]:
    changed = [
        f"{name} {saved.get(name)} then, {now} now" for name, now in _versions().items() if saved.get(name) != now
    ]
    return [f"other versions: {', '.join(changed)}; steps may differ in their last bits"] if changed else []


# The file


def _seal(manifest: str, tensors: dict[str, torch.Tensor]) -> str:
    """A checksum over all that the file says."""
    return hashlib.blake2b(f"{manifest} {digest(tensors)}".encode(), digest_size=16).hexdigest()


def _read(file: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    try:
        with safe_open(file, "pt") as opened:
            told = opened.metadata() or {}
            if "workbench" not in told:
                raise ValueError(f"{file} is no saved training run, expected a file from TrainingRun.save.")
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{file} is not readable as safetensors: {error}. It is missing, cut short or foreign."
        ) from None
    if told.get("blake2b") != _seal(told["workbench"], tensors):
        raise ValueError(f"{file} was changed after it was saved: its checksum is wrong. Take another copy.")
    manifest = json.loads(told["workbench"])
    if manifest.get("format") != FORMAT:
        raise ValueError(f"{file} has the format {manifest.get('format')!r}, expected {FORMAT!r}.")
    return manifest, tensors
