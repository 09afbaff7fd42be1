"""Trains the bundled models: python -m workbench.diffusion.train vae|text|t2i|inpaint|classifier|depth --help.

Run again, the same command goes on where it stopped; when the budget is used it exports the model. On several
processes (one a GPU, or on a CPU): torchrun --nproc_per_node 2 -m workbench.diffusion.train ...
"""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path

from workbench.diffusion.models import PREDICTIONS
from workbench.diffusion.pipelines import MODELS
from workbench.diffusion.training import ModelTask, Settings, Trainer, make_accelerator

DEFAULTS = {
    "classifier": {"batch_size": 32, "learning_rate": 2e-3},
    "depth": {"batch_size": 16, "learning_rate": 1e-3},
    "vae": {"batch_size": 4, "learning_rate": 1e-3},
    "text": {"batch_size": 64, "learning_rate": 1e-3},
    "t2i": {"batch_size": 32, "learning_rate": 1e-3},
    "inpaint": {"batch_size": 32, "learning_rate": 5e-4},
}
"""What differs from `training.Settings` unless told."""
NAMES = {"vae": "tiny-vae", "text": "tiny-text", "t2i": "tiny-t2i", "inpaint": "tiny-inpaint",
         "classifier": "tiny-classifier", "depth": "tiny-depth"}  # fmt: skip


TEXTS = ("kept", "learnt")
"""What may become of the text encoder of a pipeline that is gone on from."""


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m workbench.diffusion.train", description=__doc__)
    parser.add_argument("what", choices=DEFAULTS)
    add_arguments(parser, photos="0.3 vae, 0.15 t2i and inpaint", required=False)
    parser.add_argument("--factor", type=int, choices=(4, 8), default=4, help="vae: pixels a latent cell (4)")
    parser.add_argument("--adversarial", type=float, default=0.0, help="vae: weight of the patch discriminator (0)")
    parser.add_argument("--kl", type=float, default=1e-4, help="vae: weight of the Kullback-Leibler term (1e-4)")
    parser.add_argument("--classifier", help="vae: folder of the classifier for the perceptual loss (none)")
    parser.add_argument("--decoder-of", help="vae: go on with the decoder of this model; its latents stay as they are")
    parser.add_argument("--vae", default="tiny-vae", help="t2i: name or folder of the autoencoder (tiny-vae)")
    parser.add_argument(
        "--base",
        help="inpaint: the pipeline to grow from (tiny-t2i); t2i, classifier: one to go on from (none), for t2i also "
        "one for inpainting. The text encoder stays as it is unless told",
    )
    parser.add_argument(
        "--text",
        help="t2i: folder of the text encoder, by train text, which learns on (a fresh one, which hardly learns to "
        "read beside pictures); with --base also whether its text encoder is kept or learnt on (kept)",
    )
    parser.add_argument(
        "--prediction", choices=PREDICTIONS, default="v_prediction", help="t2i, inpaint: what it says (v_prediction)"
    )
    parser.add_argument("--latents", type=int, default=30_000, help="t2i, inpaint: pictures encoded beforehand (30000)")
    parser.add_argument(
        "--close", type=float, default=0.0, help="t2i: share of views cut about one of their things (0)"
    )
    parser.add_argument(
        "--alone", type=float, default=0.0, help="t2i, classifier: share of views with one thing cut free of them (0)"
    )
    parser.add_argument("--small-steps", type=int, default=0, help="t2i, inpaint: first so many at half the side (0)")
    return parser


def add_arguments(parser: argparse.ArgumentParser, photos: str, required: bool = True) -> None:
    """The options that every training has: data, folders, and all of `training.Settings`.

    Args:
        parser: gets them.
        photos: the share of photographs unless told, for the help.
        required: whether data must be named.
    """
    parser.add_argument("--data", nargs="+", required=required, help="folders written by python -m workbench.world")
    parser.add_argument("--validation", nargs="+", required=required, help="folders with views of the validation seeds")
    parser.add_argument("--folder", help="folder of checkpoints, log and samples (checkpoints/<model>)")
    parser.add_argument("--export", help="where the model goes (data/models/<model>)")
    parser.add_argument("--export-now", action="store_true", help="export the last checkpoint without training on")
    parser.add_argument("--photos", type=float, help=f"share of crops of photographs ({photos})")
    parser.add_argument("--style", type=float, default=1.0, help="strength of the photographic styles (1)")
    for field in dataclasses.fields(Settings):
        kind = {"steps": int, "minutes": float}.get(field.name, type(field.default))
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, help="see training.Settings")


