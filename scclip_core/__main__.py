"""The command line: `python -m scclip_core segment|trace|info|evaluate|figures|evaluate-mini|bench`."""

import argparse
import os
import sys
from pathlib import Path

# torch and open_clip take seconds to import, so each command imports what it needs when it runs
METHODS = ("vanilla", "maskclip", "sclip", "clearclip", "naclip", "gem", "seed", "reference")
DATASETS = (
    *("scenes", "scenes-held-out", "voc21", "voc20", "context60", "context59"),
    *("coco-object", "coco-stuff", "cityscapes", "ade20k"),
)


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 1 where some pictures failed, 2 for bad input, 130 after
    Ctrl-C.
    """
    args = build_parser().parse_args(argv)
    try:
        return args.run(args)
    except KeyboardInterrupt:
        print("stopped; nothing half-written is left", file=sys.stderr)
        return 130
    except (ValueError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scclip_core", description="Segment pictures with words, by a frozen CLIP."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    model = argparse.ArgumentParser(add_help=False)
    model.add_argument(
        "--model", default="mini", help="mini, the bundled model, or an open_clip ViT such as ViT-B-16"
    )
    model.add_argument("--pretrained", help="open_clip tag such as openai, or a weights file; not for mini")
    model.add_argument(
        "--config", choices=METHODS, default="seed", help="SC-CLIP's or a peer's (default: %(default)s)"
    )
    model.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")

    segment = commands.add_parser(
        "segment", parents=[model], help="label maps of pictures or folders of pictures"
    )
    segment.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE", help="picture file or folder of pictures"
    )
    segment.add_argument(
        "--classes", required=True, help='words, as "dog, cat|kitten, grass": | between names of one class'
    )
    segment.add_argument("--out", required=True, type=Path, help="folder for NAME_labels.png and NAME.json")
    segment.add_argument(
        "--overlay", action="store_true", help="also NAME_overlay.png, the labels over the picture"
    )
    segment.add_argument(
        "--short-side", type=int, help="pixels of the picture's short side (default: as trained)"
    )
    segment.add_argument(
        "--window", type=int, default=224, help="side of a sliding window, pixels (default: %(default)s)"
    )
    segment.add_argument(
        "--stride", type=int, default=112, help="pixels between windows (default: %(default)s)"
    )
    segment.set_defaults(run=run_segment)

    trace = commands.add_parser(
        "trace", parents=[model], help="every intermediate tensor of a run, as a table"
    )
    trace.add_argument(
        "image", nargs="?", type=Path, metavar="IMAGE", help="picture file (default: an emoji scene)"
    )
    trace.add_argument("--classes", default="dog, cat, grass", help="words (default: %(default)s)")
    trace.add_argument("--csv", type=Path, help="also write the table to this file")
    trace.set_defaults(run=run_trace)

    info = commands.add_parser("info", parents=[model], help="the model, the configuration, the versions")
    info.set_defaults(run=run_info)

    figures = commands.add_parser(
        "figures", help="the main job: gallery, trace and evaluation of the bundled model"
    )
    figures.add_argument("--out", type=Path, default=Path("figures"), help="folder (default: %(default)s)")
    figures.add_argument("--quick", action="store_true", help="few scenes, to see that all works")
    figures.set_defaults(run=run_figures)

    add_evaluate(commands, model)
    evaluate = commands.add_parser("evaluate-mini", help="measure the bundled model on fresh scenes")
    evaluate.add_argument("--count", type=int, default=500, help="scenes a style (default: %(default)s)")
    evaluate.add_argument(
        "--seed", type=int, default=2, help="of the scenes and the intervals (default: %(default)s)"
    )
    evaluate.add_argument(
        "--split", choices=("test", "validation"), default="test", help="(default: %(default)s)"
    )
    evaluate.add_argument("--out", type=Path, default=Path("figures"), help="folder (default: %(default)s)")
    evaluate.set_defaults(run=run_evaluate_mini)
    bench = commands.add_parser("bench", help="time against open_clip's own forward pass, side by side")
    bench.add_argument("--repeats", type=int, default=20, help="counted rounds (default: %(default)s)")
    bench.add_argument("--out", type=Path, default=Path("figures"), help="folder (default: %(default)s)")
    bench.set_defaults(run=run_bench)
    return parser


def add_evaluate(commands, model: argparse.ArgumentParser) -> None:
    evaluate = commands.add_parser(
        "evaluate",
        parents=[model],
        help="mIoU of methods on a data set; a stopped run goes on, and torchrun shares it out",
        epilog="Run with a wrong --root to see the folders that a data set must have.",
    )
    evaluate.add_argument("--dataset", choices=DATASETS, required=True, help="scenes are bundled")
    evaluate.add_argument("--root", type=Path, help="folder of a public data set")
    evaluate.add_argument(
        "--method", default="vanilla,seed", help=f"of {', '.join(METHODS)} (default: %(default)s)"
    )
    evaluate.add_argument("--compare", nargs=2, metavar=("A", "B"), help="paired difference, contact sheet")
    evaluate.add_argument("--count", type=int, help="only the first pictures, or how many scenes (500)")
    evaluate.add_argument(
        "--seed", type=int, default=2, help="of scenes and intervals (default: %(default)s)"
    )
    evaluate.add_argument(
        "--workers", type=int, default=2, help="processes that read pictures (default: %(default)s)"
    )
    evaluate.add_argument("--out", required=True, type=Path, help="folder for tables and the journal")
    evaluate.set_defaults(run=run_evaluate)


def load(args: argparse.Namespace):
    """The segmenter that the common options ask for."""
    from scclip_core.methods import make_method

    return make_method(args.config, load_model(args))


def load_model(args: argparse.Namespace):
    """The frozen model that the common options ask for."""
    import torch

    from scclip_core import load_clip

    if args.device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"--device must be cpu on this machine, which has no usable GPU, got {args.device}")
    device = args.device
    if device == "cuda" and "LOCAL_RANK" in os.environ:  # torchrun: a GPU a process
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    return load_clip(args.model, args.pretrained, device)


def run_segment(args: argparse.Namespace) -> int:
    from scclip_core.batch import Windows, check_output, find_pictures, segment_files
    from scclip_core.text import parse_classes

    classes = args.classes.split(",")
    parse_classes(classes)
    paths = find_pictures(args.images)
    check_output(args.out)
    windows = Windows(args.short_side, args.window, args.stride)
    failed = segment_files(load(args), paths, classes, args.out, windows, args.overlay)
    print(f"{len(paths) - len(failed)} of {len(paths)} pictures segmented into {args.out}")
    for path, why in failed.items():
        print(f"left out: {path}: {why}", file=sys.stderr)
    return 1 if failed else 0


def run_trace(args: argparse.Namespace) -> int:
    import pandas as pd

    from scclip_core.evaluation import stack_images
    from scclip_core.plots import save_table
    from scclip_core.scenes import TEST, evaluation_scene

    segmenter = load(args)
    if args.image is None:
        images = stack_images(segmenter.model, [evaluation_scene(TEST, 1, 0)])
    else:
        images = segmenter.model.preprocess(args.image)[None]
    table = pd.DataFrame(segmenter.trace(images, args.classes.split(",")).rows())
    if args.csv:
        save_table(table, args.csv.stem, args.csv.parent)
    print(table.to_string(index=False, justify="left"))
    return 0


def run_info(args: argparse.Namespace) -> int:
    from dataclasses import asdict
    from importlib.metadata import version

    segmenter = load(args)
    model = segmenter.model
    shape = f"{model.depth} blocks, width {model.width}, {model.heads} heads, patch {model.patch_size}"
    parameters = sum(p.numel() for p in model.parameters())
    print(f"model           {model.name}: {shape}")
    print(f"parameters      {parameters:,}, all frozen; {model.dtype}, {model.device}")
    for package in ("torch", "open_clip_torch", "scikit-learn"):
        print(f"{package:<16}{version(package)}")
    for name, value in asdict(segmenter.config).items():
        print(f"{name:<22}{value if name != 'templates' or len(value) < 4 else f'{len(value)} sentences'}")
    return 0


def run_evaluate(args: argparse.Namespace) -> int:
    from scclip_core.batch import check_output
    from scclip_core.benchmarks import open_dataset
    from scclip_core.methods import make_method
    from scclip_core.results import compare_methods, save_results
    from scclip_core.runs import evaluate

    names = list(dict.fromkeys([*args.method.split(","), *(args.compare or ())]))
    for name in names:
        if name not in METHODS:
            raise ValueError(f"--method must be of {', '.join(METHODS)}, got {name!r}")
    if args.compare and args.compare[0] == args.compare[1]:
        raise ValueError(f"--compare must name two methods, got {args.compare[0]!r} twice")
    if args.workers < 0:
        raise ValueError(f"--workers must be at least 0, got {args.workers}")
    data = open_dataset(args.dataset, args.root, args.count, args.seed)
    check_output(args.out)
    model = load_model(args)
    methods = {name: make_method(name, model) for name in names}
    results = evaluate(methods, data, args.out, args.seed, args.workers)
    if results is None:  # another of torchrun's processes tells
        return 0
    print(save_results(results, methods, data, args.out, args.seed).to_string(index=False))
    if args.compare:
        table = compare_methods(*args.compare, results, methods, data, args.out, args.seed)
        print(f"{args.compare[0]} minus {args.compare[1]}, same pictures\n{table.to_string(index=False)}")
    for name, why in results.failed.items():
        print(f"left out: {name}: {why}", file=sys.stderr)
    return 1 if results.failed else 0


def run_figures(args: argparse.Namespace) -> int:
    from scclip_core.batch import check_output
    from scclip_core.figures import make_figures
    from scclip_core.studies import redraw_all

    check_output(args.out)
    make_figures(args.out, args.quick)
    redraw_all(args.out)
    print(f"figures and their numbers are in {args.out}")
    return 0


def run_evaluate_mini(args: argparse.Namespace) -> int:
    from scclip_core import load_clip
    from scclip_core.batch import check_output
    from scclip_core.evaluation import evaluate_mini, save_evaluation
    from scclip_core.scenes import TEST, VALIDATION

    check_output(args.out)
    split = TEST if args.split == "test" else VALIDATION
    table = evaluate_mini(load_clip("mini"), args.count, args.seed, split)
    save_evaluation(table, args.out, "evaluate_mini")
    print(table.to_string(index=False))
    return 0


def run_bench(args: argparse.Namespace) -> int:
    from scclip_core.batch import check_output
    from scclip_core.plots import save_table
    from scclip_core.timing import bench_all

    check_output(args.out)
    table = bench_all(repeats=args.repeats)
    save_table(table, "bench", args.out)
    print(table.drop(columns=["processor", "python"]).to_string(index=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
