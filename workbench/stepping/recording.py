"""A run in one file: written, opened without model or GPU, looked through, compared, and gone on with.

The file is safetensors: tensors by name, and a manifest (JSON) in its metadata. Nothing in it is executed. A digest of
all tensors and one of the manifest tell a damaged or altered file; they are no signature.
"""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from workbench import check
from workbench import image as pictures
from workbench.stepping.denoising import DenoisingRun
from workbench.stepping.engine.memory import Recent
from workbench.stepping.engine.moment import Answer, Moment, Script, denoiser_answers
from workbench.stepping.engine.structure import cloned, digest, is_pil
from workbench.stepping.facts import facts
from workbench.stepping.pictures import PICTURES, Pictured
from workbench.stepping.state import States
from workbench.stepping.timeline import Timeline, one_at_a_time
from workbench.stepping.watching import Watched

FORMAT, VERSION = "workbench-recording", 1
_TENSORS = ("sample", "noise_pred", "solved", "latents", "denoised", "conditioning")
_VALUES = ("i", "t", "levels", "history", "scaled")


def save_recording(run: DenoisingRun, file, decoded: bool = True) -> Path:
    """Writes all recorded steps of a run.

    Args:
        run: any DenoisingRun, over or not.
        file: where to; the ending .safetensors is usual.
        decoded: also decodes the predicted picture of every step, so that it can be looked through without a model.
            False writes the pictures that are decoded already, see `DenoisingRun.decode`.

    Returns:
        The path. Arguments that cannot be written as numbers, text or pictures are named in the manifest as left out.
    """
    kept = _Kept()
    states = run.states
    moments = [state._moment for state in states[1:]]
    manifest = {
        "name": run.name,
        "seed": run.seed if isinstance(run.seed, int) else list(run.seed),
        "total": run.total,
        "facts": run.facts,
        "arguments": {name: kept.frame(value) for name, value in run.arguments.items()},
        "generators": [[str(device), kept.put(state)] for device, state in run._fresh],
        "start": kept.put(states[0].latents),
        "start_generators": [kept.put(state) for state in run._start_generators],
        "start_draws": [kept.put(draw) for draw in run.start_draws],
        "decoded_from": None if run.decoded_from is None else kept.put(run.decoded_from),
        "moments": [_moment_frame(moment, kept) for moment in moments],
        "pictures": _pictures(run, kept, decoded),
        "digests": [state.digest for state in states],
    }
    manifest["tensors"] = digest(kept.tensors)
    told = json.dumps(manifest)
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(kept.tensors, file, {"format": FORMAT, "version": str(VERSION), "manifest": told, "seal": digest(told)})
    return file


def load_recording(file) -> "Recording":
    """Opens a recorded run.

    Args:
        file: what `DenoisingRun.save` wrote.

    Returns:
        A `Recording`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is truncated, altered, or no recording.
    """
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist. Write a recording with run.save(file).")
    try:
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read as safetensors ({error}). It is truncated or no recording.") from None
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{file} is no recording: its metadata say {metadata.get('format')!r}, expected {FORMAT!r}.")
    if metadata.get("version") != str(VERSION):
        raise ValueError(
            f"{file} has version {metadata.get('version')}, expected {VERSION}: written by another workbench."
        )
    told = metadata.get("manifest", "")
    if digest(told) != metadata.get("seal"):
        raise ValueError(f"{file} was altered: its manifest does not agree with the digest written beside it.")
    manifest = json.loads(told)
    if digest(tensors) != manifest["tensors"]:
        raise ValueError(f"{file} was altered: its tensors do not agree with the digest in the manifest.")
    return Recording(file, manifest, tensors)


