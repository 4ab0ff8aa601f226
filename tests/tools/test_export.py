"""`tools.export`, run as a user runs it, and the exported file in onnxruntime, compared with `tools.predict`."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
import timm
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image

from cxr.core.errors import InputError, run_as_script
from cxr.core.files import sha256
from cxr.core.labels import CLASSES
from cxr.evaluation.calibration import Calibration, logit
from cxr.evaluation.decisions import Decisions
from cxr.images.decode import decode_and_resize
from cxr.images.resize import resize
from cxr.inference.params import TTA
from cxr.inference.tta import tta_views
from cxr.models.classifier import Architecture, build_classifier
from cxr.models.model_file import load_model, save_model
from tests.fixtures.project import ROOT
from tests.fixtures.stages import files_in
from tools.export import command, onnx_file, timm_folder
from tools.export.graph import EnsembleModule, logit_of_mean
from tools.predict import command as predict
from tools.predict.output import NOT_CLINICAL

TOLERANCE = 1e-4
SIDE = 32
TTA_PARAMS = TTA(hflip=False, translate=0, scale=0, five_crop=0.8)
ALL_TTA = TTA(hflip=True, translate=0.05, scale=0.1, five_crop=0.8)
TIMM_FILES = ("README.md", "config.json", "model.safetensors")
MEMBERS = ("data/models/test_resnet-1.safetensors", "data/models/test_resnet-2.safetensors")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two networks, their `data/decisions.json`, and `data/ensemble.onnx`, exported by the command."""
    folder = tmp_path_factory.mktemp("project")
    for seed, name in enumerate(MEMBERS):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        save_network(folder / name, Architecture("test_resnet", in_chans=1, image_size=SIDE), seed)
    decisions(folder).write(folder / "data/decisions.json")
    done = run_export(folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return folder


def decisions(folder: Path) -> Decisions:
    """Decisions with slopes below and above 1, and one class that was not fitted."""
    slope = np.linspace(1, 3, 15)
    slope[1] = 0.3
    calibration = Calibration(slope, np.linspace(0, -1, 15), ("too few",) + ("",) * 14)
    thresholds = np.linspace(0.3, 0.6, 15)
    return Decisions(
        members=tuple(Path(name).stem for name in MEMBERS),
        sha256=tuple(sha256(folder / name) for name in MEMBERS),
        tta=TTA_PARAMS,
        classes=CLASSES,
        calibration=calibration,
        rule="youden",
        thresholds=thresholds,
        calibrated_thresholds=calibration.apply(thresholds[None])[0],
        synthetic=True,
    )


def save_network(path: Path, architecture: Architecture, seed: int = 0) -> None:
    """Write an untrained network, with batch normalisation and head scaled so that images get different logits."""
    torch.manual_seed(seed)
    classifier = build_classifier(architecture)
    pixels = torch.from_numpy(onnx_file.synthetic_images(4, architecture.image_size)).unsqueeze(1) / 255
    with torch.no_grad():
        for layer in classifier.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = 1
        if classifier.attention:
            classifier.attention.attention.weight.normal_()
        first, *others = classifier.train()(pixels)
        spread = (torch.stack(others) - first).std()
        for head in classifier.head_layers():
            weight = getattr(head, "logits", head).weight
            assert isinstance(weight, torch.Tensor)
            weight.mul_(1 / spread)
    save_model(classifier, architecture, {}, path)


@pytest.fixture(autouse=True)
def _here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "project" in request.fixturenames:
        monkeypatch.chdir(request.getfixturevalue("project"))


def run_export(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    process = [sys.executable, "-m", "tools.export", *args]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(process, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def export_here(monkeypatch: pytest.MonkeyPatch, *args: str | Path) -> None:
    """Run the command in this process, which is faster."""
    monkeypatch.setattr(sys, "argv", ["export", *map(str, args)])
    command.main()


def predicted(
    monkeypatch: pytest.MonkeyPatch, folder: Path, files: Sequence[Path], *args: str | Path
) -> dict[str, Any]:
    monkeypatch.setattr(sys, "argv", ["predict", *map(str, files), "--json", str(folder / "a.json"), *map(str, args)])
    predict.main()
    found: dict[str, Any] = json.loads((folder / "a.json").read_text(encoding="utf-8"))
    return found


def probabilities(found: dict[str, Any]) -> NDArray[np.float64]:
    return np.array([[image["probabilities"][name] for name in CLASSES] for image in found["images"]])


def write_images(folder: Path, count: int, side: int) -> list[Path]:
    """Write synthetic radiographs as PNG files, a little larger than the input of the networks."""
    paths = [folder / f"{number:03}.png" for number in range(count)]
    for path, pixels in zip(paths, onnx_file.synthetic_images(count, side + 10), strict=True):
        Image.fromarray(pixels).save(path)
    return paths


def run_onnx(file: Path, images: Sequence[Path], size: int) -> list[NDArray[Any]]:
    """Return the outputs of onnxruntime for image files, in one batch."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    outputs: list[NDArray[Any]] = session.run(
        None, {"images": np.stack([decode_and_resize(path.read_bytes(), size) for path in images])}
    )
    return outputs


def metadata_of(file: Path) -> dict[str, str]:
    found: dict[str, str] = onnxruntime.InferenceSession(file).get_modelmeta().custom_metadata_map
    return found


def test_a_hundred_synthetic_images_get_the_results_of_predict(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    images = write_images(tmp_path, 100, SIDE)
    expected = predicted(monkeypatch, tmp_path, images)
    assert expected["calibrated"]
    found, is_predicted = run_onnx(Path("data/ensemble.onnx"), images, SIDE)
    assert (found.dtype.name, found.shape, is_predicted.dtype.name) == ("float32", (100, 15), "bool")
    assert np.ptp(found, axis=0).max() > 0.1
    np.testing.assert_allclose(found, probabilities(expected), rtol=0, atol=TOLERANCE)
    positives = [[name for name, positive in zip(CLASSES, row, strict=True) if positive] for row in is_predicted]
    assert positives == [image["predicted_positive"] for image in expected["images"]]


def test_the_batch_size_does_not_change_the_probabilities(project: Path, tmp_path: Path) -> None:
    images = write_images(tmp_path, 3, SIDE)
    batch = run_onnx(Path("data/ensemble.onnx"), images, SIDE)[0]
    alone = [run_onnx(Path("data/ensemble.onnx"), [image], SIDE)[0][0] for image in images]
    np.testing.assert_allclose(alone, batch, rtol=0, atol=1e-6)


def test_another_process_writes_the_same_bytes_without_any_path(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export_here(monkeypatch, *MEMBERS, "--output", tmp_path / "deep" / "b.onnx")
    content = (tmp_path / "deep/b.onnx").read_bytes()
    assert content == Path("data/ensemble.onnx").read_bytes()
    for trace in (str(ROOT), str(project), str(Path.home()), "site-packages", ".py", "stack_trace"):
        assert trace.encode() not in content
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(f"MB, SHA-256 {sha256(tmp_path / 'deep/b.onnx')}")
    assert lines[1] == "test_resnet-1, test_resnet-2 at 32 px, 5 TTA views, calibrated, with thresholds"
    assert float(lines[2].rpartition(" ")[2]) < TOLERANCE
    assert lines[3] == NOT_CLINICAL


def test_the_metadata_describes_input_and_outputs(project: Path) -> None:
    decisions = Decisions.read(Path("data/decisions.json"))
    values = metadata_of(Path("data/ensemble.onnx"))
    assert json.loads(values["classes"]) == list(CLASSES)
    assert (values["image_size"], values["calibrated"], values["threshold_rule"]) == (str(SIDE), "true", decisions.rule)
    assert list(json.loads(values["thresholds"]).values()) == decisions.calibrated_thresholds.tolist()
    assert [member["sha256"] for member in json.loads(values["members"])] == list(decisions.sha256)
    assert [member["name"] for member in json.loads(values["members"])] == list(decisions.members)
    assert json.loads(values["tta_views"]) == [view._asdict() for view in tta_views(TTA_PARAMS)]
    assert f"Resize to {SIDE} x {SIDE} pixels" in values["preprocessing"]
    assert json.loads(values["preprocessing_steps"])["resize"]["height"] == SIDE
    assert values["note"] == NOT_CLINICAL
    assert values["license"] == yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["license"]
    assert values["synthetic"] == "true"


def test_the_graph_is_of_a_named_opset_and_takes_any_number_of_images(project: Path) -> None:
    model = onnx.load("data/ensemble.onnx")
    assert [(each.domain, each.version) for each in model.opset_import] == [("", onnx_file.OPSET)]
    assert model.ir_version == onnx_file.IR_VERSION
    for value, name, kind, shape in (
        (model.graph.input[0], "images", onnx.TensorProto.UINT8, ["batch", SIDE, SIDE]),
        (model.graph.output[0], "probabilities", onnx.TensorProto.FLOAT, ["batch", 15]),
        (model.graph.output[1], "predicted_positive", onnx.TensorProto.BOOL, ["batch", 15]),
    ):
        found = value.type.tensor_type
        assert (value.name, found.elem_type) == (name, kind)
        assert [dimension.dim_param or dimension.dim_value for dimension in found.shape.dim] == shape
    weights = [tensor for tensor in model.graph.initializer if tensor.name.endswith("fc.weight")]
    assert len(weights) == len(MEMBERS), "the file contains each network once, whatever the number of views"
    assert onnx.TensorProto.DOUBLE not in {tensor.data_type for tensor in model.graph.initializer}


def test_every_tta_view_is_that_of_predict(project: Path) -> None:
    ensemble = command.load_ensemble([], torch.device("cpu"))
    assert ensemble.decisions
    other = replace(ensemble, decisions=ensemble.decisions.model_copy(update={"tta": ALL_TTA}))
    images = onnx_file.synthetic_images(5, SIDE)
    with torch.inference_mode():
        found = EnsembleModule(other).eval()(torch.from_numpy(images))[0].numpy()
    assert len(other.views) == 22
    np.testing.assert_allclose(found, other.calibrate(other.predict(images)), rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "architecture",
    [
        Architecture("test_convnext", in_chans=3, image_size=64, attention_pool=True),
        # Fused attention with a bias, whose memory layout PyTorch's exporter does not support.
        Architecture("test_vit_relpos", in_chans=1, image_size=64),
    ],
    ids=lambda architecture: architecture.model,
)
def test_other_architectures_are_exported_and_have_no_thresholds_without_decisions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: Architecture
) -> None:
    monkeypatch.chdir(tmp_path)
    model = tmp_path / "a.safetensors"
    save_network(model, architecture)
    export_here(monkeypatch, model, "--output", "a.onnx")
    images = write_images(tmp_path, 8, architecture.image_size)
    (found,) = run_onnx(Path("a.onnx"), images, architecture.image_size)
    expected = predicted(monkeypatch, tmp_path, images, "--model", model)
    assert np.ptp(found, axis=0).max() > 0.1
    np.testing.assert_allclose(found, probabilities(expected), rtol=0, atol=TOLERANCE)
    values = metadata_of(Path("a.onnx"))
    assert (values["calibrated"], values["thresholds"], values["synthetic"]) == ("false", "null", "null")


@pytest.mark.slow
def test_efficientnet_b3_at_300_pixels_is_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = tmp_path / "a.safetensors"
    save_network(model, Architecture("efficientnet_b3", in_chans=3, image_size=300))
    export_here(monkeypatch, model, "--output", "a.onnx")
    images = write_images(tmp_path, 4, 300)
    (found,) = run_onnx(Path("a.onnx"), images, 300)
    expected = predicted(monkeypatch, tmp_path, images, "--model", model)
    assert np.ptp(found, axis=0).max() > 0.1
    np.testing.assert_allclose(found, probabilities(expected), rtol=0, atol=TOLERANCE)


def test_the_network_of_the_demo_gives_the_results_of_predict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    if not Path("data/decisions.json").is_file() or not Path("data/models").is_dir():
        pytest.skip("no trained network here: dvc repro")
    export_here(monkeypatch, "--output", tmp_path / "a.onnx")
    images = sorted(Path("data/demo/images").glob("*.png"))[:100]
    found = run_onnx(tmp_path / "a.onnx", images, int(metadata_of(tmp_path / "a.onnx")["image_size"]))[0]
    expected = probabilities(predicted(monkeypatch, tmp_path, images))
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


@given(arrays.arrays(np.float32, (6, 2, 3), elements=st.floats(-200, 200, width=32)))
@settings(deadline=None)
def test_the_logit_of_a_mean_is_that_of_float64_beyond_the_range_of_float32_probabilities(
    logits: NDArray[np.float32],
) -> None:
    exact = torch.sigmoid(torch.from_numpy(logits).double()).mean(dim=0).numpy()
    found = logit_of_mean(torch.from_numpy(logits)).numpy()
    # Near 1, even float64 has only 12 digits of 1 - p left at the bound.
    np.testing.assert_allclose(found, logit(exact), rtol=1e-5, atol=2e-4)


def test_calibration_is_precise_for_probabilities_near_0_and_1() -> None:
    """With probabilities of 1e-9 and slopes of 0.2, averaging float32 probabilities would cause errors of 0.1."""
    logits = np.array([-40, -25, -21, -15, 0, 15, 21, 25, 40], np.float32)
    slope, intercept = 0.2, 3.0
    expected = 1 / (1 + np.exp(-(slope * logit(1 / (1 + np.exp(-logits.astype(np.float64)))) + intercept)))
    found = torch.sigmoid(slope * logit_of_mean(torch.from_numpy(logits)[None]) + intercept)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-6)


def python_examples() -> list[str]:
    """Return the two Python examples of docs/export.md."""
    text = (ROOT / "docs/export.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def test_the_documented_example_runs_without_torch_and_this_project(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    example, exact_resize = python_examples()
    lines = list(filter(None, example.splitlines()))
    assert len(lines) == 10
    (name,) = re.findall(r"data/demo/images/\S+\.png", example)
    (project / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(ROOT / name, project / name)
    expected = predicted(monkeypatch, tmp_path, [Path(name)])["images"][0]["probabilities"]
    absent = ["import sys", "assert not {'torch', 'cxr'} & set(sys.modules)"]
    exact = [*lines[:8], *exact_resize.splitlines(), *lines[8:]]
    for program, tolerance in ((lines, 0.05), (exact, TOLERANCE)):
        # -I: only installed packages can be imported.
        done = subprocess.run(
            [sys.executable, "-I", "-c", "\n".join([*program, *absent])], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == pytest.approx(expected, abs=tolerance)


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 60), st.integers(0, 9))
@settings(deadline=None)
def test_the_documented_resize_gives_the_bits_of_the_stage(rows: int, columns: int, size: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (rows, columns), np.uint8)
    namespace: dict[str, Any] = {"np": np, "image": image, "size": size}
    exec(python_examples()[1], namespace)  # noqa: S102 (code of the documentation)
    assert np.array_equal(namespace["pixels"], resize(image, size))


def test_wrong_arguments_end_with_one_message_and_write_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Path(tmp_path / "broken.safetensors").write_bytes(b"nothing of the kind")
    other = Architecture("test_resnet", 1, 48)
    save_model(build_classifier(other), other, {}, tmp_path / "other.safetensors")
    copy = shutil.copyfile(MEMBERS[0], tmp_path / "mine.safetensors")
    before = files_in(project) | files_in(tmp_path)
    for args, message in (
        (["nonesuch.safetensors"], "nonesuch.safetensors is not a model file"),
        ([tmp_path / "broken.safetensors"], "broken.safetensors is not a model file"),
        ([MEMBERS[0], tmp_path / "other.safetensors"], r"test_resnet-1\.safetensors 32 px.*other\.safetensors 48 px"),
        (["--output", "data"], "--output data: this is a folder"),
        ([copy, "--output", copy], "this is one of the model files"),
    ):
        with pytest.raises(InputError, match=message):
            export_here(monkeypatch, *args)
    assert files_in(project) | files_in(tmp_path) == before


def test_an_output_folder_that_is_a_file_is_reported(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match=r"^error: .*data/decisions\.json"):
        run_as_script(lambda: export_here(monkeypatch, "--output", "data/decisions.json/a.onnx"))


def test_a_missing_package_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(InputError, match=r"onnxscript must be installed.*pip install -r requirements-export\.txt"):
        export_here(monkeypatch)


@pytest.mark.parametrize("probability", [0, np.nan])
def test_a_file_with_other_probabilities_is_not_kept(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, probability: float
) -> None:
    ensemble = command.load_ensemble([], torch.device("cpu"))
    monkeypatch.setattr(onnx_file, "to_onnx", lambda *_: onnx_ir.load("data/ensemble.onnx"))
    monkeypatch.setattr(onnx_file, "run_onnx", lambda _, images: np.full((len(images), 15), probability))
    with pytest.raises(InputError, match=r"differ from PyTorch's by .*: no file is kept"):
        onnx_file.write_onnx(ensemble, {}, tmp_path / "a.onnx")
    assert files_in(tmp_path) == set()


def test_without_onnxruntime_a_warning_reports_that_nothing_was_compared(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(onnx_file, "find_spec", lambda _: None)
    ensemble = command.load_ensemble([], torch.device("cpu"))
    assert onnx_file.compare_with_pytorch(ensemble, Path("data/ensemble.onnx")) is None
    assert "onnxruntime is not installed" in capsys.readouterr().err


def test_networks_too_large_for_one_file_are_rejected(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "LARGEST", 1000)
    with pytest.raises(InputError, match=r"at most 2[.]1 GB: export fewer"):
        export_here(monkeypatch)


def test_a_network_that_pytorch_cannot_export_is_reported(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise torch.onnx.OnnxExporterError("a long message") from ValueError("no such operation\nand more")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    with pytest.raises(InputError, match=r"cannot export this network: no such operation$"):
        export_here(monkeypatch, "--output", tmp_path / "a.onnx")
    assert files_in(tmp_path) == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    "architecture",
    [
        Architecture("test_resnet", in_chans=1, image_size=SIDE),
        Architecture("test_efficientnet", in_chans=3, image_size=64),
        Architecture("test_vit_relpos", in_chans=1, image_size=64),  # of a fixed size
    ],
    ids=lambda architecture: architecture.model,
)
def test_timm_loads_an_exported_folder_without_a_network_and_with_the_same_logits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: Architecture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket, "socket", lambda *_, **__: pytest.fail("opened a connection"))
    save_network(Path("a.safetensors"), architecture)
    export_here(monkeypatch, "a.safetensors", "--timm", "chest")
    assert files_in(tmp_path) == {"a.safetensors", *(f"chest/{name}" for name in TIMM_FILES)}
    classifier, _ = load_model(Path("a.safetensors"))
    model = timm.create_model("local-dir:chest", pretrained=True).eval().double()
    classifier = classifier.double()  # float32 rounds differently in other memory layouts
    images = torch.from_numpy(onnx_file.synthetic_images(8, architecture.image_size)).unsqueeze(1).double() / 255
    with torch.inference_mode():
        expected, found = classifier(images), model((images - classifier.mean) / classifier.std)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    config = json.loads(Path("chest/config.json").read_text(encoding="utf-8"))
    assert config["label_names"] == list(CLASSES)
    assert config["pretrained_cfg"]["input_size"] == [architecture.in_chans, *[architecture.image_size] * 2]


def test_the_model_card_of_a_folder_for_timm_has_metadata_and_a_program_that_predicts(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (image,) = write_images(tmp_path, 1, SIDE)
    expected = predicted(monkeypatch, tmp_path, [image], "--model", MEMBERS[0])["images"][0]["probabilities"]
    export_here(monkeypatch, MEMBERS[0], "--timm", tmp_path / "chest")
    card = huggingface_hub.ModelCard.load(tmp_path / "chest/README.md")
    assert (card.data.library_name, card.data.license, card.data.pipeline_tag) == (
        "timm",
        "mit",
        "image-classification",
    )
    assert NOT_CLINICAL in card.text
    (program,) = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
    namespace: dict[str, Any] = {}
    exec(program.replace("FOLDER", str(tmp_path / "chest")).replace("chest.png", str(image)), namespace)  # noqa: S102
    # Without TTA and calibration; Pillow rounds differently from the stage resize.
    assert namespace["probabilities"][0].tolist() == pytest.approx(list(expected.values()), abs=0.05)


def test_what_timm_cannot_express_is_refused_by_name(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"one network, and these are 2: .*test_resnet-1.*test_resnet-2.*; name one"):
        export_here(monkeypatch, "--timm", tmp_path / "a")
    model = tmp_path / "attention.safetensors"
    save_network(model, Architecture("test_resnet", in_chans=1, image_size=64, attention_pool=True))
    with pytest.raises(InputError, match=r"attention\.safetensors has an attention head \(attention_pool\)"):
        export_here(monkeypatch, model, "--timm", tmp_path / "a")
    with pytest.raises(InputError, match=r"attention\.safetensors: this exists; remove it"):
        export_here(monkeypatch, model, "--timm", model)
    monkeypatch.setattr(timm_folder, "TOLERANCE", -1)
    with pytest.raises(InputError, match=r"timm loads .*test_resnet-1.* differ by .*; no folder is kept"):
        export_here(monkeypatch, MEMBERS[0], "--timm", tmp_path / "a")
    assert files_in(tmp_path) == {"attention.safetensors"}
