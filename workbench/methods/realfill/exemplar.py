"""The exemplar baseline: one reference, put into a word, tells a frozen inpainting model what to paint.

W is the table of word vectors. Its row of a word without a meaning is learnt, all other weights stand still:

    v* = argmin_v mean |eps - eps_theta(z_t, t, "a photo of [v]", m = 1, nothing)|^2,  z of crops of the reference

A U-Net that says v or the picture is compared with that instead of eps. Everything is hidden meanwhile (m = 1), so that
all the model knows of the reference must go through the word.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from workbench import check
from workbench.diffusion.filling import crop_round_hole
from workbench.diffusion.latents import encode_moments
from workbench.diffusion.libraries import DDPMScheduler
from workbench.diffusion.lora import borrowed, check_no_lora
from workbench.diffusion.lora_objective import LoraDenoising
from workbench.diffusion.tokenizer import token_ids
from workbench.diffusion.training import Task
from workbench.diffusion.training_data import gaussian, generator
from workbench.image import to_signed
from workbench.methods.realfill.crops import check_references, cut_crops
from workbench.methods.realfill.fill import sample
from workbench.methods.realfill.task import PROMPT
from workbench.stepping.training import TrainingRun

WORD, BEGIN_WITH = "sks", "object"
"""The word that is learnt, and the one whose meaning it has at first."""


class LearntWord(nn.Module):
    """A table of word vectors in which a word's rows are replaced by others, which learn.

    Args:
        table: of the text encoder; left as it is.
        ids: of the word's tokens, (n,).

    Attributes:
        vectors: (n, C).
    """

    def __init__(self, table: nn.Embedding, ids: Sequence[int]):
        super().__init__()
        self.table, self.ids = table, tuple(ids)
        self.vectors = nn.Parameter(table.weight.detach()[list(self.ids)].clone())

    @property
    def weight(self) -> torch.Tensor:
        """The table's, without the word."""
        return self.table.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Ids (B, L) -> vectors (B, L, C)."""
        found = self.table(ids)
        for row, vector in zip(self.ids, self.vectors, strict=True):
            found = torch.where((ids == row)[..., None], vector.to(found.dtype), found)
        return found


def remove_word(text_encoder: nn.Module) -> None:
    """Takes a learnt word out: the text encoder is as it was. Nothing happens to one without."""
    table = text_encoder.get_input_embeddings()
    if isinstance(table, LearntWord):
        text_encoder.set_input_embeddings(table.table)


class WordTask(Task):
    """Learns what a reference shows as the meaning of a word. U-Net, autoencoder and text encoder are frozen.

    The word is put into the text encoder at once; `remove_word` takes it out.

    Args:
        pipe: an inpainting pipeline of 9 channels without a LoRA.
        reference: (1, 3, H, W), the exemplar.
        target, mask: (1, 3, H, W) and (1, 1, H, W), 1 = hole; they set the crops' size, nothing of them is learnt.
        prompt: holds the word.
        word: what is learnt; one token, or several that learn side by side.
        begin_with: a word or some, the mean of whose vectors is where it begins.
        crops: of the reference, see `cut_crops`.
        context, side: as in `RealFillTask`.
        seed: of the crops.

    Raises:
        ValueError: shapes or ranges, a prompt without the word, or a pipeline with a LoRA or another learnt word.

    Source: Gal et al., An Image is Worth One Word, ICLR 2023. Differs: an inpainting model learns, everything hidden;
        one picture where they take 3 to 5; one prompt instead of a list of templates.

    Example:
        >>> task = WordTask(pipe, scene.references[0], scene.target, scene.masks["side"])
        >>> TrainingRun(task, learning_rate=5e-3, batch_size=8).run(200)
    """

    name = "exemplar"

    def __init__(
        self,
        pipe,
        reference: torch.Tensor,
        target: torch.Tensor,
        mask: torch.Tensor,
        prompt: str = PROMPT,
        *,
        word: str = WORD,
        begin_with: str = BEGIN_WITH,
        crops: int = 8,
        context: float = 0.5,
        side: int | None = None,
        seed: int = 0,
    ):
        if len(check.image(reference, "reference")) != 1:
            raise ValueError(f"reference holds {len(reference)} pictures, expected one: reference[i:i + 1].")
        self.pipe, self.seed, self.prompt, self.word, self.side = pipe, check.seed(seed), prompt, word, side
        cut = crop_round_hole(pipe, target, mask, context, side=side)
        for model in (pipe.unet, pipe.text_encoder):
            check_no_lora(model, "the pipeline", "The word alone learns: take it out with remove_lora")
        made = cut_crops([reference], target, mask, cut, crops, seed)
        self.images = made.images[made.of(0)]  # (K, 3, h, w)
        self.ids = token_ids(pipe.tokenizer, [prompt])[0]  # (L,)
        rows = _ids_of(pipe.tokenizer, word, "word")
        first = _ids_of(pipe.tokenizer, begin_with, "begin_with")
        if not set(rows) <= set(self.ids.tolist()):
            raise ValueError(f"prompt is {prompt!r} without the word {word!r}, expected it there: it is what learns.")
        for part in (pipe.unet, pipe.vae, pipe.text_encoder):
            part.requires_grad_(False)
        self._learnt = _put_in(pipe.text_encoder, rows)
        self._first = self._learnt.weight.detach()[first].mean(0).expand(len(rows), -1)  # (n, C)
        self.begin()
        self.objective = LoraDenoising(pipe.unet, pipe.text_encoder, DDPMScheduler.from_config(pipe.scheduler.config))
        self.about = f"Textual inversion: the word {word!r} learns one reference, everything else is frozen."
        self._encoded: tuple[tuple[torch.Tensor, torch.Tensor], ...] | None = None

    def begin(self) -> None:
        """Gives the word its first meaning, in a parameter of its own."""
        self._learnt.vectors = nn.Parameter(self._first.clone())

    @torch.no_grad()
    def batch(self, numbers):
        """latents, noise, masked (B, 4, h, w), mask, known (B, 1, h, w), all 1, t (B,), ids (B, L)."""
        rngs = [generator(*number) for number in numbers]
        rows = [int(rng.integers(len(self.images))) for rng in rngs]
        shown, nothing = self._moments()
        latents = _drawn([part[rows] for part in shown], rngs)  # (B, 4, h, w)
        masked = _drawn([part.expand_as(latents) for part in nothing], rngs)
        everywhere = torch.ones_like(latents[:, :1])
        levels = self.objective.scheduler.config.num_train_timesteps
        return {
            "latents": latents,
            "masked": masked,
            "mask": everywhere,
            "known": everywhere,
            "t": torch.tensor([int(rng.integers(levels)) for rng in rngs]),
            "ids": self.ids.expand(len(rngs), -1),
            "noise": torch.stack([gaussian(rng, latents.shape[1:]) for rng in rngs]),
        }

    def _moments(self) -> tuple[tuple[torch.Tensor, torch.Tensor], ...]:
        """Mean and standard deviation of the latents of all crops, and of a picture of which nothing is shown."""
        if self._encoded is None:
            signed = to_signed(self.images)
            self._encoded = tuple(
                tuple(part.cpu() for part in encode_moments(self.pipe.vae, x.to(self.pipe.vae.dtype)))
                for x in (signed, torch.zeros_like(signed[:1]))
            )
        return self._encoded

    def export(self, folder, trained: str) -> Path:
        """Writes ``word.safetensors``, which diffusers' ``load_textual_inversion(file, token="<new>")`` reads."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_file({self.word: self._learnt.vectors.detach().cpu().contiguous()}, folder / "word.safetensors")
        (folder / "README.md").write_text(f"# {self.name}\n\n{self.about}\n\nTrained: {trained}\n")
        return folder


