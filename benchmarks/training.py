"""Images a second of training on batches that lie on the device: which settings of the network's arithmetic cost what.

efficientnet_b3 at 300 px in batches of 192 on a GPU: float16 and bfloat16, channels last or not, deterministic or not,
compiled or not. On a CPU, a small network in float32. `--profile` shows where a step's time goes.

Run: `python -m benchmarks.training` (3 minutes on a GPU, 5 on two cores). `--toy` tries it with a tiny network.
"""

import os

# As the stages do it, before PyTorch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.data import ROOT, write_params
from benchmarks.input import TOY, Case
from benchmarks.timing import alternate, finish, show, show_machine
from cxr.core.params import read_params
from cxr.models.classifier import Architecture, build_classifier
from cxr.models.device import init_device
from cxr.training.params import TrainParams
from cxr.training.trainer import Trainer

ON_GPU = Case("efficientnet_b3", 3, 300, 192, 20)
ON_CPU = Case("resnet10t", 1, 96, 32, 10)


class Setting(NamedTuple):
    """One way to compute the same step."""

    precision: Literal["float16", "bfloat16", "float32"]
    deterministic: bool = True
    compile: bool = False
    channels_last: bool = True

    @property
    def name(self) -> str:
        """What the table calls it."""
        words = ["deterministic" if self.deterministic else "free", "compiled" if self.compile else ""]
        return ", ".join([self.precision, *filter(None, words), *([] if self.channels_last else ["channels first"])])


def main() -> None:
    """Time all settings in turn, then show their memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often each setting has its turn")
    parser.add_argument("--toy", action="store_true", help="a tiny network, to see that it runs")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out: it takes minutes at first")
    parser.add_argument("--profile", action="store_true", help="also show where the time of the default setting goes")
    arguments = parser.parse_args()
    show_machine(("torch", "timm"))
    on_gpu = torch.cuda.is_available()
    case = TOY[0] if arguments.toy else ON_GPU if on_gpu else ON_CPU
    settings = [
        setting
        for setting in list_settings("float16" if on_gpu else "float32")
        if not (setting.compile and arguments.no_compile)
    ]
    works = {setting.name: steps_of(case, setting) for setting in settings}
    times = alternate(works, arguments.rounds)
    title = f"{case.model}, {case.size} px, batches of {case.batch}"
    show(title, times, case.steps * case.batch, "image", settings[0].name)
    if on_gpu:
        show_memory(works)
    if arguments.profile:
        show_profile(works[settings[0].name])


def list_settings(precision: Literal["float16", "float32"]) -> list[Setting]:
    """The settings to compare, the default first."""
    settings = [
        Setting(precision),
        Setting(precision, deterministic=False),
        Setting(precision, compile=True),
        Setting(precision, deterministic=False, compile=True),
        Setting(precision, channels_last=False),
    ]
    return settings if precision == "float32" else [*settings, Setting("bfloat16")]


def steps_of(case: Case, setting: Setting) -> Callable[[], object]:
    """So many steps of training by one setting, on one batch."""
    with tempfile.TemporaryDirectory() as name:
        changes: dict[str, Any] = {"amp_dtype": setting.precision, "compile": setting.compile}
        write_params(Path(name), ROOT / "params.yaml", **changes)
        params = read_params(TrainParams, Path(name) / "params.yaml")
    device = init_device(params.threads, setting.deterministic)
    classifier = build_classifier(Architecture(case.model, case.channels, case.size))
    if not setting.channels_last:
        classifier = classifier.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        classifier.backbone.register_forward_pre_hook(_channels_first)
    pixels = torch.rand(case.batch, 1, case.size, case.size, device=device)
    labels = (torch.rand(case.batch, 15, device=device) < 0.1).float()
    training = Trainer(classifier, params, labels)

    def work() -> None:
        init_device(params.threads, setting.deterministic)
        training.classifier.train()
        for _ in range(case.steps):
            training.step(pixels, labels)

    return work


def show_memory(works: dict[str, Callable[[], object]]) -> None:
    """Print the most GPU memory that each setting takes, the networks of the others left out."""
    print("\n| way | peak GPU memory of a step, GB |\n| --- | --- |")
    for name, work in works.items():
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        print(f"| {name} | {(torch.cuda.max_memory_allocated() - before) / 1e9:.1f} |")


def show_profile(work: Callable[[], object]) -> None:
    """Print the operations that take most of the time."""
    on_gpu = torch.cuda.is_available()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as found:
        work()
        finish()
    column = "self_cuda_time_total" if on_gpu else "self_cpu_time_total"
    print(found.key_averages().table(sort_by=column, row_limit=25, max_name_column_width=60))


def _channels_first(_: torch.nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(pixels.contiguous() for pixels in inputs)


if __name__ == "__main__":
    main()
