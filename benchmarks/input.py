"""Cost of the input and the augmentation: training steps with them, compared with steps on one fixed batch.

The candidates are: "no input", steps on one batch on the device without augmentation; "streamed", each batch is read
from the memory map; "resident", all images are on the device; and "DataLoader", worker processes that decode PNGs of
1024 x 1024 pixels and transform them one by one with torchvision.

Run: `python -m benchmarks.input` (15 minutes on two cores). `--toy` tests it in a minute.
"""

import cxr.core.cpu  # noqa: F401 (must precede the import of numerical libraries)

# isort: split
import argparse
import io
import os
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.data import ROOT, is_gray, original_images, write_params, write_training_data
from benchmarks.timing import Candidates, print_machine, print_times, time_alternating
from cxr.core.image_array import open_images
from cxr.core.params import read_params
from cxr.core.paths import IMAGES, SAMPLE
from cxr.core.tables import read_sample
from cxr.models.classifier import Architecture, build_classifier
from cxr.models.device import init_device
from cxr.models.image_store import ImageStore
from cxr.training.epoch_sampler import EpochPlan
from cxr.training.params import TrainParams
from cxr.training.trainer import Trainer

# Without a network, a round has the smaller of these: enough to make the start of the workers negligible.
MAX_INPUT_BATCHES, MIN_INPUT_IMAGES = 40, 1280