def learn_word(
    pipe,
    reference: torch.Tensor,
    target: torch.Tensor,
    mask: torch.Tensor,
    *,
    seed: int = 0,
    steps: int | None = 300,
    batch_size: int = 8,
    learning_rate: float = 5e-3,
    memory: float = 16,
    **options,
) -> TrainingRun:
    """A run that puts a reference into a word; nothing is computed before its first step.

    ``run.run(run.total)`` goes to the end. `sample` with ``run.pipe`` and the same prompt then fills, and so does
    ``wb.inpaint(target, mask, "realfill", references=[reference], training=run)``.

    Args:
        pipe, reference, target, mask: as in `WordTask`. The pipeline keeps the word until `remove_word`.
        seed: of everything: crops, order, noise.
        steps: where the run ends; None: nowhere.
        batch_size, learning_rate, memory: of the `TrainingRun`.
        **options: of `WordTask`: prompt, word, begin_with, crops, context, side.

    Source: Gal et al., ICLR 2023, whose 5000 updates of 8 have a learning rate of 0.04. The defaults are for models as
        small as the bundled ones, and have not been measured yet.

    Example:
        >>> run = learn_word(pipe, scene.references[0], scene.target, scene.masks["side"])
        >>> run.run(300)
    """
    task = WordTask(pipe, reference, target, mask, seed=seed, **options)
    settings = {"seed": seed, "steps": steps, "batch_size": batch_size, "learning_rate": learning_rate}
    return TrainingRun(task, memory=memory, **settings)


