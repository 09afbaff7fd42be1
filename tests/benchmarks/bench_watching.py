"""What it costs to watch: a training with its monitor and a denoising with its player, against the same steps alone.

    python tests/benchmarks/bench_watching.py [--quick]

The bundled tiny-inpaint. Seconds are the processor's, for other programs disturb; each figure is the least of several
turns, taken in turns. When a widget draws is decided by the clock on the wall: on a busy machine it draws less often.
"""

import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

import workbench as wb
from workbench.diffusion.latents import given_to


def least(*actions, turns: int) -> list[float]:
    """Processor seconds of each action, the least of several turns."""
    seconds = []
    for _ in range(turns):
        seconds.append([])
        for action in actions:
            started = time.process_time()
            action()
            seconds[-1].append(time.process_time() - started)
    return [min(column) for column in zip(*seconds, strict=True)]


def tell_training(pipe, scene, steps: int, turns: int) -> None:
    task = wb.LoraTask(pipe, torch.cat(scene.references[:4]), scene.caption, rank=8, seed=0)
    training = wb.TrainingRun(task, learning_rate=1e-3, batch_size=4, seed=0)
    training.run(1)
    monitor = wb.TrainingMonitor(training)  # makes the figure, once

    def by_hand():
        for _ in range(steps):
            monitor.step()

    alone, watched, stepped = least(lambda: training.run(steps), lambda: monitor.run(steps), by_hand, turns=turns)
    print(
        f"LoRA: a step {alone / steps:.2f} s; {steps} steps watched: {watched / alone:.2f} times the time (at most "
        f"1.10); stepped by hand, each drawn: {stepped / alone:.2f} times"
    )


def tell_denoising(pipe, scene, steps: int, turns: int) -> None:
    given = given_to(pipe, scene.target, scene.masks["object"])
    given |= {"prompt": scene.caption, "num_inference_steps": steps, "guidance_scale": 1.0, "output_type": "pt"}

    def alone():
        wb.DenoisingRun(pipe, seed=0, **given).finish()

    def watched():
        wb.RunPlayer(wb.DenoisingRun(pipe, seed=0, **given)).finish()

    a, b = least(alone, watched, turns=turns)
    print(f"denoising: {steps} steps {a:.2f} s; in a player, with what it shows at both ends: {b / a:.2f} times")


def main() -> None:
    quick = "--quick" in sys.argv
    pipe, scene = wb.load_pipeline("tiny-inpaint"), wb.data.scene("room-12")
    pipe.set_progress_bar_config(disable=True)
    tell_training(pipe, scene, 5 if quick else 10, 1 if quick else 3)
    tell_denoising(pipe, scene, 20, 1 if quick else 3)


if __name__ == "__main__":
    main()
