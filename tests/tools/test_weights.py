"""Pretrained weights from a file and from a simulated hub; the real hub is never contacted."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from cxr.core.errors import InputError
from cxr.core.files import sha256
from cxr.models.classifier import Architecture, build_classifier
from tests.fixtures.project import ROOT
from tests.fixtures.stages import error_of, files_in
from tools import weights

MODEL = "test_resnet"


def pretrained_model() -> nn.Module:
    torch.manual_seed(3)
    return timm.create_model(MODEL)


def run_command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["weights", *arguments])
    weights.main()


def simulate_hub(monkeypatch: pytest.MonkeyPatch, reply: nn.Module | Exception) -> None:
    """Replace timm's hub by one that returns `reply`, or raises it."""
    original = timm.create_model

    def create(model: str, pretrained: bool = False, **options: Any) -> nn.Module:
        if not pretrained or options:
            return original(model, pretrained=pretrained, **options)
        if isinstance(reply, Exception):
            raise reply
        return reply

    monkeypatch.setattr(timm, "create_model", create)


def assert_training_reads(path: Path, network: nn.Module) -> None:
    built = build_classifier(Architecture(MODEL, 3, 32), path).backbone.state_dict()
    for name, tensor in network.state_dict().items():
        if not name.startswith("fc."):
            assert torch.equal(built[name], tensor), name


def test_weights_from_the_hub_are_read_by_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    network = pretrained_model()
    simulate_hub(monkeypatch, network)
    monkeypatch.chdir(tmp_path)
    run_command(monkeypatch, MODEL)
    path = Path(f"data/weights/{MODEL}.safetensors")
    assert files_in(tmp_path) == {str(path)}
    output = capsys.readouterr().out
    assert output.startswith(f"{path}: ")
    assert sha256(path) in output
    assert output.endswith(f"next: dvc exp run -S 'models=[{MODEL}]' -S weights=imagenet -S in_chans=3\n")
    assert_training_reads(path, network)
    before = path.read_bytes()
    run_command(monkeypatch, MODEL)
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["mine.safetensors", "mine.pth"])
def test_weights_from_a_file_are_read_by_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    network = pretrained_model()
    if name.endswith(".pth"):
        torch.save(network.state_dict(), tmp_path / name)
    else:
        save_file(network.state_dict(), tmp_path / name)
    run_command(monkeypatch, MODEL, "--from", str(tmp_path / name), "--to", str(tmp_path / "to"))
    path = tmp_path / "to" / f"{MODEL}.safetensors"
    written = load_file(path)
    assert written.keys() == network.state_dict().keys()
    assert_training_reads(path, network)


@pytest.mark.parametrize(
    "failure",
    [FileNotFoundError("not found on the Hub\nsecond line"), ConnectionError("no route"), RuntimeError("bad hash")],
    ids=["offline", "connection", "hash"],
)
def test_an_unreachable_hub_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    simulate_hub(monkeypatch, failure)
    with pytest.raises(InputError) as raised:
        run_command(monkeypatch, MODEL, "--to", str(tmp_path))
    message = str(raised.value)
    reason = str(failure).replace("\n", " ")
    assert message.startswith(f"cannot download the weights of {MODEL} from timm's hub ({reason})")
    assert "--from" in message
    assert "\n" not in message
    assert files_in(tmp_path) == set()


def test_user_errors_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other.safetensors"
    save_file(timm.create_model("test_efficientnet").state_dict(), other)
    nonsense = tmp_path / "nonsense.pth"
    nonsense.write_bytes(b"nothing of the kind")
    for arguments, message in (
        (["seresnet18"], "no pretrained weights of seresnet18"),
        (["efficientnetb3"], "did you mean .*efficientnet_b3"),
        ([MODEL, "--from", str(tmp_path / "nonesuch")], "file not found"),
        ([MODEL, "--from", str(other)], "other.safetensors does not contain weights of test_resnet"),
        ([MODEL, "--from", str(nonsense)], "nonsense.pth does not contain weights of test_resnet"),
        ([MODEL, "test_vit", "--from", str(other)], "a file has the weights of one model, but 2 are given"),
    ):
        with pytest.raises(InputError, match=message):
            run_command(monkeypatch, *arguments, "--to", str(tmp_path / "to"))
    assert not (tmp_path / "to").exists()


def test_a_user_error_is_one_line_with_exit_code_1() -> None:
    command = [sys.executable, "-m", "tools.weights", "seresnet18"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert error_of(done).startswith("error: timm ")
