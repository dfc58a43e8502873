"""The command line of the experiments: `python -m scclip_lab COMMAND`, a thin layer over them."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from scclip_core.cli import METHODS, load_model, model_options, run_command
from scclip_core.files import require_writable
from scclip_lab.teaching.command import add_grade
from scclip_lab.training.command import add_training

# torch, open_clip and pandas take seconds to import, so each command imports what it needs when
# it runs.
DATASETS = (
    "scenes",
    "scenes-held-out",
    "voc21",
    "voc20",
    "context60",
    "context59",
    "coco-object",
    "coco-stuff",
    "cityscapes",
    "ade20k",
)
PROTOCOLS = ("scclip", "sclip", "clearclip", "naclip")
# The values of a protocol that an option can change.
CHANGES = (
    "short_side",
    "window",
    "stride",
    "probability_threshold",
    "area_threshold",
    "logit_scale",
    "pamr_steps",
)
FIGURES = Path("figures")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code of `scclip_core.cli.run_command`."""
    return run_command(build_parser(), argv)


def build_parser() -> argparse.ArgumentParser:
    """The command line of `python -m scclip_lab`."""
    parser = argparse.ArgumentParser(
        prog="python -m scclip_lab",
        description="Experiments on SC-CLIP: evaluation, figures, notebooks, times, training.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    evaluate = commands.add_parser(
        "evaluate",
        parents=[model_options()],
        help="mIoU of methods on a data set; a stopped run goes on, torchrun shares it out",
        epilog="Run with a wrong --root to see the folders that a data set must have.",
    )
    add_evaluate_options(evaluate)
    again = commands.add_parser(
        "reproduce",
        parents=[model_options()],
        help="published tables: ours, published and difference, for the data that is there",
    )
    add = again.add_argument
    add("--root", type=Path, help="folder of public data sets, such as mmsegmentation's data")
    add("--data", action="append", default=[], metavar="NAME=FOLDER", help="one data set, repeated")
    add("--method", action="append", help="as published.csv names it, repeated (all)")
    add("--words", default="published", help="published or own (%(default)s)")
    add("--count", type=int, help="only the first images of each")
    add("--workers", type=int, default=2, help="processes that read images (%(default)s)")
    add("--out", required=True, type=Path, help="folder of reproduction.csv and the run logs")
    again.set_defaults(run=run_reproduce)
    mini = commands.add_parser("evaluate-mini", help="measure the bundled model on fresh scenes")
    add = mini.add_argument
    add("--count", type=int, default=500, help="scenes of each style (%(default)s)")
    add("--seed", type=int, default=7, help="of the scenes and the intervals (%(default)s)")
    add("--split", choices=("test", "validation"), default="test", help="(%(default)s)")
    add("--out", type=Path, default=FIGURES, help="folder of the table (%(default)s)")
    mini.set_defaults(run=run_evaluate_mini)

    figures = commands.add_parser(
        "figures", help="the main job: gallery, trace and evaluation of the bundled model"
    )
    figures.add_argument("--out", type=Path, default=FIGURES, help="folder (%(default)s)")
    figures.add_argument("--quick", action="store_true", help="few scenes, to see that all works")
    figures.set_defaults(run=run_figures)

    tables = commands.add_parser(
        "tables", help="write the tables of the READMEs and the model card from the stored CSVs"
    )
    tables.set_defaults(run=run_tables)

    bench = commands.add_parser(
        "bench", help="all times, side by side with open_clip's own forward pass"
    )
    bench.add_argument("--repeats", type=int, default=20, help="counted rounds (%(default)s)")
    bench.add_argument(
        "--out",
        type=Path,
        default=FIGURES,
        help="folder of bench.csv (%(default)s); what chapters show is stored in figures/",
    )
    bench.set_defaults(run=run_bench)

    notebooks = commands.add_parser("notebooks", help="run the chapters and store their outputs")
    add = notebooks.add_argument
    add("names", nargs="*", metavar="NAME", help="chapters such as 02_lof_outliers (all)")
    add("--check", action="store_true", help="execute in fast mode and write nothing")
    add("--jobs", type=int, default=2, help="chapters at a time (%(default)s)")
    notebooks.set_defaults(run=run_notebooks)

    add_training(commands)
    add_grade(commands)
    return parser


def add_evaluate_options(parser: argparse.ArgumentParser) -> None:
    """The options of `evaluate`."""
    add = parser.add_argument
    add("--dataset", choices=DATASETS, required=True, help="scenes are bundled")
    add("--root", type=Path, help="folder of a public data set")
    add("--method", default="vanilla,scclip", help=f"of {', '.join(METHODS)} (%(default)s)")
    add("--protocol", choices=PROTOCOLS, help="whose sizes and thresholds (scclip)")
    add("--words", help="published, own, or a file with a line for each class (published)")
    add("--short-side", type=int, help="pixels that the short side is resized to")
    add("--window", type=int, help="side of the sliding window, pixels; 0: the whole image")
    add("--stride", type=int, help="pixels between windows")
    add("--prob-thd", type=float, dest="probability_threshold", help="less is background")
    add("--area-thd", type=float, dest="area_threshold", help="smaller classes are removed")
    add("--logit-scale", type=float, help="factor on the logits before the softmax")
    add("--pamr", type=int, metavar="STEPS", dest="pamr_steps", help="of mask refinement; 0: none")
    add("--compare", nargs=2, metavar=("A", "B"), help="paired difference, contact sheet")
    add("--count", type=int, help="only the first images, or how many scenes (500)")
    add("--seed", type=int, default=2, help="of scenes and intervals (%(default)s)")
    add("--workers", type=int, default=2, help="processes that read images (%(default)s)")
    add("--out", required=True, type=Path, help="folder of the reports and the run log")
    parser.set_defaults(run=run_evaluate)


