"""Build the data: `python -m privbench_plugins.synthfaces.build COMMAND`; `-h` lists them."""

import argparse
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
FOLDER = _PACKAGE / "assets" / "synthfaces"


def _shard(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    return int(part), int(parts)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="privbench_plugins.synthfaces.build", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    shipped = commands.add_parser("shipped", help="render the shipped Parquet files")
    shipped.add_argument("--out", type=Path, default=FOLDER)
    shipped.add_argument("--shard", type=_shard, default=(0, 1), metavar="I/N")
    portraits = commands.add_parser("portraits", help="render one portrait each of 5,500 others")
    portraits.add_argument("--out", type=Path, required=True)
    portraits.add_argument("--shard", type=_shard, default=(0, 1), metavar="I/N")
    train = commands.add_parser("train", help="render a training set of other identities")
    train.add_argument("--identities", type=int, default=2000)
    train.add_argument("--images", type=int, default=6)
    train.add_argument("--first", type=int, default=0, metavar="N", help="number of the first one")
    train.add_argument("--out", type=Path, required=True)
    train.add_argument("--shard", type=_shard, default=(0, 1), metavar="I/N")
    sheet = commands.add_parser("sheet", help="draw the contact sheet")
    sheet.add_argument("--out", type=Path, required=True)
    check = commands.add_parser("check", help="detect and recognise the shipped faces with dlib")
    check.add_argument("--data", type=Path, default=FOLDER)
    return top


def main(arguments: list[str] | None = None) -> None:
    """Run one command; each imports only what it needs."""
    options = parser().parse_args(arguments)
    match options.command:
        case "shipped":
            from .shipped import SHIPPED, write_collection

            write_collection(SHIPPED, options.out, *options.shard)
        case "portraits":
            from .shipped import PORTRAITS, write_collection

            write_collection(PORTRAITS, options.out, *options.shard)
        case "train":
            from .train import TrainPlan, render_training_set

            part, parts = options.shard
            render_training_set(
                TrainPlan(
                    options.identities, options.images, options.out, part, parts, options.first
                )
            )
        case "sheet":
            from .sheet import write_sheet

            write_sheet(options.out)
        case "check":
            from .check import check_shipped

            check_shipped(options.data)


if __name__ == "__main__":
    main()
