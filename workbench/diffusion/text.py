"""How a text encoder learns to read before any picture is painted by it: each word with its looks, each text whole.

A fresh one gives nearly the same states for "a cube" and "a plant" (cosine 0.97), and a denoiser hardly pulls them
apart: a word changes little of a picture, and what cannot be heard is learnt to do without. Stable Diffusion's text
encoder is CLIP's, which had read 400 million texts before; ours reads made-up captions for some minutes.
"""

import numpy as np
import torch
from torch import nn

from workbench.diffusion.export import write_model
from workbench.diffusion.libraries import CLIPTextModel, CLIPTokenizer
from workbench.diffusion.models import SIZE
from workbench.diffusion.tokenizer import EVERYDAY, RARE, token_ids
from workbench.diffusion.training import ModelTask
from workbench.diffusion.training_data import generator

NAME = "tiny-text"
BREAKS = ("a", "an", "the", "photo", "of", "with", "and", "on", "in", "at", ",")
"""Tokens that end a thing's description."""
STRANGE = 0.1
"""Share of things that also bear a word of no looks, "bright" or "sks": those are to be told apart as well."""
HELD = 256
"""Captions that reading is measured on."""


def made_up_caption(rng: np.random.Generator) -> str:
    """A caption of no picture, in the world's words: "a photo of a room with a red ball on a blue tiled floor".

    Any thing with any look, so that no word can be guessed from the others.
    """
    from workbench.world.views import listing, shorter_caption, with_article

    kind = ("room", "facade", "")[int(rng.integers(3))]
    things = [_thing(rng) for _ in range(int(rng.integers(1, 5)) if kind else 1)]
    ground = "floor" if kind == "room" else "background"
    told = f" on {with_article(_looks(rng, ground))}" if rng.random() < 0.5 else ""
    text = "a photo of " + (f"{with_article(kind)} with " if kind else "") + listing(things) + told
    return shorter_caption(text, rng) if rng.random() < 0.5 else text


def _thing(rng: np.random.Generator) -> str:
    from workbench.world.views import OBJECTS, with_article

    return with_article(_looks(rng, OBJECTS[int(rng.integers(len(OBJECTS)))]))


def _looks(rng: np.random.Generator, word: str) -> str:
    """A word with up to three looks before it."""
    from workbench.world.materials import COLOURS
    from workbench.world.views import PATTERN_WORDS

    strange = [w for w in (*EVERYDAY, *RARE) if w not in BREAKS]
    kinds = ((0.2, ["shiny"]), (0.7, list(COLOURS)), (0.4, list(PATTERN_WORDS.values())), (STRANGE, strange))
    return " ".join([*(str(rng.choice(words)) for share, words in kinds if rng.random() < share), word])