def run_evaluate(args: argparse.Namespace) -> int:
    """`evaluate`: an image that cannot be used is left out, the others go on."""
    from scclip_core.baselines import make_method
    from scclip_lab.datasets.benchmarks import open_dataset
    from scclip_lab.evaluation.reports import compare_methods, save_report
    from scclip_lab.evaluation.runner import evaluate

    names = list(dict.fromkeys([*args.method.split(","), *(args.compare or ())]))
    for name in names:
        if name not in METHODS:
            raise ValueError(f"--method must be of {', '.join(METHODS)}, got {name!r}")
    if args.compare and args.compare[0] == args.compare[1]:
        raise ValueError(f"--compare must name two methods, got {args.compare[0]!r} twice")
    if args.workers < 0:
        raise ValueError(f"--workers must be at least 0, got {args.workers}")
    changes = {name: getattr(args, name) for name in CHANGES}
    data = open_dataset(
        args.dataset, args.root, args.count, args.seed, args.protocol, args.words, **changes
    )
    require_writable("--out", args.out)
    model = load_model(args)
    methods = {name: make_method(name, model) for name in names}
    results = evaluate(methods, data, args.out, args.seed, args.workers)
    # Under torchrun, only the first process has the results.
    if results is None:
        return 0
    print(save_report(results, methods, data, args.out, args.seed).to_string(index=False))
    if args.compare:
        a, b = args.compare
        table = compare_methods(a, b, results, methods, data, args.out, args.seed)
        print(f"{a} minus {b}, same images\n{table.to_string(index=False)}")
    for name, reason in results.failed.items():
        print(f"left out: {name}: {reason}", file=sys.stderr)
    return 1 if results.failed else 0


def run_reproduce(args: argparse.Namespace) -> int:
    """`reproduce`: a line for each method, data set and published number, on the screen too."""
    from scclip_lab.evaluation.reproduction import ENTRIES, find_roots, reproduce

    roots = find_roots(args.root, args.data)
    require_writable("--out", args.out)
    methods = args.method or list(ENTRIES)
    table = reproduce(
        load_model(args), roots, args.out, methods, args.words, args.count, args.workers
    )
    shown = table.drop(columns=["source", "words", "failed"])
    print(shown.to_string(index=False, na_rep="", float_format="{:.2f}".format))
    return 1 if table["failed"].any() else 0


def run_evaluate_mini(args: argparse.Namespace) -> int:
    """`evaluate-mini`: the table on the screen and in files."""
    from scclip_core.loading import load_clip
    from scclip_lab.datasets.scenes import TEST, VALIDATION
    from scclip_lab.evaluation.mini import evaluate_mini, save_evaluation

    require_writable("--out", args.out)
    split = TEST if args.split == "test" else VALIDATION
    table = evaluate_mini(load_clip("mini"), args.count, args.seed, split)
    save_evaluation(table, args.out, "evaluate_mini")
    print(table.to_string(index=False))
    return 0


def run_figures(args: argparse.Namespace) -> int:
    """`figures`: the main figures anew, and the chapters' figures from their stored numbers."""
    from scclip_lab.studies import redraw_all
    from scclip_lab.studies.main_figures import make_figures
    from scclip_lab.teaching.cheat_sheet import save_cheat_sheet

    require_writable("--out", args.out)
    make_figures(args.out, args.quick)
    redraw_all(args.out)
    save_cheat_sheet(args.out)
    print(f"figures and their numbers are in {args.out}")
    return 0


def run_tables(args: argparse.Namespace) -> int:
    """`tables`: files whose tables were up to date are left alone."""
    from scclip_lab.studies.readme import write_tables

    for path in write_tables():
        print(f"written: {path.name}")
    return 0


def run_bench(args: argparse.Namespace) -> int:
    """`bench`: the ratio to open_clip first, then all other times that the chapters show."""
    from scclip_lab.evaluation.timing import bench_all
    from scclip_lab.plots import save_table
    from scclip_lab.studies.ch07_timing import measure

    require_writable("--out", args.out)
    table = bench_all(repeats=args.repeats)
    save_table(table, "bench", args.out)
    print(table.drop(columns=["processor", "python"]).to_string(index=False))
    measure()
    return 0


def run_notebooks(args: argparse.Namespace) -> int:
    """`notebooks`: chapters that fail are listed, and nothing of them is stored."""
    from scclip_lab.studies.notebooks import chapters, run, write_manifest

    known = {path.stem: path for path in chapters()}
    unknown = sorted(set(args.names) - set(known))
    if unknown:
        raise ValueError(f"NAME must be of {', '.join(known)}, got {', '.join(unknown)}")
    if args.jobs < 1:
        raise ValueError(f"--jobs must be at least 1, got {args.jobs}")
    if args.check:
        os.environ["SCCLIP_FAST"] = "1"
    failed = run([known[name] for name in args.names or known], not args.check, args.jobs)
    for line in failed:
        print(line, file=sys.stderr)
    if not failed and not args.check and not args.names:
        write_manifest()
    return 1 if failed else 0