def main(arguments=None) -> None:
    """Reads the command line, trains, exports."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    if options.what != "text" and not (options.data and options.validation):
        parser.error("the following arguments are required: --data, --validation")
    build = {"vae": _vae, "text": _text, "t2i": _t2i, "inpaint": _inpaint, "classifier": _classifier, "depth": _depth}
    carry_out(options, NAMES[options.what], DEFAULTS[options.what], build[options.what])


def carry_out(options, name: str, defaults: dict, build: Callable[..., ModelTask]) -> None:
    """Trains and exports as the command line says; what is wrong with it ends the program in one line.

    Args:
        options: as `add_arguments` has them.
        name: of the model.
        defaults: settings that hold unless told.
        build: (options, settings, folder of the run, accelerator) -> the task.
    """
    given = {field.name: getattr(options, field.name) for field in dataclasses.fields(Settings)}
    given = {key: value for key, value in given.items() if value is not None}
    run = Path(options.folder or f"checkpoints/{name}")
    try:
        settings = Settings(**{**defaults, **given})
        accelerator = make_accelerator()
        task = build(options, settings, run, accelerator)
        trainer = Trainer(task, settings, run, accelerator)
        if not options.export_now:
            trainer.run()
        if trainer.main:
            _export(trainer, options)
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error


def _export(trainer: Trainer, options) -> None:
    """Writes the averaged weights as a model."""
    folder = Path(options.export or MODELS / trainer.task.name)
    s = trainer.settings
    told = (
        f"{trainer.task.before}{trainer.step} updates of {s.batch_size} {trainer.task.items} "
        f"in {trainer.elapsed() / 60:.0f} minutes, AdamW, learning rate {s.learning_rate:g} (warm-up, cosine), "
        f"precision {trainer.precision}, averaged weights ({s.ema:g}), seed {s.seed}"
    )
    trainer.task.objective.eval()
    with trainer.ema.applied(trainer.task.objective):
        trainer.task.export(folder, told)
    print(f"{trainer.task.name}: {trainer.step} updates, written to {folder}")


def read_pictures(options, photos: float = 0.0, kinds=None, **near) -> tuple:
    """Training and validation pictures, as the options say; ``photos`` is the share of photographs unless told.

    ``near``: "close" and "alone" of `TrainingPictures`.
    """
    from workbench.diffusion.training_data import TrainingPictures

    share = options.photos if options.photos is not None else photos
    train = TrainingPictures(options.data, share, options.style, kinds, **near)
    return train, TrainingPictures(options.validation, 0.0, 0.0, kinds)


def _before(source, then: str) -> str:
    """What the card of a model that is gone on from tells of its training, as the beginning of a longer one."""
    from workbench.diffusion import bundled
    from workbench.diffusion.export import how_trained

    told = how_trained(MODELS / source if source in bundled() else source)
    return f"{told} {then}: " if told else ""


def _vae(options, settings, run, accelerator) -> ModelTask:
    from workbench.diffusion.classifier import load_classifier
    from workbench.diffusion.models import make_autoencoder
    from workbench.diffusion.vae import Reconstruction, VaeTask, freeze_encoder, load_autoencoder

    classifier = load_classifier(options.classifier) if options.classifier else None
    if options.decoder_of:
        vae = freeze_encoder(load_autoencoder(options.decoder_of))
    else:
        vae = make_autoencoder(options.factor, seed=settings.seed)
    weights = {"kl_weight": options.kl, "adversarial_weight": options.adversarial}
    task = VaeTask(Reconstruction(vae, classifier, seed=settings.seed, **weights), *read_pictures(options, 0.3))
    if options.decoder_of:
        task.before = _before(options.decoder_of, "Then the decoder alone")
    return task


def _text(options, settings, run, accelerator) -> ModelTask:
    from workbench.diffusion.models import make_text_encoder
    from workbench.diffusion.text import Reading, TextTask
    from workbench.diffusion.tokenizer import make_tokenizer

    tokenizer = make_tokenizer()
    return TextTask(Reading(make_text_encoder(tokenizer, seed=settings.seed), tokenizer), tokenizer)


def _t2i(options, settings, run, accelerator) -> ModelTask:
    from workbench.diffusion.denoiser import Denoising
    from workbench.diffusion.export import how_trained
    from workbench.diffusion.latents import nothing_given
    from workbench.diffusion.models import LATENT_CHANNELS, drop_input, make_denoiser, make_text_encoder
    from workbench.diffusion.pipelines import load_pipeline
    from workbench.diffusion.text import load_text_encoder
    from workbench.diffusion.tokenizer import make_tokenizer
    from workbench.diffusion.vae import load_autoencoder

    vae = load_autoencoder(options.vae)
    tokenizer = make_tokenizer()
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    if options.base:
        base = load_pipeline(options.base)
        unet, text = base.unet, base.text_encoder
        if unet.config.in_channels > LATENT_CHANNELS:
            unet = drop_input(unet, nothing_given(base.vae))
    else:
        unet, text = make_denoiser(factor, seed=settings.seed), make_text_encoder(tokenizer, seed=settings.seed)
    read = ""
    if options.text and options.text not in TEXTS:
        text = load_text_encoder(options.text)
        read = f"with a text encoder that had learnt to read ({how_trained(options.text)})"
    learns = not options.base or options.text not in (None, "kept")
    objective = Denoising(unet, text, train_text=learns, prediction=options.prediction)
    task = _denoiser_task(objective, vae, tokenizer, options, settings, run, accelerator)
    if options.base:
        how = ["Then", "" if unet is base.unet else "told that all is hidden"]
        how.append(read or ("with the text encoder" if learns else ""))
        task.before = _before(options.base, ", ".join(filter(None, how)))
    elif read:
        task.before = f"From nothing, {read}: "
    return task


def _inpaint(options, settings, run, accelerator) -> ModelTask:
    from workbench.diffusion.denoiser import Denoising
    from workbench.diffusion.models import grow_input
    from workbench.diffusion.pipelines import load_pipeline

    source = options.base or "tiny-t2i"
    base = load_pipeline(source)
    unet = grow_input(base.unet)
    unet.register_to_config(_masked_image="smooth")
    objective = Denoising(unet, base.text_encoder, train_text=False, prediction=options.prediction)
    task = _denoiser_task(objective, base.vae, base.tokenizer, options, settings, run, accelerator)
    grown = base.unet.config.in_channels < unet.config.in_channels
    task.before = _before(source, "Then, grown to holes" if grown else "Then")
    return task


def _denoiser_task(objective, vae, tokenizer, options, settings, run, accelerator) -> ModelTask:
    """Encodes the latents, each process its share, and joins everything."""
    from workbench.diffusion.denoiser import DenoiserTask
    from workbench.diffusion.latents import build_cache, read_cache

    train, validation = read_pictures(options, 0.15, close=options.close, alone=options.alone)
    holes = objective.unet.config.in_channels == 9
    part = (accelerator.process_index, accelerator.num_processes)
    vae = vae.to(accelerator.device)
    cache = build_cache(vae, train, run / "latents", options.latents, settings.seed, holes, part)
    accelerator.wait_for_everyone()
    task = DenoiserTask(objective, vae, tokenizer, read_cache(cache), validation, options.small_steps)
    task.about += f" Of the rendered views {options.close:.0%} were cut about a thing." if options.close else ""
    task.about += _alone(options)
    return task


def _alone(options) -> str:
    """What a card says of things cut free."""
    return f" Of {options.alone:.0%} of the views one thing was cut free, on a background." if options.alone else ""


def _classifier(options, settings, run, accelerator) -> ModelTask:
    from workbench.diffusion.classifier import ClassifierTask, Naming, load_classifier, make_classifier
    from workbench.world.views import LABELS

    classifier = load_classifier(options.base) if options.base else make_classifier(LABELS, seed=settings.seed)
    task = ClassifierTask(Naming(classifier), *read_pictures(options, alone=options.alone))
    task.about += _alone(options)
    if options.base:
        task.before = _before(options.base, "Then")
    return task


def _depth(options, settings, run, accelerator) -> ModelTask:
    from workbench.diffusion.depth import KINDS, DepthTask, Estimating, make_depth

    return DepthTask(Estimating(make_depth(seed=settings.seed)), *read_pictures(options, kinds=KINDS))


if __name__ == "__main__":
    main()
