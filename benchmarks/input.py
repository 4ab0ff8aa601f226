"""What input and augmentation cost: a step of training as it is, beside the same step on a batch that is there already.

"streamed" reads each batch from the memory map, "resident" has all images on the device; "bare" trains on one batch
that lies on the device, without augmentation. "DataLoader" is the usual way: worker processes open PNGs of 1024 x 1024,
and resize and vary them one by one, with torchvision's transforms.

Run: `python -m benchmarks.input` (15 minutes on two cores). `--toy` tries it in a minute.
"""

import os

# As the stages do it, before PyTorch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import io
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import yaml
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.data import ROOT, originals, write_params, write_training_data
from benchmarks.timing import alternate, show, show_machine
from cxr.core.params import read_params
from cxr.models.classifier import Architecture, build_classifier
from cxr.models.device import init_device
from cxr.models.image_store import ImageStore, open_images
from cxr.training.epoch_sampler import EpochPlan
from cxr.training.params import TrainParams
from cxr.training.trainer import Trainer

Work = Callable[[], object]
STREAMED = "this project, streamed"
# What a turn without a network makes: so much that the start of the workers hardly counts, and no more.
BATCHES_ALONE, IMAGES_ALONE = 40, 1280


class Case(NamedTuple):
    """A network and the batches that it is trained on."""

    model: str
    channels: int
    size: int  # pixels
    batch: int
    steps: int  # in each turn

    @property
    def batches_alone(self) -> int:
        """The batches of a turn without a network."""
        return min(BATCHES_ALONE, -(-IMAGES_ALONE // self.batch))


ON_CPU = [
    Case("resnet10t", 1, 96, 32, 20),
    Case("tf_efficientnet_lite0", 3, 128, 32, 8),
    Case("efficientnet_b3", 3, 300, 8, 3),
    Case("test_resnet", 1, 300, 32, 8),
]
ON_GPU = [Case("efficientnet_b3", 3, 300, 192, 20), Case("test_resnet", 1, 300, 192, 20)]
TOY = [Case("test_resnet", 1, 64, 8, 3)]


def main() -> None:
    """Time every case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each way has its turn")
    parser.add_argument("--toy", action="store_true", help="small images, to see that it runs")
    parser.add_argument("--only", metavar="MODEL", help="the cases of this network alone")
    parser.add_argument("--no-loader", action="store_true", help="leave the DataLoader out")
    arguments = parser.parse_args()
    show_machine(("torch", "torchvision", "timm", "numpy", "pillow"))
    on_gpu = torch.cuda.is_available()
    for case in TOY if arguments.toy else ON_GPU if on_gpu else ON_CPU:
        if arguments.only not in (None, case.model):
            continue
        with tempfile.TemporaryDirectory() as folder:
            times = alternate(ways(case, Path(folder), loader=not arguments.no_loader), arguments.rounds)
            alone = None if arguments.no_loader else alternate(without_network(case, Path(folder)), arguments.rounds)
        title = f"{case.model}, {case.size} px, {case.channels} channel(s), batches of {case.batch}"
        show(title, times, case.steps, "step", "bare")
        if alone:
            show(f"the input of these alone, no network, {case.size} px", alone, case.batches_alone, "step", STREAMED)


def ways(case: Case, folder: Path, *, loader: bool) -> dict[str, Work]:
    """Each way to do the steps of a case, after its preparation."""
    count = case.batch * case.steps
    write_training_data(folder, count, 2, case.size)
    write_params(folder, ROOT / "params.yaml", mixup_alpha=0.2, **classic("augment"))
    params = read_params(TrainParams, folder / "params.yaml")
    device = init_device(os.cpu_count() or 1 if torch.cuda.is_available() else params.threads, deterministic=True)
    labels = (torch.rand(count, 15) < 0.1).float().to(device)
    training = Trainer(build_classifier(Architecture(case.model, case.channels, case.size)), params, labels)
    training.classifier.train()
    images = open_images(folder / "data/images.npy", count + 4)
    plan = EpochPlan.plan(count, case.batch, params.mixup_alpha, 1, 1)

    def from_map(*, resident: bool) -> Work:
        pixels = ImageStore(images, np.arange(count), device, resident=resident)
        return lambda: [training.step(*step) for step in plan.steps(pixels, labels, params.augment)]

    there = ImageStore(images, np.arange(count), device, resident=True)
    batch = next(there.batches(plan.batches[:1]))
    found: dict[str, Work] = {
        "bare": lambda: [training.step(batch, labels[: len(batch)]) for _ in range(case.steps)],
        STREAMED: from_map(resident=False),
        "this project, resident": from_map(resident=True),
    }
    if loader:
        usual = usual_loader(case, params, case.steps)
        found["DataLoader"] = lambda: [
            training.step(pixels.to(device), targets.to(device)) for pixels, targets in usual
        ]
    return found


def without_network(case: Case, folder: Path) -> dict[str, Work]:
    """Each way to make the batches of a case that `ways` has prepared: what is left where input is the limit."""
    params, count = read_params(TrainParams, folder / "params.yaml"), case.batch * case.steps
    device, labels = init_device(params.threads, deterministic=True), torch.zeros(count, 15)
    pixels = ImageStore(open_images(folder / "data/images.npy", count + 4), np.arange(count), device)
    plan = EpochPlan.plan(count, case.batch, params.mixup_alpha, 1, 1)
    times, wanted = -(-case.batches_alone // case.steps), case.batches_alone
    ours = replace(plan, batches=(plan.batches * times)[:wanted], shares=np.tile(plan.shares, times)[:wanted])
    usual = usual_loader(case, params, wanted)
    return {
        STREAMED: lambda: list(map(touch, ours.steps(pixels, labels.to(device), params.augment))),
        "DataLoader": lambda: list(map(touch, usual)),
    }


def touch(batch: tuple[Tensor, Tensor]) -> None:
    """Use a batch, and let it go."""
    batch[0].to(batch[1].device)


def classic(name: str) -> dict[str, object]:
    """A parameter of the classic recipe."""
    preset = yaml.safe_load((ROOT / "presets/nih-40k.yaml").read_text(encoding="utf-8"))
    return {name: preset[name]}


class PngFiles(Dataset[tuple[Tensor, Tensor]]):
    """The usual data set: opens a file, resizes it, varies it."""

    def __init__(self, files: list[bytes], size: int, params: TrainParams, length: int) -> None:
        vary = params.augment
        self.files, self.length = files, length
        self.transform = transforms.Compose(
            [
                transforms.Resize((size, size)),
                transforms.RandomHorizontalFlip(vary.hflip),
                transforms.RandomAffine(vary.degrees, (vary.translate,) * 2, (1 - vary.scale, 1 + vary.scale)),
                transforms.ColorJitter(vary.brightness, vary.contrast),
                transforms.ToTensor(),
                transforms.RandomErasing(vary.random_erasing),
            ]
        )

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        with Image.open(io.BytesIO(self.files[index % len(self.files)])) as image:
            pixels: Tensor = self.transform(image.convert("L"))
        return pixels, torch.zeros(15)


def usual_loader(case: Case, params: TrainParams, batches: int) -> DataLoader[tuple[Tensor, Tensor]]:
    """So many batches, made by as many worker processes as there are cores.

    They start anew in each turn, as they do in each epoch: what they had read ahead would otherwise be free for their
    turn, and cost the turn before.
    """
    gray = [file for file in originals().values() if file[25] == 0]
    files = PngFiles(gray, case.size, params, case.batch * batches)
    workers = os.cpu_count() or 1
    return DataLoader(files, case.batch, num_workers=workers, pin_memory=torch.cuda.is_available())


if __name__ == "__main__":
    main()
