"""The commands that train: `train`, `finetune` and `distil`; each imports what it needs."""

import argparse
from pathlib import Path
from typing import Any

from scclip_core.files import DATA, require_writable


def add_training(commands: Any) -> None:
    """Add `train`, `finetune` and `distil` to the commands."""
    train = commands.add_parser(
        "train", help="train the bundled model; started again, it goes on where it stopped"
    )
    add = train.add_argument
    add("--out", type=Path, default=DATA / "mini", help="folder of the model (%(default)s)")
    add("--checkpoint", type=Path, default=Path("mini-checkpoint.pt"), help="(%(default)s)")
    add("--seed", type=int, default=0, help="of scenes, captions and weights (%(default)s)")
    train.set_defaults(run=run_train)

    finetune = commands.add_parser(
        "finetune", help="fine-tune the bundled model on labelled scenes, for comparison"
    )
    add = finetune.add_argument
    add("--count", type=int, default=200, help="test scenes of each style (%(default)s)")
    add("--seed", type=int, default=7, help="of the test scenes (%(default)s)")
    add("--out", type=Path, default=Path("figures"), help="folder of the table (%(default)s)")
    add("--work", type=Path, default=Path("runs/finetune"), help="checkpoints (%(default)s)")
    finetune.set_defaults(run=run_finetune)

    distil = commands.add_parser("distil", help="make the bundled model's students")
    students = DATA / "students"
    distil.add_argument("--out", type=Path, default=students, help="their folder (%(default)s)")
    distil.set_defaults(run=run_distil)


def run_train(args: argparse.Namespace) -> int:
    """`train`: the bundled model and its training curve."""
    from scclip_lab.training.curriculum import CURRICULUM
    from scclip_lab.training.train import train_bundled

    require_writable("--out", args.out)
    train_bundled(CURRICULUM, args.seed, args.checkpoint, args.out)
    return 0


def run_finetune(args: argparse.Namespace) -> int:
    """`finetune`: every row of the table, each with a checkpoint of its own."""
    from scclip_lab.training.finetune import fine_tune_all

    require_writable("--out", args.out)
    table = fine_tune_all(args.count, args.seed, args.out, args.work)
    print(table.to_string(index=False))
    return 0


def run_distil(args: argparse.Namespace) -> int:
    """`distil`: a weights file for each student."""
    from scclip_lab.training.distil import distil_all

    require_writable("--out", args.out)
    distil_all(args.out)
    return 0