class Reading(nn.Module):
    """The text encoder, and what its states shall tell by one linear map: which words belong to what is read.

    At a word: the words of its description so far ("red striped ball" at "ball"). From the end of the text on, in
    the padding too: all words of the text.

    Args:
        text_encoder: learns.
        tokenizer: its vocabulary.
    """

    def __init__(self, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer):
        super().__init__()
        self.text_encoder = text_encoder
        self.words = nn.Linear(text_encoder.config.hidden_size, len(tokenizer), bias=False)
        nn.init.zeros_(self.words.weight)
        self.end = tokenizer.eos_token_id
        small = [tokenizer.bos_token_id, self.end, *tokenizer.convert_tokens_to_ids([f"{w}</w>" for w in BREAKS])]
        self.register_buffer("breaks", torch.zeros(len(tokenizer)).index_fill(0, torch.tensor(small), 1), False)

    def asked(self, ids: torch.Tensor) -> torch.Tensor:
        """Which words each state shall tell: 0 or 1, (B, L, V); nothing where a description has not begun."""
        one_hot = nn.functional.one_hot(ids, len(self.breaks)) * (1 - self.breaks)  # (B, L, V)
        so_far = one_hot.cumsum(1)
        ends = self.breaks[ids].bool()  # (B, L)
        places = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        last = torch.where(ends, places, -1).cummax(1).values.clamp(min=0)  # the break before each place
        phrase = so_far - so_far.gather(1, last[..., None].expand_as(so_far))
        return torch.where((ids == self.end)[..., None], so_far, phrase).clamp(max=1).float()

    def told(self, ids: torch.Tensor) -> torch.Tensor:
        """Logits of the words (B, L, V)."""
        return self.words(self.text_encoder(ids).last_hidden_state)

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Cross-entropy for ids (B, L): of "words" at each place of a description, of "texts" at the end of the text.

        The truth is spread evenly over the words that are asked for.
        """
        asked, ids = self.asked(batch["ids"]), batch["ids"]
        some = asked.sum(-1)  # (B, L)
        surprise = -(self.told(ids).log_softmax(-1) * asked).sum(-1) / some.clamp(min=1)  # (B, L)
        whole = ids == self.end
        within = (some > 0) & ~whole
        words, texts = ((surprise * place).sum() / place.sum().clamp(min=1) for place in (within, whole))
        return {"loss": words + texts, "words": words, "texts": texts}


class TextTask(ModelTask):
    """The training of a text encoder by itself; the linear map is thrown away.

    Args:
        objective: `Reading`.
        tokenizer: of it.
    """

    name, items = NAME, "captions"
    about = (
        "CLIP's text transformer, taught to keep its words apart, from made-up captions; the share of places where "
        "exactly the words asked for are likeliest by one linear map: of a description at its last word, of the text."
    )

    def __init__(self, objective: Reading, tokenizer: CLIPTokenizer):
        self.objective, self.tokenizer = objective, tokenizer
        self.held = self.batch([[5, 0, i] for i in range(HELD)])["ids"]  # (N, L), of no training's numbers

    def batch(self, numbers):
        """ids (B, L)."""
        return {"ids": token_ids(self.tokenizer, [made_up_caption(generator(6, *number)) for number in numbers])}

    @torch.no_grad()
    def validate(self):
        """Shares of unseen captions' descriptions and of whole captions that are read without a mistake."""
        ids = self.held.to(self.objective.breaks.device)
        asked, told = self.objective.asked(ids), self.objective.told(ids)
        count = asked.sum(-1).long()  # (N, L)
        ranks = told.argsort(-1, descending=True).argsort(-1)  # (N, L, V), 0: the likeliest
        right = ((ranks < count[..., None]) == asked.bool()).all(-1)  # (N, L)
        whole = ids == self.objective.end
        within = (count > 0) & ~whole
        last = within & ~within.roll(-1, 1)  # of a description
        return {"descriptions": right[last].float().mean().item(), "texts": right[whole].float().mean().item()}

    @torch.no_grad()
    def sheet(self):
        """How alike the ends of 32 captions are: |cosine| of every two, white = 1, (1, 3, 128, 128)."""
        ids = self.held[:32].to(self.objective.breaks.device)
        ends = nn.functional.normalize(self.objective.text_encoder(ids).last_hidden_state[:, -1], dim=-1)
        alike = (ends @ ends.T).abs().clamp(0, 1)[None, None].expand(1, 3, -1, -1)
        return nn.functional.interpolate(alike.float().cpu(), size=(SIZE, SIZE))

    def export(self, folder, trained):
        """Writes the encoder's folder."""
        told = {"about": self.about, "trained": trained, "quality": self.validate()}
        return write_model(folder, {"": self.objective.text_encoder}, title=self.name, **told)


def load_text_encoder(source=NAME) -> CLIPTextModel:
    """A text encoder that ``train text`` wrote.

    Args:
        source: its folder.

    Raises:
        NotAvailable: there is none, or its files are damaged.
    """
    from workbench.diffusion.pipelines import load_part

    return load_part(CLIPTextModel, source)