class Recording(Pictured, Watched, Timeline):
    """A run read from a file: moved about, looked at and compared like the run itself, without its pipeline.

    Attributes:
        facts: what it was made with, see `facts.facts`.
        arguments: of the call; those that could not be written are missing, and named in ``left_out``.
        output: the last picture, (B, 3, H, W) in [0, 1]; None where the run was not over.
    """

    computes = False

    def __init__(self, file: Path, manifest: dict, tensors: dict[str, torch.Tensor]):
        super().__init__()
        self.file, self.facts, self.seed = file, manifest["facts"], manifest["seed"]
        self.name = manifest["name"]
        frames = {n: _Frame(tensors).read(f) for n, f in manifest["arguments"].items() if f != _LEFT_OUT}
        self.arguments, self.left_out = frames, sorted(set(manifest["arguments"]) - set(frames))
        self._fresh = [(torch.device(device), tensors[key]) for device, key in manifest["generators"]]
        self._start = tensors[manifest["start"]]
        self._start_generators = [tensors[key] for key in manifest["start_generators"]]
        self.start_draws = [tensors[key] for key in manifest["start_draws"]]
        self.decoded_from = None if manifest["decoded_from"] is None else tensors[manifest["decoded_from"]]
        self._moments = [_moment(frame, tensors) for frame in manifest["moments"]]
        self._steps = States(self, self._moments, self._start)
        self._total = manifest["total"]
        self._kept_pictures = {(int(i), what): tensors[key] for i, what, key in manifest["pictures"]}  # 8 bit
        self._pictures = Recent(PICTURES)
        for state, written in zip(self.states, manifest["digests"], strict=True):
            if state.digest != written:
                raise ValueError(f"{file} was altered: the latents after step {state.i} do not have their digest.")

    @property
    def total(self) -> int | None:
        """How many steps the run has, recorded or not."""
        return self._total

    @property
    def output(self) -> torch.Tensor | None:
        """The last picture, if the run was over."""
        return self.decode(self._total) if (self._total, "latents") in self._kept_pictures else None

    def _states(self) -> States:
        return self._steps

    def _compute(self) -> None:
        raise StopIteration

    def step(self, n: int = 1):
        """Goes n steps forward, or to the last recorded one; otherwise as `Timeline.step`.

        Raises:
            RuntimeError: nothing is recorded beyond.
        """
        if self._cursor == self.recorded and not self.done:
            told = f"{self.file.name} ends after {self.recorded} of {self.total} steps"
            raise RuntimeError(f"{told}. Go on with recording.with_pipe(pipe).")
        return super().step(n)

    @one_at_a_time
    def finish(self) -> torch.Tensor | None:
        """Goes to the last recorded step, or to a breakpoint or watch before it; returns the last picture, if any."""
        self._walk(None, None)
        return self.output

    def decode(self, i: int, what: str = "latents") -> torch.Tensor:
        """A picture that was decoded when the file was written: (B, 3, H, W) in [0, 1].

        Raises:
            NotAvailable: it was not; with its pipeline at hand, use `with_pipe`.
        """
        check.choice(what, "what", ("latents", "denoised"))
        if (i, what) not in self._kept_pictures:
            raise check.NotAvailable(
                f"{self.file.name} holds no picture of the {what} after step {i}, and no model to decode them with. "
                f"Give it its pipeline: recording.with_pipe(pipe)."
            )
        return self._pictures.get((i, what), lambda: self._kept_pictures[i, what].float() / 255)

    def with_pipe(self, pipe, at: int | None = None) -> DenoisingRun:
        """The run again, live: stands after step ``at`` (None: after the last recorded) and goes on from there.

        It ends in the bits of the recorded run where pipeline, versions and machine are the same; what differs is
        told in ``caveats`` of the run.

        Raises:
            ValueError: an argument of the call was left out of the file.
        """
        if self.left_out:
            raise ValueError(f"{', '.join(self.left_out)} was left out of {self.file.name}: the call cannot be made.")
        at = self.recorded if at is None else check.integer(at, "at", 0, self.recorded)
        run = DenoisingRun.__new__(DenoisingRun)
        Timeline.__init__(run)
        run._setup(pipe, self.seed, 1024, cloned(self.arguments))
        generators = self._moments[at - 1].generators if at else self._start_generators
        run._fresh, run._start, run._cursor = self._fresh, self._start if at else None, at
        run._script = Script(self._moments[:at], (), tuple(generators))
        run._shelf.extend(self._moments[:at])
        now = facts(pipe, self.arguments, self._fresh)
        run.caveats += [f"{name} differs from the recording's." for name in now if now[name] != self.facts.get(name)]
        return run

    def __repr__(self) -> str:
        pipeline = self.facts["pipeline"]
        return f"Recording({self.file.name}, {pipeline}, step {self.i} of {self.total}, {self.recorded} recorded)"


