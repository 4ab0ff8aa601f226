import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from cxr.core.errors import InputError
from cxr.core.files import remove
from cxr.models.members import Member
from cxr.models.model_file import load_model
from cxr.training import checkpoints
from cxr.training.checkpoints import MODEL as MODEL_FILE
from cxr.training.checkpoints import training_lock
from cxr.training.trainer import Trainer
from stages import train
from tests.fixtures.planted import MODEL, save_images, write_planted, write_planted_params
from tests.fixtures.project import start_training


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_planted(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def outputs(folder: Path) -> dict[str, bytes]:
    paths = [folder / "data/curves.csv", *sorted((folder / "data/models").iterdir())]
    return {path.name: path.read_bytes() for path in paths}


@pytest.mark.slow
def test_each_member_is_trained_and_each_epoch_has_a_row(folder: Path) -> None:
    write_planted_params(folder, models=[MODEL, "test_efficientnet"], seeds=[1, 2], epochs=2)
    train.main()
    members = ["test_efficientnet-1", "test_efficientnet-2", "test_resnet-1", "test_resnet-2"]
    assert sorted(path.stem for path in (folder / "data/models").iterdir()) == members
    curves = pd.read_csv(folder / "data/curves.csv")
    assert curves.groupby("member")["epoch"].apply(list).to_dict() == {member: [1, 2] for member in members}
    assert {"lr", "train_loss", "val_loss", "val_auroc", "val_accuracy", "val_accuracy.Hernia"} <= set(curves.columns)
    _, description = load_model(folder / "data/models/test_resnet-2.safetensors")
    curve = curves[curves["member"] == "test_resnet-2"]
    assert description["val_auroc"] == curve["val_auroc"].max()
    assert description["best_epoch"] == curve["epoch"].iloc[curve["val_auroc"].argmax()]
    assert description["params"]["lr"] == 0.003


@pytest.mark.slow
def test_only_a_new_member_is_trained(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_planted_params(folder, seeds=[1], epochs=1)
    train.main()
    before = outputs(folder)
    trained: list[int] = []
    original = train.train_member

    def counted(member: Member, *rest: object) -> None:
        trained.append(member.seed)
        original(member, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(train, "train_member", counted)
    train.main()
    assert trained == []
    assert outputs(folder) == before
    write_planted_params(folder, seeds=[1, 2], epochs=1)
    train.main()
    assert trained == [2]
    assert outputs(folder)["test_resnet-1.safetensors"] == before["test_resnet-1.safetensors"]
    write_planted_params(folder, seeds=[1, 2], epochs=1, lr=0.002)
    train.main()
    assert trained == [2, 1, 2]
    assert len([path for path in (folder / "checkpoints").iterdir() if path.is_dir()]) == 2


@pytest.mark.slow
def test_the_curves_have_a_row_for_each_epoch_so_far(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_planted_params(folder, seeds=[1, 2], epochs=2)
    seen: list[list[str]] = []
    monkeypatch.setattr(train, "print_epoch", lambda *_: seen.append(rows_of(folder / "data/curves.csv")))
    train.main()
    final = rows_of(folder / "data/curves.csv")
    assert [row.split(",")[:2] for row in final[1:]] == [
        ["test_resnet-1", "1"],
        ["test_resnet-1", "2"],
        ["test_resnet-2", "1"],
        ["test_resnet-2", "2"],
    ]
    assert seen == [final[: 2 + epoch] for epoch in range(4)]


def rows_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


@pytest.mark.slow
def test_an_interrupted_training_resumes_after_another_experiment(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_planted_params(folder, seeds=[1, 2], epochs=2)
    with monkeypatch.context() as patch:
        patch.setattr(train, "print_epoch", interrupt_in_second_member(folder))
        with pytest.raises(KeyboardInterrupt):
            train.main()
    write_planted_params(folder, epochs=1)
    train.main()
    capsys.readouterr()
    write_planted_params(folder, seeds=[1, 2], epochs=2)
    train.main()
    started = [line for line in capsys.readouterr().out.splitlines() if "from epoch" in line]
    assert len(started) == 1, "the first member was finished"
    assert started[0].startswith("test_resnet, seed 2")
    assert started[0].endswith("from epoch 2")


def interrupt_in_second_member(folder: Path) -> Callable[..., None]:
    """Return a replacement of `print_epoch` that raises after the first epoch of the second member."""

    def interrupt(*_: object) -> None:
        if "test_resnet-2" in (folder / "data/curves.csv").read_text(encoding="utf-8"):
            raise KeyboardInterrupt

    return interrupt


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.safetensors", "curve.csv"])
def test_a_broken_file_of_a_finished_training_is_not_published(
    folder: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_planted_params(folder, epochs=1)
    train.main()
    before = outputs(folder)
    (path,) = (folder / "checkpoints").glob(f"*/{name}")
    path.write_bytes(path.read_bytes()[:-100] if name == MODEL_FILE else b"")
    train.main()
    assert re.search(rf"warning: .*{name} .* this network is trained again", capsys.readouterr().err)
    assert outputs(folder) == before
    assert (path.parent / MODEL_FILE).read_bytes() == before["test_resnet-1.safetensors"]


@pytest.mark.slow
def test_changed_data_starts_training_again(folder: Path) -> None:
    write_planted_params(folder, epochs=1)
    train.main()
    before = outputs(folder)
    images = np.load(folder / "data/images.npy")
    images[0, 0, 0] += 1
    save_images(folder, images)
    train.main()
    assert outputs(folder) != before


@pytest.mark.slow
def test_an_epoch_is_written_during_the_next_one_and_then_printed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_planted_params(folder, epochs=2)
    events: list[tuple[str, float]] = []
    second_is_trained = Event()
    run_epoch, save_last = Trainer.run_epoch, checkpoints.save_last

    def recorded_run(trainer: Trainer, *args: Any) -> None:
        events.append(("trained", run_epoch(trainer, *args)["epoch"]))
        if len(trainer.curve) == 2:
            second_is_trained.set()

    def held_save(state: dict[str, Any], path: Path) -> None:
        assert second_is_trained.wait(60)
        save_last(state, path)
        events.append(("saved", len(state["curve"])))

    monkeypatch.setattr(Trainer, "run_epoch", recorded_run)
    monkeypatch.setattr(checkpoints, "save_last", held_save)
    monkeypatch.setattr(train, "print_epoch", lambda row, *_: events.append(("printed", row["epoch"])))
    train.main()
    assert events[:2] == [("trained", 1), ("trained", 2)]
    assert events[2:] == [("saved", 1), ("printed", 1), ("saved", 2), ("printed", 2)]


def test_a_killed_training_resumes_and_ends_with_the_same_bytes(folder: Path) -> None:
    write_planted_params(folder, epochs=5)
    killed = start_training(folder)
    assert killed.stdout is not None
    while "epoch   2" not in (line := killed.stdout.readline()):
        assert line, "the training ended before it could be killed"
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (folder / "data/models").exists()
    rows_when_killed = (folder / "data/curves.csv").read_bytes()
    assert pd.read_csv(folder / "data/curves.csv")["epoch"].tolist() == [1, 2]
    resumed, _ = start_training(folder).communicate()
    assert "from epoch 3" in resumed
    assert "epoch   2" not in resumed
    interrupted = outputs(folder)
    assert interrupted["curves.csv"].startswith(rows_when_killed)
    for path in (folder / "checkpoints").iterdir():
        remove(path)
    _, err = start_training(folder).communicate()
    assert err == ""
    assert outputs(folder) == interrupted


def test_a_second_training_reports_the_first_and_ends(folder: Path) -> None:
    with training_lock(folder / "checkpoints"):
        second = start_training(folder)
        _, err = second.communicate()
    assert second.returncode == 1
    assert err.startswith(f"error: another training is running here: process {os.getpid()}.")
    assert "Traceback" not in err


def test_an_unknown_model_is_reported_before_any_work(folder: Path) -> None:
    write_planted_params(folder, models=["resnet18", "resnett50"])
    with pytest.raises(InputError, match=r"'resnett50'; did you mean resnet50"):
        train.main()
    assert not (folder / "checkpoints").exists()


def test_missing_and_unsuitable_weights_are_reported(folder: Path) -> None:
    write_planted_params(folder, weights="imagenet", weights_dir=str(folder / "weights"), in_chans=3)
    with pytest.raises(InputError, match=r"no .*weights/test_resnet\.safetensors"):
        train.main()
    (folder / "weights").mkdir()
    save_file({"weight": torch.zeros(1)}, folder / "weights/test_resnet.safetensors")
    with pytest.raises(InputError, match=r"do not fit test_resnet .* tensors are missing or unknown"):
        train.main()
    assert not (folder / "data/models").exists()


def test_files_that_do_not_belong_together_are_reported(folder: Path) -> None:
    split = pd.read_csv(folder / "data/split.csv")
    split.iloc[::-1].to_csv(folder / "data/split.csv", index=False)
    with pytest.raises(InputError, match=r"split\.csv does not match data/sample\.csv"):
        train.main()
    split.assign(split=split["split"].replace("val", "train")).to_csv(folder / "data/split.csv", index=False)
    with pytest.raises(InputError, match="val has no images"):
        train.main()
    (folder / "data/images.npy").unlink()
    with pytest.raises(FileNotFoundError):
        train.main()
