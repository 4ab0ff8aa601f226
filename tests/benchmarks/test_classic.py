from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from benchmarks.classic import print_times, read_outputs


def test_the_time_of_50_epochs_is_the_first_and_49_times_the_median(capsys: pytest.CaptureFixture[str]) -> None:
    print_times([30, 50, 72, 90], 28_000)  # epochs of 20, 22 and 18 s after the first
    printed = capsys.readouterr().out
    assert "first epoch with the start: 30.0 s" in printed
    assert "median 20.00 s, min 18.00, max 22.00, n = 3: 1,400 training images per second" in printed
    assert f"50 epochs: {(30 + 49 * 20) / 60:.1f} minutes" in printed


def test_the_outputs_of_two_runs_are_compared_by_their_tensors_and_curves(tmp_path: Path) -> None:
    (tmp_path / "data/models").mkdir(parents=True)
    network, curve = tmp_path / "data/models/net-1.safetensors", tmp_path / "data/curves.csv"
    outputs = []
    for value, description, loss in ((1.0, "a", "0.5"), (1.0, "b", "0.5"), (2.0, "a", "0.5"), (1.0, "a", "0.6")):
        save_file({"weight": torch.full((3,), value), "bias": torch.zeros(2)}, network, {"cxr": description})
        curve.write_text(f"epoch,train_loss\n1,{loss}\n")
        outputs.append(read_outputs(tmp_path))
    assert outputs[0] == outputs[1]
    assert outputs[0].tensors != outputs[2].tensors
    assert outputs[0].curve != outputs[3].curve
