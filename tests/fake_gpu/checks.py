"""Checks of the CUDA code. tests/test_fake_gpu.py runs them in a process that has loaded the fake GPU.

Kernels do nothing there, so the numbers have no meaning; what is checked is what the host does.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from cxr.core.errors import InputError
from cxr.core.params import read_params
from cxr.inference.params import TTA
from cxr.inference.saliency import METHODS, saliency_maps
from cxr.inference.tta import View, predict_probabilities, tta_views
from cxr.models.classifier import Architecture, Classifier, build_classifier
from cxr.models.device import init_device, library_versions, translate_torch_errors
from cxr.models.image_store import ImageStore
from cxr.params import Params
from cxr.training.data import LabelledImages
from cxr.training.trainer import Trainer
from tests.fake_gpu.counts import read_counts, reset_counts, times
from tests.fixtures.planted import EVERYTHING, MODEL, SIDE, train_params
from tests.fixtures.project import ROOT
from tools.doctor.memory import RESERVE, estimate_memory

pytestmark = pytest.mark.filterwarnings("ignore:Synchronization debug mode")

IMAGES, BATCH, STEPS = 60, 8, 8
AUGMENT = {
    "hflip": 0.5,
    "degrees": 15,
    "translate": 0.1,
    "scale": 0.1,
    "shear": 5,
    "brightness": 0.2,
    "contrast": 0.2,
    "random_erasing": 0.25,
}
# A network of each family, with the size of its images if it is not 64 px.
# fmt: off
DETERMINISTIC = [
    "convnext_atto", "dla34", "ghostnet_100", "levit_128s@224",
    "mobilenetv3_small_050", "mobilevit_xxs", "regnetx_002", "repvgg_a0", "resnet10t", "resnet18", "rexnet_100",
    "swin_tiny_patch4_window7_224@224", "test_byobnet", "test_convnext", "test_convnext2", "test_efficientnet",
    "test_mambaout", "test_nfnet", "test_resnet", "test_vit@160", "tf_efficientnet_lite0", "vit_tiny_patch16_224@224",
]
# fmt: on


class Bounds(NamedTuple):
    """The most that a step with float16 may take: what it takes with the pinned versions."""

    model: str
    size: int
    batch: int
    kernels: int
    copied: int  # bytes, on the device
    peak: int  # bytes of the allocator


# The networks and batches of the presets.
BOUNDS = [
    Bounds("efficientnet_b3", 300, 192, 1593, 589_832, 30_572_636_160),
    Bounds("densenet121", 512, 64, 1888, 251_789_320, 22_534_989_312),
]


@pytest.fixture
def gpu() -> torch.device:
    device = init_device(threads=1, deterministic=True)
    assert device.type == "cuda"
    return device


@contextmanager
def no_waits() -> Iterator[None]:
    """Let PyTorch raise where the host would wait for the GPU, except in `Tensor.cpu`, which brings the results."""
    to_cpu = torch.Tensor.cpu

    def wait_for(tensor: torch.Tensor) -> torch.Tensor:
        torch.cuda.set_sync_debug_mode("default")
        on_cpu = to_cpu(tensor)
        torch.cuda.set_sync_debug_mode("error")
        return on_cpu

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "cpu", wait_for)
        torch.cuda.set_sync_debug_mode("error")
        reset_counts()
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")


def empty_classifier(model: str, size: int, device: torch.device) -> Classifier:
    """Return a classifier on the device without the time to draw its weights."""
    with torch.device("meta"):
        classifier = build_classifier(Architecture(model, 3, size))
    return classifier.to_empty(device=device)


def make_trainer(device: torch.device, **changes: Any) -> Trainer:
    """Return a trainer of a tiny network with all options of the recipe."""
    options = {**EVERYTHING, "batch_size": BATCH, "epochs": 3, "augment": AUGMENT, "mixup_alpha": 0.2}
    params = train_params(**options, **changes)
    architecture = Architecture(MODEL, 1, SIDE, attention_pool=True)
    classifier = build_classifier(architecture, None, params.drop_rate, params.drop_path_rate)
    return Trainer(classifier, params, torch.zeros(IMAGES, 15, device=device))


def make_data(device: torch.device, *, resident: bool) -> LabelledImages:
    images = ImageStore(np.zeros((IMAGES, SIDE, SIDE), np.uint8), np.arange(IMAGES), device, resident=resident)
    return LabelledImages(images, torch.zeros(IMAGES, 15, device=device))


def step_trainer(model: str, size: int, device: torch.device) -> Trainer:
    """Return a trainer of a network for `take_step`, with float16 and without options."""
    return Trainer(
        empty_classifier(model, size, device), train_params(amp_dtype="float16"), torch.zeros(2, 15).to(device)
    )


def host_copies() -> dict[str, int]:
    """Return the number of copies between host and device, by their direction."""
    copies = {event: total.times for event, total in read_counts().items() if event.startswith("copy")}
    return {event: number for event, number in copies.items() if event != "copy device to device"}


def take_step(trainer: Trainer, batch: int, size: int) -> None:
    images, labels = torch.zeros(batch, 1, size, size, device="cuda"), torch.zeros(batch, 15, device="cuda")
    trainer.classifier.train()
    trainer.step(images, labels)


@pytest.mark.parametrize("amp_dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("resident", [True, False], ids=["resident", "streamed"])
def test_an_epoch_waits_for_its_results_alone(gpu: torch.device, amp_dtype: str, resident: bool) -> None:
    trainer, data = make_trainer(gpu, amp_dtype=amp_dtype), make_data(gpu, resident=resident)
    # The parameters of augmentation, the lambdas and the indices are moved once, and streamed images in each batch.
    moved = 5 if resident else 3 + STEPS + STEPS
    for _ in range(2):
        with no_waits():
            trainer.run_epoch(1, data, data)
        # The losses of training, and the logits and labels of validation, are brought to the CPU.
        assert host_copies() == {"copy pinned to device": moved, "copy device to pageable": 3}
        assert times("wait") == 3


@pytest.mark.parametrize("resident", [True, False], ids=["resident", "streamed"])
def test_prediction_with_all_views_waits_for_its_results_alone(gpu: torch.device, resident: bool) -> None:
    images, classifier = make_data(gpu, resident=resident).images, empty_classifier(MODEL, SIDE, gpu)
    views = tta_views(TTA(hflip=True, translate=0.1, scale=0.1, five_crop=0.9))
    with no_waits():
        assert predict_probabilities(classifier, images, BATCH, views).shape == (IMAGES, 15)
    assert host_copies() == {"copy pinned to device": 1 if resident else STEPS, "copy device to pageable": 1}


def test_prediction_computes_in_float32(gpu: torch.device) -> None:
    """TF32, which rounds to 10 of 23 bits, is mode 3 of cuBLAS, and the default of cuDNN."""
    images = make_data(gpu, resident=True).images
    predict_probabilities(empty_classifier(MODEL, SIDE, gpu), images, BATCH, [View()])
    assert times("kernel cublas") > 0
    assert times("cuBLAS math mode 3") == 0
    assert not torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("model", [MODEL, "test_vit"])
def test_saliency_maps_are_deterministic(gpu: torch.device, method: str, model: str) -> None:
    size = 160 if model == "test_vit" else SIDE
    classifier = build_classifier(Architecture(model, 1, size, attention_pool=True)).to(gpu)
    images = ImageStore(np.zeros((5, size, size), np.uint8), np.arange(5), gpu)
    maps = list(saliency_maps(METHODS[method], classifier, images, np.arange(5), batch_size=2))
    assert [one.shape for one in maps] == [(size, size)] * 5


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_a_step_of_many_networks_is_deterministic_and_does_not_wait(gpu: torch.device, name: str) -> None:
    model, _, size = name.partition("@")
    trainer = step_trainer(model, int(size or 64), gpu)
    with no_waits():
        take_step(trainer, 4, int(size or 64))
    assert times("kernel") > 0
    assert host_copies() == {}


def test_a_nondeterministic_operation_is_named(gpu: torch.device) -> None:
    trainer = step_trainer("vgg11", 64, gpu)
    with (
        pytest.raises(InputError, match=r"deterministic to false.*adaptive_avg_pool2d_backward"),
        translate_torch_errors(),
    ):
        take_step(trainer, 4, 64)


@pytest.mark.parametrize("case", BOUNDS, ids=[case.model for case in BOUNDS])
def test_a_step_has_no_more_kernels_copies_and_memory_than_before(gpu: torch.device, case: Bounds) -> None:
    trainer = step_trainer(case.model, case.size, gpu)
    take_step(trainer, case.batch, case.size)
    torch.cuda.reset_peak_memory_stats()
    reset_counts()
    take_step(trainer, case.batch, case.size)
    assert host_copies() == {}
    assert times("cuDNN plan") == 0, "the plans of the first step fit"
    copied, peak = read_counts()["copy device to device"].bytes, torch.cuda.max_memory_allocated()
    found = Bounds(case.model, case.size, case.batch, times("kernel"), copied, peak)
    assert found.kernels <= case.kernels, found
    assert found.copied <= case.copied, found
    assert found.peak <= case.peak, found


def test_the_estimate_of_the_doctor_is_the_peak_of_a_step(gpu: torch.device) -> None:
    preset = read_params(Params, ROOT / "presets/nih-40k.yaml")
    (model,), size, batch = preset.models, preset.image_size, preset.batch_size
    trainer = step_trainer(model, size, gpu)
    torch.cuda.reset_peak_memory_stats()
    for _ in range(2):
        take_step(trainer, batch, size)
    estimate = estimate_memory(model, preset).total(batch) - RESERVE
    assert estimate == pytest.approx(torch.cuda.max_memory_allocated(), rel=0.03)


def test_the_versions_include_those_of_the_gpu() -> None:
    versions = library_versions()
    assert versions["cuda"] == torch.version.cuda
    assert versions["cudnn"] == str(torch.backends.cudnn.version())
    assert versions["driver"] == "1.2.3"
