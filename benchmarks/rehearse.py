"""Rehearsal of a full-size run without the real images: what each stage takes for 112,120 images.

The committed project is cloned to a temporary folder and run on the official split with synthetic images of 64 × 64
pixels, the smallest network and one epoch; all other parameters are those of `params.yaml`. The five stages, the first
hashing by DVC, and `dvc repro` with nothing to do (images as files, then in 12 zip archives) are measured for a
sixteenth, a quarter and all of the images. The metrics of the run mean nothing.

The column growth is the increase from a quarter to all divided by that from a sixteenth to a quarter, which does not
depend on what a step takes for any number of images, such as imports: 4 is proportional to the number of images, 16 to
its square.

Names, patients, labels, lists and boxes are NIH's, from `../shared/nih-metadata` or the folder in `--metadata`. Without
them, patients and labels are synthetic, in about the same proportion of the lists.

Run: `python -m benchmarks.rehearse` (half an hour on two cores; 2 GB in the temporary folder, which is removed).
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import yaml

from benchmarks.data import ROOT
from benchmarks.rehearsal_data import LISTS, TABLE, copy_tables, write_archives, write_images, write_tables
from benchmarks.resource_usage import Usage, measure
from cxr.core.errors import InputError, run_as_script

METADATA = ROOT.parent / "shared/nih-metadata"
STAGES = ("sample", "split", "resize", "train", "evaluate")
MIN_IMAGES = 1600  # of which a sixteenth, 100 images, can be split
SIZE = 64  # side of the images, pixels
PARAMS = {"image_size": SIZE, "models": ["test_resnet"], "weights": "none", "epochs": 1}
Usages = dict[str, Usage]  # by step


def main() -> None:
    """Rehearse with a sixteenth, a quarter and all of the images, and print the table."""
    args = command_line().parse_args()
    metadata = args.metadata or (METADATA if METADATA.is_dir() else None)
    check_metadata(metadata)
    if args.images < MIN_IMAGES:
        raise InputError(f"--images {args.images}: must be {MIN_IMAGES:,} or more")
    sizes = [args.images // 16, args.images // 4, args.images]
    results = []
    for images in sizes:
        print(f"{images:,} images")
        with tempfile.TemporaryDirectory(prefix="rehearse-", dir=args.folder) as folder:
            results.append(rehearse(Path(folder), images, metadata))
    print_table(sizes, results)


def command_line() -> argparse.ArgumentParser:
    """Return the argument parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=112_120, help="number of images (default: %(default)s)")
    parser.add_argument("--metadata", type=Path, help=f"folder with NIH's {TABLE}, {' and '.join(LISTS)}")
    parser.add_argument("--folder", type=Path, help="where to put the temporary folder")
    return parser


def check_metadata(metadata: Path | None) -> None:
    """Say that there is none, or raise InputError if it is incomplete."""
    if metadata is None:
        print("no table of NIH: names, patients and labels are synthetic; set --metadata to use NIH's")
        return
    missing = [name for name in (TABLE, *LISTS) if not (metadata / name).is_file()]
    if missing:
        raise InputError(f"{metadata} has no {' or '.join(missing)}; download NIH's tables to this folder")


def rehearse(folder: Path, images: int, metadata: Path | None) -> Usages:
    """Generate the images, run all steps in `folder`, and return what each of them used."""
    raw, archives, project = folder / "raw", folder / "archives", folder / "project"
    raw.mkdir()
    names = write_tables(raw, images, metadata)
    write_images(names, SIZE, raw / "images")
    measure(["git", "clone", "--quiet", str(ROOT), str(project)], folder)
    (project / ".dvc/config.local").write_text(f"[core]\n    site_cache_dir = {folder / 'site-cache'}\n")
    write_params(project, raw, images)
    usages = {stage: step(stage, ["-m", f"stages.{stage}"], project) for stage in STAGES}
    usages |= dvc_steps("files", project)
    archives.mkdir()
    copy_tables(raw, archives)
    write_archives(raw / "images", archives)
    shutil.rmtree(raw)
    write_params(project, archives, images)
    return usages | dvc_steps("zips", project)


def write_params(project: Path, raw_dir: Path, images: int) -> None:
    """Change the parameters of the demo in `params.yaml` to those of the rehearsal."""
    path = project / "params.yaml"
    params = yaml.safe_load(path.read_text(encoding="utf-8")) | PARAMS | {"raw_dir": str(raw_dir)}
    params["sample"]["size"], params["split"]["method"] = images, "official"
    path.write_text(yaml.safe_dump(params), encoding="utf-8")


def dvc_steps(kind: str, project: Path) -> Usages:
    """Let DVC record the outputs as if it had run the stages, then find that there is nothing to do."""
    commands = {"first hashing": ["commit", "--force"], "nothing to do": ["repro"]}
    return {
        f"dvc {command[0]}, {what}, {kind}": step(f"dvc {command[0]}", ["-m", "dvc", *command], project)
        for what, command in commands.items()
    }


def step(name: str, arguments: list[str], project: Path) -> Usage:
    """Run `python` with `arguments` in `project`, print what it used, and return it."""
    usage, output = measure([sys.executable, *arguments], project)
    if name == "dvc repro" and "up to date" not in output:
        raise InputError(f"dvc repro ran stages, although there was nothing to do:\n{output}")
    print(f"{name}: {usage.cpu:.1f} s of processor, {usage.wall:.1f} s, {usage.peak / 1e9:.2f} GB", flush=True)
    return usage


def print_table(sizes: list[int], results: list[Usages]) -> None:
    """Print a Markdown table with a row for each step, from the results for each of three sizes."""
    few, some, many = (f"{size:,}" for size in sizes)
    columns = ["step", f"processor, s: {few}", some, many, "growth"]
    columns += [f"peak memory, GB: {few}", some, many, "growth", f"time, s: {many}", f"written, MB: {many}"]
    print(f"\n| {' | '.join(columns)} |\n" + "| --- " * len(columns) + "|")
    for name in results[0]:
        print(f"| {name} | {' | '.join(cells([result[name] for result in results]))} |")


def cells(usages: list[Usage]) -> list[str]:
    """Return the cells of a row, from the usage for each of three sizes."""
    cpu, peak = [usage.cpu for usage in usages], [usage.peak / 1e9 for usage in usages]
    return [
        *(f"{value:.1f}" for value in cpu),
        growth(cpu, 1.0),
        *(f"{value:.2f}" for value in peak),
        growth(peak, 0.01),
        f"{usages[-1].wall:.0f}",
        f"{usages[-1].written / 1e6:,.0f}",
    ]


def growth(values: list[float], least: float) -> str:
    """Return the second increase divided by the first, or a dash if the first is below `least`, which is noise."""
    first, second = values[1] - values[0], values[2] - values[1]
    return f"{second / first:.1f}" if first >= least else "–"


if __name__ == "__main__":
    run_as_script(main)