def exemplar(
    pipe,
    target: torch.Tensor,
    mask: torch.Tensor,
    references: Sequence[torch.Tensor] | torch.Tensor,
    seeds: Sequence[int],
    *,
    steps: int = 300,
    word: dict | None = None,
    seed: int = 0,
    side: int | None = None,
    **sampling,
) -> torch.Tensor:
    """Fills the hole as one reference tells, in place of a text: the baseline that is shown what RealFill is shown.

    Afterwards the pipeline is what it was.

    Args:
        pipe: an inpainting pipeline, frozen.
        target, mask: (1, 3, H, W) and (1, 1, H, W), 1 = hole.
        references: (1, 3, H, W) each; one of them is drawn. Give a part of one to say which thing is meant.
        seeds: of the samples; each gives what it gives alone.
        steps: of learning.
        word: what else `learn_word` takes, by name.
        seed: of the choice, and of learning.
        side: of learning and sampling, as in `fill`.
        **sampling: of `sample`: num_inference_steps, guidance_scale (1: none, as RealFill has it), scheduler, context.

    Returns:
        (S, 3, H, W), kept pixels put back.

    Raises:
        ValueError: shapes or ranges, no references, or a pipeline that has a LoRA or a learnt word.

    Source: Paint by Example (Yang et al., CVPR 2023) is the exemplar baseline in RealFill's table 1, which gives it one
        random reference. That is a model of its own, trained to see the exemplar by CLIP's image embedding. Here its
        place is taken by textual inversion (Gal et al., ICLR 2023): no weights beyond the pipeline's, the exemplar is
        learnt instead of encoded, and the condition is one word as theirs is one vector.

    Example:
        >>> fills = exemplar(pipe, scene.target, scene.masks["side"], scene.references, range(4))
    """
    references = check_references(references)
    if not references:
        raise ValueError("references is empty, expected at least one picture of the scene.")
    if isinstance(pipe.text_encoder.get_input_embeddings(), LearntWord):
        raise ValueError("the pipeline has a learnt word. Sample from it as it is, or take it out with remove_word.")
    chosen = references[int(generator(check.seed(seed), 10).integers(len(references)))]
    with borrowed(pipe):
        try:
            run = learn_word(pipe, chosen, target, mask, seed=seed, steps=steps, side=side, **(word or {}))
            run.run(steps)
            return sample(pipe, target, mask, seeds, prompt=run.task.prompt, side=side, **sampling)
        finally:
            remove_word(pipe.text_encoder)


def _put_in(text_encoder: nn.Module, rows: Sequence[int]) -> LearntWord:
    """The word in the text encoder; one that is there from an earlier task is used again, under its runs' vectors."""
    table = text_encoder.get_input_embeddings()
    if isinstance(table, LearntWord):
        if table.ids != tuple(rows):
            raise ValueError("the pipeline has another learnt word. Take it out first: remove_word(pipe.text_encoder).")
        return table
    learnt = LearntWord(table, rows)
    text_encoder.set_input_embeddings(learnt)
    return learnt


def _ids_of(tokenizer, text: str, name: str) -> list[int]:
    """The tokens of a word or some, each once.

    Raises:
        TypeError: no string. ValueError: an empty one.
    """
    if not isinstance(text, str):
        raise TypeError(f"{name} is a {type(text).__name__}, expected a string: a word.")
    found = list(dict.fromkeys(tokenizer(text, add_special_tokens=False).input_ids))
    if not found:
        raise ValueError(f"{name} is {text!r}, expected a word.")
    return found


def _drawn(moments, rngs: Sequence[np.random.Generator]) -> torch.Tensor:
    """Latents drawn from their posteriors, as the pipelines do: (B, 4, h, w)."""
    mean, std = moments
    return mean + std * torch.stack([gaussian(rng, mean.shape[1:]) for rng in rngs])
