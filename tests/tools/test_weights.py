"""Pretrained weights from a file, and from a hub that is played; the real one has never been asked."""

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


def trained() -> nn.Module:
    torch.manual_seed(3)
    return timm.create_model(MODEL)


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["weights", *words])
    weights.main()


def play_hub(monkeypatch: pytest.MonkeyPatch, reply: nn.Module | Exception) -> None:
    """A hub that sends `reply`, or fails with it."""
    really = timm.create_model

    def create(model: str, pretrained: bool = False, **options: Any) -> nn.Module:
        if not pretrained or options:
            return really(model, pretrained=pretrained, **options)
        if isinstance(reply, Exception):
            raise reply
        return reply

    monkeypatch.setattr(timm, "create_model", create)


def assert_training_starts_from(path: Path, network: nn.Module) -> None:
    built = build_classifier(Architecture(MODEL, 3, 32), path).backbone.state_dict()
    for name, tensor in network.state_dict().items():
        if not name.startswith("fc."):
            assert torch.equal(built[name], tensor), name


def test_what_the_hub_sends_is_what_training_starts_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    network = trained()
    play_hub(monkeypatch, network)
    monkeypatch.chdir(tmp_path)
    call(monkeypatch, MODEL)
    path = Path(f"data/weights/{MODEL}.safetensors")
    assert files_in(tmp_path) == {str(path)}
    said = capsys.readouterr().out
    assert said.startswith(f"{path}: ")
    assert sha256(path) in said
    assert said.endswith(f"next: dvc exp run -S 'models=[{MODEL}]' -S weights=imagenet -S in_chans=3\n")
    assert_training_starts_from(path, network)
    before = path.read_bytes()
    call(monkeypatch, MODEL)
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["mine.safetensors", "mine.pth"])
def test_a_file_that_somebody_has_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    network = trained()
    if name.endswith(".pth"):
        torch.save(network.state_dict(), tmp_path / name)
    else:
        save_file(network.state_dict(), tmp_path / name)
    call(monkeypatch, MODEL, "--from", str(tmp_path / name), "--to", str(tmp_path / "to"))
    path = tmp_path / "to" / f"{MODEL}.safetensors"
    written = load_file(path)
    assert written.keys() == network.state_dict().keys()
    assert_training_starts_from(path, network)


@pytest.mark.parametrize(
    "failure",
    [FileNotFoundError("not found on the Hub\nsecond line"), ConnectionError("no route"), RuntimeError("bad hash")],
    ids=["offline", "connection", "hash"],
)
def test_a_hub_out_of_reach_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    play_hub(monkeypatch, failure)
    with pytest.raises(InputError) as raised:
        call(monkeypatch, MODEL, "--to", str(tmp_path))
    message = str(raised.value)
    assert message.startswith(f"timm's hub did not give the weights of {MODEL} ({str(failure).splitlines()[0]})")
    assert "--from" in message
    assert "\n" not in message
    assert files_in(tmp_path) == set()


def test_mistakes_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other.safetensors"
    save_file(timm.create_model("test_efficientnet").state_dict(), other)
    nonsense = tmp_path / "nonsense.pth"
    nonsense.write_bytes(b"nothing of the kind")
    for words, message in (
        (["seresnet18"], "no pretrained weights of seresnet18"),
        (["efficientnetb3"], "did you mean .*efficientnet_b3"),
        ([MODEL, "--from", str(tmp_path / "nonesuch")], "there is no such file"),
        ([MODEL, "--from", str(other)], "other.safetensors does not hold weights of test_resnet"),
        ([MODEL, "--from", str(nonsense)], "nonsense.pth does not hold weights of test_resnet"),
        ([MODEL, "test_vit", "--from", str(other)], "one file holds one network, and 2 are named"),
    ):
        with pytest.raises(InputError, match=message):
            call(monkeypatch, *words, "--to", str(tmp_path / "to"))
    assert not (tmp_path / "to").exists()


def test_a_mistake_ends_with_one_line_and_exit_code_1() -> None:
    command = [sys.executable, "-m", "tools.weights", "seresnet18"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert error_of(done).startswith("error: timm ")
