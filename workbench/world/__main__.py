"""Renders data sets and the benchmark from the command line: python -m workbench.world --help."""

import argparse
import os


def main(arguments=None) -> None:
    """Reads the command line and renders."""
    parser = argparse.ArgumentParser(
        prog="python -m workbench.world",
        description="Renders scenes with their ground truth. Interrupted, the same command goes on where it stopped.",
    )
    parser.add_argument("--kind", choices=("room", "facade", "sprite", "clip", "lit_clip", "benchmark"), required=True)
    parser.add_argument("--out", required=True, help="the folder to write to")
    parser.add_argument("--count", type=int, default=100, help="how many scenes (100)")
    parser.add_argument(
        "--split", choices=("train", "validation", "benchmark"), default="train", help="whose seeds (train)"
    )
    parser.add_argument("--first", type=int, default=0, help="the first seed, counted within the split (0)")
    parser.add_argument(
        "--size", type=int, nargs="+", default=[128], metavar="PX", help="side, or height and width (128)"
    )
    parser.add_argument("--views", type=int, default=None, help="views of each scene (1), or frames of a clip (16)")
    parser.add_argument("--shard", type=int, default=32, help="scenes in one file (32)")
    parser.add_argument("--workers", type=int, default=1, help="processes, one core each (1)")
    options = parser.parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # each process is to keep one core busy, not all
    try:
        _run(options)
    except (ValueError, TypeError, RuntimeError) as error:
        parser.exit(2, f"{error}\n")


def _run(options) -> None:
    if options.kind == "benchmark":
        from workbench.world.benchmark import make_benchmark

        make_benchmark(options.out, workers=options.workers)
        return
    from workbench.world.dataset import Plan, render_dataset

    size = tuple(options.size * 2 if len(options.size) == 1 else options.size)
    views = options.views or (16 if "clip" in options.kind else 1)
    plan = Plan(options.kind, options.count, options.split, options.first, size, views, options.shard)
    render_dataset(plan, options.out, options.workers)


if __name__ == "__main__":
    main()