# Frames: structures as JSON, with names in the place of tensors

_LEFT_OUT = {"left out": True}


class _Kept:
    """Tensors by name; equal ones once."""

    def __init__(self):
        self.tensors: dict[str, torch.Tensor] = {}

    def put(self, tensor: torch.Tensor) -> str:
        """The name under which a tensor is kept."""
        key = digest(tensor)
        if key not in self.tensors:
            self.tensors[key] = tensor.detach().cpu().contiguous().clone()
        return key

    def frame(self, value):
        """A structure as JSON; what cannot be written is left out."""
        if isinstance(value, torch.Tensor):
            return {"tensor": self.put(value)}
        if is_pil(value) and value.mode in ("1", "L", "LA", "RGB", "RGBA"):
            return {"picture": self.put(torch.from_numpy(np.array(value)))}
        if isinstance(value, np.ndarray):
            return {"array": self.put(torch.from_numpy(value))}
        if isinstance(value, (tuple, list)):
            inner = [self.frame(v) for v in value]
            return _LEFT_OUT if _LEFT_OUT in inner else {"tuple" if isinstance(value, tuple) else "list": inner}
        if isinstance(value, dict):
            inner = {str(k): self.frame(v) for k, v in value.items()}
            return _LEFT_OUT if _LEFT_OUT in inner.values() else {"dict": inner}
        if isinstance(value, (int, float, str, bool, type(None))):
            return {"value": value}
        return _LEFT_OUT


class _Frame:
    """Reads back what `_Kept.frame` wrote."""

    def __init__(self, tensors: dict[str, torch.Tensor]):
        self._tensors = tensors

    def read(self, frame: dict):
        """The structure of a frame."""
        (kind, inner), *_ = frame.items()
        if kind == "tensor":
            return self._tensors[inner].clone()
        if kind == "picture":
            return pictures.array_to_pil(self._tensors[inner].numpy())
        if kind == "array":
            return self._tensors[inner].numpy().copy()
        if kind in ("tuple", "list"):
            return {"tuple": tuple, "list": list}[kind](self.read(f) for f in inner)
        if kind == "dict":
            return {k: self.read(f) for k, f in inner.items()}
        return inner


def _moment_frame(moment: Moment, kept: _Kept) -> dict:
    tensors = {name: kept.put(value) for name in _TENSORS if (value := getattr(moment, name)) is not None}
    return {
        "values": {name: getattr(moment, name) for name in _VALUES},
        "tensors": tensors,
        "draws": [kept.put(draw) for draw in moment.draws],
        "generators": [kept.put(state) for state in moment.generators],
        "answers": [_answer_frame(answer, kept) for answer in denoiser_answers(moment)],
    }


def _answer_frame(answer: Answer, kept: _Kept) -> dict:
    output = answer.output
    fields = getattr(output, "to_tuple", None)
    return {
        "name": answer.name,
        "method": answer.method,
        "inputs": answer.inputs,
        "output": kept.frame(fields() if fields else output),
    }


def _moment(frame: dict, tensors: dict[str, torch.Tensor]) -> Moment:
    read = _Frame(tensors).read
    answers = [Answer(a["name"], a["method"], a["inputs"], read(a["output"])) for a in frame["answers"]]
    values = {**frame["values"], "levels": tuple(frame["values"]["levels"])}
    return Moment(
        **values,
        **dict.fromkeys(_TENSORS) | {name: tensors[key] for name, key in frame["tensors"].items()},
        answers=answers,
        extra={},
        draws=[tensors[key] for key in frame["draws"]],
        generators=[tensors[key] for key in frame["generators"]],
    )


def _pictures(run: DenoisingRun, kept: _Kept, wanted: bool) -> list:
    """[i, what, name] of decoded pictures, 8 bit."""
    todo = sorted(run._pictures)
    if wanted:
        todo = [(i, "denoised") for i in range(1, run.recorded + 1)] + [(0, "latents"), (run.recorded, "latents")]
    out = []
    for i, what in dict.fromkeys(todo):
        picture = (run.decode(i, what) * 255).round().to(torch.uint8)
        out.append([i, what, kept.put(picture)])
    return out
