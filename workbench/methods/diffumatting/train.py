"""Trains DiffuMatting: python -m workbench.methods.diffumatting.train decode|paint|refine|matting --help.

decode: the last stage of the autoencoder's decoder, so that it shows green. paint: the LoRA that paints on green, and
the matting head. refine: GreenPost's refiner. matting: the factory's customer, a small network learnt from real and
synthetic things.
"""

import argparse

from workbench.diffusion import load_pipeline
from workbench.diffusion.export import how_trained
from workbench.diffusion.pipelines import find_folder
from workbench.diffusion.train import add_arguments, carry_out
from workbench.diffusion.vae import load_autoencoder, round_trip
from workbench.methods.diffumatting.data import Backgrounds, FolderMattes, SpriteMattes
from workbench.methods.diffumatting.decoding import DECODER, DecoderTask, load_decoder
from workbench.methods.diffumatting.loading import load_refiner
from workbench.methods.diffumatting.networks import make_matting_network, make_refiner
from workbench.methods.diffumatting.refining import MattingTask, RefinerTask
from workbench.methods.diffumatting.task import RANK, WEIGHTS, DiffuMattingTask, load_examples

NAMES = {"decode": DECODER, "paint": "tiny-diffumatting", "refine": "tiny-greenpost", "matting": "tiny-matting"}
DEFAULTS = {
    "decode": {"batch_size": 16, "learning_rate": 3e-3},
    "paint": {"batch_size": 16, "learning_rate": 1e-3},
    "refine": {"batch_size": 16, "learning_rate": 1e-3},
    "matting": {"batch_size": 16, "learning_rate": 1e-3},
}
"""What differs from `training.Settings` unless told."""
HELD = 96
"""Held-out things that are kept at hand while painting is learnt."""


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m workbench.methods.diffumatting.train", description=__doc__)
    parser.add_argument("what", choices=NAMES)
    add_arguments(parser, photos="not used: sprites only")
    parser.add_argument("--base", default="tiny-t2i", help="paint: the pipeline, a name or a folder (tiny-t2i)")
    parser.add_argument("--base-name", help="paint: the base's name as the export tells it (as --base)")
    parser.add_argument(
        "--decoder", default=DECODER, help=f"paint, refine: as decode made it; none: the vae's ({DECODER})"
    )
    parser.add_argument("--begin", help="paint, refine: a trained model to go on from, a name or a folder (none)")
    parser.add_argument("--things", type=int, help="paint: so many sprites, each also mirrored (all)")
    parser.add_argument("--kinds", nargs="+", help="kinds of sprites to learn from (all)")
    parser.add_argument("--rank", type=int, default=RANK, help=f"paint: of the LoRA ({RANK})")
    parser.add_argument(
        "--joint-from", type=int, default=0, help="paint: update from which the matting loss counts (0)"
    )
    parser.add_argument("--decode-every", type=int, default=2, help="paint: one item in so many is decoded (2)")
    for name, value in WEIGHTS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=value, help=f"paint: 0 to 10 ({value})")
    parser.add_argument(
        "--vae", default="tiny-vae", help="refine: half the pictures go through it; none: none (tiny-vae)"
    )
    parser.add_argument(
        "--backgrounds", nargs="*", default=(), help="decode, matting: rendered rooms and facades to stand before"
    )
    parser.add_argument("--synthetic", help="matting: folder that make_dataset wrote")
    parser.add_argument(
        "--synthetic-share", type=float, default=0.0, help="matting: 0.25 is real : synthetic 3 : 1 (0)"
    )
    return parser


def main(arguments=None) -> None:
    """Reads the command line, trains, exports."""
    options = make_parser().parse_args(arguments)
    build = {"decode": _decode, "paint": _paint, "refine": _refine, "matting": _matting}[options.what]
    carry_out(options, NAMES[options.what], DEFAULTS[options.what], build)


def _decode(options, settings, run, accelerator) -> DecoderTask:
    return DecoderTask(
        load_autoencoder(), SpriteMattes(options.data, kinds=options.kinds), SpriteMattes(options.validation),
        Backgrounds(options.backgrounds), min(options.style, 1.0) / 2,
    )  # fmt: skip


def _paint(options, settings, run, accelerator) -> DiffuMattingTask:
    pipe = load_pipeline(options.base, device=accelerator.device)
    decoder = None if options.decoder == "none" else options.decoder
    if decoder is not None:
        load_decoder(pipe.vae, decoder)
    examples = load_examples(SpriteMattes(options.data, options.things, options.kinds))
    validation = SpriteMattes(options.validation)
    held = load_examples(validation, min(HELD, len(validation)), mirrored=False)
    weights = {name: getattr(options, name) for name in WEIGHTS}
    task = DiffuMattingTask(
        pipe, examples, held, joint_from=options.joint_from, decode_every=options.decode_every, rank=options.rank,
        seed=settings.seed, **weights,
    )  # fmt: skip
    task.base, task.decoder = options.base_name or str(options.base), decoder
    if options.begin is not None:
        task.start_from(find_folder(options.begin))
        task.before = _before(options.begin)
    return task


def _before(source) -> str:
    """What the card tells of the training that this one goes on from."""
    return f"{how_trained(find_folder(source)).rstrip('.')}. Then "


def _refine(options, settings, run, accelerator) -> RefinerTask:
    spoil = None
    if options.vae != "none":
        vae = load_autoencoder(options.vae)
        if options.decoder != "none":
            load_decoder(vae, options.decoder)

        def spoil(image):
            return round_trip(vae, image)

    network = make_refiner(settings.seed) if options.begin is None else load_refiner(options.begin).train()
    style = min(options.style, 1.0) / 2
    task = RefinerTask(
        network, SpriteMattes(options.data, kinds=options.kinds), SpriteMattes(options.validation), spoil, style
    )
    if options.begin is not None:
        task.before = _before(options.begin)
    return task


def _matting(options, settings, run, accelerator) -> MattingTask:
    synthetic = None
    if options.synthetic:
        synthetic = FolderMattes(options.synthetic, "foregrounds")
    real = SpriteMattes(options.data, kinds=options.kinds) if options.synthetic_share < 1 else None
    return MattingTask(
        make_matting_network(settings.seed), real, synthetic, SpriteMattes(options.validation),
        Backgrounds(options.backgrounds), options.synthetic_share,
    )  # fmt: skip


if __name__ == "__main__":
    main()
