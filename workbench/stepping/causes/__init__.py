"""Why two runs part: for each term, the causes that are known, most telling first.

A cause is a function of a `pair.Pair`: it returns a sentence and its evidence, or None where it does not hold.
"a" is taken for the right run, "b" for the one in question. settings: what the runs were made with. start: latents and
draws. inputs: what the denoiser is asked. results: what is done with its answer, to the picture. sentences: what
several of them say.
"""

from workbench.stepping.causes import inputs, results, settings, start
from workbench.stepping.causes.pair import Pair

_SOLVER = (
    settings.prediction_type, settings.noise_schedule, settings.scheduler_class, settings.eta, results.fewer_draws,
    results.stale_history, settings.scheduler_config, results.solved_otherwise, settings.versions,
)  # fmt: skip
_NETWORK = (settings.dtype, settings.weights, settings.versions)
CAUSES = {
    "start": (
        settings.dtype, start.latents_given, start.seed, start.used_generator, settings.scheduler_class, start.scale,
        start.out_of_step_generator, settings.weights, settings.scheduler_config, settings.versions,
    ),
    "timestep": (start.timesteps_moved, settings.scheduler_class, settings.scheduler_config, settings.versions),
    "input": (
        settings.dtype, inputs.guided_or_not, inputs.swapped_prompts, inputs.prompt, inputs.mask_channels,
        inputs.scaled_input, inputs.other_input, settings.weights, settings.versions,
    ),
    "unconditional": _NETWORK,
    "text": _NETWORK,
    "prediction": _NETWORK,
    "guidance": (results.guidance, settings.dtype, settings.versions),
    "history": _SOLVER,
    "draw": (start.seed, start.used_generator, start.out_of_step_generator, settings.versions),
    "solver": _SOLVER,
    "blend": (start.latents_given, results.blend, settings.versions),
    "picture": (results.decoding, settings.versions),
}  # fmt: skip
"""Term -> the causes that can be behind it, in the order they are tried."""


def explain(pair: Pair) -> tuple[str, dict]:
    """The first of `CAUSES` that holds, as a sentence with its evidence."""
    for cause in CAUSES[pair.term]:
        told = cause(pair)
        if told is not None:
            return told
    return f"the {pair.term} differs, and nothing recorded about the two runs says why.", {}
