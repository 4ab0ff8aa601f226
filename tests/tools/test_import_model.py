"""Networks of timm and torchxrayvision as model files."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from cxr.core.errors import InputError
from cxr.core.labels import CLASSES
from cxr.images.decode import decode_and_resize
from cxr.models.classifier import Architecture
from cxr.models.model_file import load_model, read_description, save_model
from tools.import_model import XRV, adapt_densenet, convert, load_timm, main

LABELS = ["pleural effusion", "Support Devices", "Mass", "prob_Pleural Thickening"]


def write_timm(folder: Path, labels: list[str] | None = LABELS, model: str = "test_resnet", **options: Any) -> Any:
    """Write a network with random weights and an output for each of `LABELS` in timm's format; return it."""
    torch.manual_seed(4)
    network = timm.create_model(model, num_classes=len(LABELS), **options).eval()
    folder.mkdir()
    save_file(network.state_dict(), folder / "model.safetensors")
    config: dict[str, Any] = {
        "architecture": model,
        "num_classes": len(LABELS),
        "pretrained_cfg": {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3], "input_size": [3, 64, 64]},
    }
    (folder / "config.json").write_text(json.dumps(config | ({"label_names": labels} if labels else {})))
    return network


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["import_model", *words])
    main()


def images_of(side: int) -> Tensor:
    return torch.rand(3, 1, side, side, generator=torch.Generator().manual_seed(9))


def test_a_timm_folder_predicts_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    network = write_timm(tmp_path / "other")
    run(monkeypatch, str(tmp_path / "other"), "--output", str(tmp_path / "other.safetensors"))
    assert "dropped outputs: Support Devices" in capsys.readouterr().out
    classifier, description = load_model(tmp_path / "other.safetensors")
    images = images_of(64)
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.25, 0.3])
    with torch.no_grad():
        expected = network((images.expand(-1, 3, -1, -1) - mean[:, None, None]) / std[:, None, None]).sigmoid()
        found = classifier(images).sigmoid()
    columns = [CLASSES.index(name) for name in ("Effusion", "Mass", "Pleural_Thickening")]
    torch.testing.assert_close(found[:, columns], expected[:, [0, 2, 3]], rtol=0, atol=1e-5)
    assert sorted([*description["untrained"], "Effusion", "Mass", "Pleural_Thickening"]) == list(CLASSES)
    assert "patients" not in description


def test_names_of_the_outputs_can_be_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_timm(tmp_path / "other", labels=None)
    file = tmp_path / "other.safetensors"
    run(monkeypatch, str(tmp_path / "other"), "--output", str(file), "--classes", "Hernia,Edema,x,y")
    assert set(CLASSES) - set(read_description(file)["untrained"]) == {"Hernia", "Edema"}


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (None, {}, "has 4 outputs and 0 names of them; give all"),
        (["a", "b", "c", "d"], {}, "none of its outputs is a class: a, b, c, d"),
        (["Mass", "mass", "c", "d"], {}, "two outputs mean the same"),
        (LABELS, {"global_pool": "max"}, "predicts other probabilities than timm's test_resnet"),
    ],
)
def test_networks_that_do_not_fit_are_refused(
    tmp_path: Path, labels: list[str] | None, options: dict[str, Any], message: str
) -> None:
    write_timm(tmp_path / "other", labels, **options)
    if options:
        config = json.loads((tmp_path / "other/config.json").read_text())
        (tmp_path / "other/config.json").write_text(json.dumps(config | {"global_pool": "max", "model_args": options}))
    with pytest.raises(InputError, match=message):
        convert(load_timm(str(tmp_path / "other"), []))


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no model.safetensors; give a folder of timm"):
        load_timm(str(tmp_path), [])


def test_a_damaged_config_is_refused(tmp_path: Path) -> None:
    write_timm(tmp_path / "other")
    (tmp_path / "other/config.json").write_text('{"architecture": "nonesuch"}')
    with pytest.raises(InputError, match="timm cannot load"):
        load_timm(str(tmp_path / "other"), [])


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchxrayvision", None)
    with pytest.raises(InputError, match="torchxrayvision cannot be imported"):
        run(monkeypatch, f"{XRV}densenet121-res224-nih", "--output", str(tmp_path / "a.safetensors"))


@pytest.mark.real_data
@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("has_points", [True, False])
def test_torchxrayvision_predicts_the_same_on_real_images(shared: Path, tmp_path: Path, has_points: bool) -> None:
    reason = "not compared with torchxrayvision: the package is missing"
    models = pytest.importorskip("torchxrayvision.models", reason=reason, exc_type=ImportError)
    files = sorted((shared / "nih-mini/images").iterdir())[:50]
    pixels = torch.from_numpy(np.stack([decode_and_resize(file.read_bytes(), 224) for file in files]))[:, None] / 255
    torch.manual_seed(2)
    points = torch.rand(18) * 0.5 + 0.01 if has_points else None
    network = models.DenseNet(num_classes=18, in_channels=1, op_threshs=points, apply_sigmoid=True).eval()
    with torch.no_grad():
        # As in a trained network, logits differ between images and are a few units in size.
        features = network.features2((2 * pixels[:10] - 1) * 1024)
        network.classifier.weight.div_(features.std(dim=0).clamp(min=1e-3)).mul_(2)
        network.classifier.bias.copy_(-(network.classifier.weight @ features.mean(dim=0)))
    converted, training = convert(adapt_densenet(network, "torchxrayvision:random"))
    save_model(converted, Architecture("densenet121", 1, 224), training, tmp_path / "xrv.safetensors")
    classifier, _ = load_model(tmp_path / "xrv.safetensors")
    compared = [(CLASSES.index(name), row) for row, name in enumerate(network.targets) if name in CLASSES]
    assert len(compared) == 14
    columns, rows = zip(*compared, strict=True)
    # The scaled head multiplies the rounding of float32 by hundreds; in float64, only another network would differ.
    torch.set_default_dtype(torch.float64)  # of the tensors that the package creates
    try:
        with torch.no_grad():
            expected = network.double()((2 * pixels.double() - 1) * 1024).numpy()[:, rows]
            found = classifier.double()(pixels.double()).sigmoid().numpy()[:, columns]
    finally:
        torch.set_default_dtype(torch.float32)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
    assert np.ptp(expected, axis=0).min() > 0.01