class Case(NamedTuple):
    """A model and the batches that it is trained on."""

    model: str
    in_chans: int
    size: int  # pixels
    batch: int
    steps: int  # per round

    @property
    def input_batches(self) -> int:
        """Number of batches per round when only the input is timed."""
        return min(MAX_INPUT_BATCHES, -(-MIN_INPUT_IMAGES // self.batch))


CPU_CASES = [
    Case("resnet10t", 1, 96, 32, 20),
    Case("tf_efficientnet_lite0", 3, 128, 32, 8),
    Case("efficientnet_b3", 3, 300, 8, 3),
    Case("test_resnet", 1, 300, 32, 8),
]
GPU_CASES = [Case("efficientnet_b3", 3, 300, 192, 20), Case("test_resnet", 1, 300, 192, 20)]
TOY = [Case("test_resnet", 1, 64, 8, 3)]


def main() -> None:
    """Time every case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="number of timed rounds")
    parser.add_argument("--toy", action="store_true", help="use a tiny model and small images")
    parser.add_argument("--only", metavar="MODEL", help="time the cases of this model only")
    parser.add_argument("--no-loader", action="store_true", help="skip the DataLoader")
    args = parser.parse_args()
    print_machine(("torch", "torchvision", "timm", "numpy", "pillow"))
    cases = TOY if args.toy else GPU_CASES if torch.cuda.is_available() else CPU_CASES
    for case in cases:
        if args.only in (None, case.model):
            time_case(case, args.rounds, loader=not args.no_loader)


def time_case(case: Case, rounds: int, *, loader: bool) -> None:
    """Print the times of a case with a network, and with `loader` also without."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        times = time_alternating(training_candidates(case, folder, loader=loader), rounds)
        input_times = time_alternating(input_candidates(case, folder), rounds) if loader else None
    title = f"{case.model}, {case.size} px, {case.in_chans} channel(s), batches of {case.batch}"
    print_times(title, times, case.steps, "step", "no input")
    if input_times:
        print_times(f"Input only, no network, {case.size} px", input_times, case.input_batches, "step", "streamed")


def training_candidates(case: Case, folder: Path, *, loader: bool) -> Candidates:
    """Write the data of a case to `folder`; return the training steps with each kind of input."""
    count = case.batch * case.steps
    write_training_data(folder, count, 2, case.size)
    write_params(folder, ROOT / "params.yaml", mixup_alpha=0.2, augment=classic_augment())
    params = read_params(TrainParams, folder / "params.yaml")
    device = init_device(os.cpu_count() or 1 if torch.cuda.is_available() else params.threads, deterministic=True)
    labels = (torch.rand(count, 15) < 0.1).float().to(device)
    trainer = Trainer(build_classifier(Architecture(case.model, case.in_chans, case.size)), params, labels)
    trainer.classifier.train()
    images = open_sample_images(folder)
    plan = EpochPlan.create(count, case.batch, params.mixup_alpha, 1, 1)
    streamed, resident = (ImageStore(images, np.arange(count), device, resident=resident) for resident in (False, True))
    batch = next(resident.batches(plan.batches[:1]))

    def take_steps(store: ImageStore) -> None:
        for step in plan.steps(store, labels, params.augment):
            trainer.step(*step)

    candidates: Candidates = {
        "no input": lambda: [trainer.step(batch, labels[: len(batch)]) for _ in range(case.steps)],
        "streamed": lambda: take_steps(streamed),
        "resident": lambda: take_steps(resident),
    }
    if loader:
        batches = data_loader(case, params, case.steps)
        candidates["DataLoader"] = lambda: [trainer.step(loaded.to(device), y.to(device)) for loaded, y in batches]
    return candidates


def open_sample_images(folder: Path) -> NDArray[np.uint8]:
    """Open the array that `write_training_data` has written to `folder`."""
    return open_images(folder / IMAGES, list(read_sample(folder / SAMPLE)["image"]))


def input_candidates(case: Case, folder: Path) -> Candidates:
    """Return the kinds of input without a network; `training_candidates` has written the data to `folder`."""
    params, count = read_params(TrainParams, folder / "params.yaml"), case.batch * case.steps
    device = init_device(params.threads, deterministic=True)
    labels = torch.zeros(count, 15).to(device)
    store = ImageStore(open_sample_images(folder), np.arange(count), device, resident=False)
    plan = EpochPlan.create(count, case.batch, params.mixup_alpha, 1, 1)
    repeats, wanted = -(-case.input_batches // case.steps), case.input_batches
    repeated = replace(
        plan,
        batches=(plan.batches * repeats)[:wanted],
        mixup_lambdas=np.tile(plan.mixup_lambdas, repeats)[:wanted],
    )
    loader = data_loader(case, params, wanted)
    return {
        "streamed": lambda: consume(repeated.steps(store, labels, params.augment)),
        "DataLoader": lambda: consume(loader),
    }


def consume(batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Iterate over batches, and move the images of each to the device of its labels."""
    for images, labels in batches:
        images.to(labels.device)


def classic_augment() -> dict[str, float]:
    """Return the augmentation of the classic recipe."""
    preset = yaml.safe_load((ROOT / "presets/nih-40k.yaml").read_text(encoding="utf-8"))
    augment: dict[str, float] = preset["augment"]
    return augment


class PngDataset(Dataset[tuple[Tensor, Tensor]]):
    """PNG files that are decoded, resized and augmented one by one; `length` items cycle through them."""

    def __init__(self, files: list[bytes], size: int, params: TrainParams, length: int) -> None:
        augment = params.augment
        self.files, self.length = files, length
        self.transform = transforms.Compose(
            [
                transforms.Resize((size, size)),
                transforms.RandomHorizontalFlip(augment.hflip),
                transforms.RandomAffine(
                    augment.degrees, (augment.translate,) * 2, (1 - augment.scale, 1 + augment.scale)
                ),
                transforms.ColorJitter(augment.brightness, augment.contrast),
                transforms.ToTensor(),
                transforms.RandomErasing(augment.random_erasing),
            ]
        )

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        with Image.open(io.BytesIO(self.files[index % len(self.files)])) as image:
            pixels: Tensor = self.transform(image.convert("L"))
        return pixels, torch.zeros(15)


def data_loader(case: Case, params: TrainParams, batches: int) -> DataLoader[tuple[Tensor, Tensor]]:
    """Return a DataLoader of `batches` with one worker per core.

    The workers start anew in each round, as in each epoch. Otherwise they would prefetch batches while other candidates
    run.
    """
    gray = [file for file in original_images().values() if is_gray(file)]
    dataset = PngDataset(gray, case.size, params, case.batch * batches)
    workers = os.cpu_count() or 1
    return DataLoader(dataset, case.batch, num_workers=workers, pin_memory=torch.cuda.is_available())


if __name__ == "__main__":
    main()
