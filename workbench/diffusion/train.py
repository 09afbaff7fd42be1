"""Trains the bundled models: python -m workbench.diffusion.train vae|t2i|inpaint|classifier|depth --help.

Run again, the same command goes on where it stopped; when the budget is used it exports the model. On several
processes (one a GPU, or on a CPU): torchrun --nproc_per_node 2 -m workbench.diffusion.train ...
"""

import argparse
import dataclasses
from pathlib import Path

from workbench.diffusion.pipelines import MODELS
from workbench.diffusion.training import ModelTask, Settings, Trainer, make_accelerator

DEFAULTS = {
    "classifier": {"batch_size": 32, "learning_rate": 2e-3},
    "depth": {"batch_size": 16, "learning_rate": 1e-3},
    "vae": {"batch_size": 4, "learning_rate": 1e-3},
    "t2i": {"batch_size": 32, "learning_rate": 1e-3},
    "inpaint": {"batch_size": 32, "learning_rate": 5e-4},
}
"""What differs from `training.Settings` unless told."""
NAMES = {"vae": "tiny-vae", "t2i": "tiny-t2i", "inpaint": "tiny-inpaint", "classifier": "tiny-classifier",
         "depth": "tiny-depth"}  # fmt: skip


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m workbench.diffusion.train", description=__doc__)
    parser.add_argument("what", choices=DEFAULTS)
    parser.add_argument("--data", nargs="+", required=True, help="folders written by python -m workbench.world")
    parser.add_argument("--validation", nargs="+", required=True, help="folders with views of the validation seeds")
    parser.add_argument("--folder", help="folder of checkpoints, log and samples (checkpoints/<model>)")
    parser.add_argument("--export", help="where the model goes (data/models/<model>)")
    parser.add_argument("--export-now", action="store_true", help="export the last checkpoint without training on")
    parser.add_argument("--photos", type=float, help="share of crops of photographs (0.3 vae, 0.15 t2i and inpaint)")
    parser.add_argument("--style", type=float, default=1.0, help="strength of the photographic styles (1)")
    parser.add_argument("--factor", type=int, choices=(4, 8), default=4, help="vae: pixels a latent cell (4)")
    parser.add_argument("--adversarial", type=float, default=0.0, help="vae: weight of the patch discriminator (0)")
    parser.add_argument("--kl", type=float, default=1e-4, help="vae: weight of the Kullback-Leibler term (1e-4)")
    parser.add_argument("--classifier", help="vae: folder of the classifier for the perceptual loss (none)")
    parser.add_argument("--decoder-of", help="vae: go on with the decoder of this model; its latents stay as they are")
    parser.add_argument("--vae", default="tiny-vae", help="t2i: name or folder of the autoencoder (tiny-vae)")
    parser.add_argument("--base", default=str(MODELS / "tiny-t2i"), help="inpaint: the pipeline to grow from")
    parser.add_argument("--latents", type=int, default=30_000, help="t2i, inpaint: pictures encoded beforehand (30000)")
    parser.add_argument("--small-steps", type=int, default=0, help="t2i, inpaint: first so many at half the side (0)")
    for field in dataclasses.fields(Settings):
        kind = {"steps": int, "minutes": float}.get(field.name, type(field.default))
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, help="see training.Settings")
    return parser


def main(arguments=None) -> None:
    """Reads the command line, trains, exports."""
    options = make_parser().parse_args(arguments)
    given = {field.name: getattr(options, field.name) for field in dataclasses.fields(Settings)}
    given = {name: value for name, value in given.items() if value is not None}
    run = Path(options.folder or f"checkpoints/{NAMES[options.what]}")
    try:
        settings = Settings(**{**DEFAULTS[options.what], **given})
        task, accelerator = prepare(options, settings, run)
        trainer = Trainer(task, settings, run, accelerator)
        if not options.export_now:
            trainer.run()
        if trainer.main:
            _export(trainer, options)
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error


def prepare(options, settings: Settings, run: Path) -> tuple:
    """The task, and the accelerator it shall run on: data read, networks built, latents encoded."""
    accelerator = make_accelerator(settings)
    build = {"vae": _vae, "t2i": _t2i, "inpaint": _inpaint, "classifier": _classifier, "depth": _depth}[options.what]
    return build(options, settings, run, accelerator), accelerator


def _export(trainer: Trainer, options) -> None:
    """Writes the averaged weights as a model."""
    folder = Path(options.export or MODELS / trainer.task.name)
    s = trainer.settings
    told = (
        f"{trainer.step} updates of {s.batch_size} pictures in {trainer.elapsed() / 60:.0f} minutes, AdamW, "
        f"learning rate {s.learning_rate:g} (warm-up, cosine), precision {trainer.accelerator.mixed_precision}, "
        f"averaged weights ({s.ema:g}), seed {s.seed}"
    )
    trainer.task.objective.eval()
    with trainer.ema.applied(trainer.task.objective):
        trainer.task.export(folder, told)
    print(f"{trainer.task.name}: {trainer.step} updates, written to {folder}")


def _pictures(options, photos: float = 0.0, kinds=None):
    from workbench.diffusion.training_data import TrainingPictures

    share = options.photos if options.photos is not None else photos
    train = TrainingPictures(options.data, share, options.style, kinds)
    return train, TrainingPictures(options.validation, 0.0, 0.0, kinds)


def _vae(options, settings, run, accelerator) -> ModelTask:
    from workbench.diffusion.classifier import load_classifier
    from workbench.diffusion.export import how_trained
    from workbench.diffusion.models import make_autoencoder
    from workbench.diffusion.pipelines import find_folder
    from workbench.diffusion.vae import Reconstruction, VaeTask, freeze_encoder, load_autoencoder

    classifier = load_classifier(options.classifier) if options.classifier else None
    if options.decoder_of:
        vae = freeze_encoder(load_autoencoder(options.decoder_of))
    else:
        vae = make_autoencoder(options.factor, seed=settings.seed)
    weights = {"kl_weight": options.kl, "adversarial_weight": options.adversarial}
    task = VaeTask(Reconstruction(vae, classifier, seed=settings.seed, **weights), *_pictures(options, 0.3))
    if options.decoder_of:
        task.before = how_trained(find_folder(options.decoder_of)) + " Then the decoder alone: "
    return task


def _t2i(options, settings, run, accelerator) -> ModelTask:
    from workbench.diffusion.denoiser import Denoising
    from workbench.diffusion.models import make_denoiser, make_text_encoder
    from workbench.diffusion.tokenizer import make_tokenizer
    from workbench.diffusion.vae import load_autoencoder

    vae = load_autoencoder(options.vae)
    tokenizer = make_tokenizer()
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    unet = make_denoiser(factor, seed=settings.seed)
    objective = Denoising(unet, make_text_encoder(tokenizer, seed=settings.seed), train_text=True)
    return _denoiser_task(objective, vae, tokenizer, options, settings, run, accelerator)


def _inpaint(options, settings, run, accelerator) -> ModelTask:
    from workbench.diffusion.denoiser import Denoising
    from workbench.diffusion.models import grow_input
    from workbench.diffusion.pipelines import load_pipeline

    base = load_pipeline(options.base)
    objective = Denoising(grow_input(base.unet), base.text_encoder, train_text=False)
    return _denoiser_task(objective, base.vae, base.tokenizer, options, settings, run, accelerator)


def _denoiser_task(objective, vae, tokenizer, options, settings, run, accelerator) -> ModelTask:
    """Encodes the latents, each process its share, and joins everything."""
    from workbench.diffusion.denoiser import DenoiserTask
    from workbench.diffusion.latents import build_cache, read_cache

    train, validation = _pictures(options, 0.15)
    holes = objective.unet.config.in_channels == 9
    part = (accelerator.process_index, accelerator.num_processes)
    vae = vae.to(accelerator.device)
    cache = build_cache(vae, train, run / "latents", options.latents, settings.seed, holes, part)
    accelerator.wait_for_everyone()
    return DenoiserTask(objective, vae, tokenizer, read_cache(cache), validation, options.small_steps)


def _classifier(options, settings, run, accelerator) -> ModelTask:
    from workbench.diffusion.classifier import ClassifierTask, Naming, make_classifier
    from workbench.world.views import LABELS

    return ClassifierTask(Naming(make_classifier(LABELS, seed=settings.seed)), *_pictures(options))


def _depth(options, settings, run, accelerator) -> ModelTask:
    from workbench.diffusion.depth import KINDS, DepthTask, Estimating, make_depth

    return DepthTask(Estimating(make_depth(seed=settings.seed)), *_pictures(options, kinds=KINDS))


if __name__ == "__main__":
    main()
