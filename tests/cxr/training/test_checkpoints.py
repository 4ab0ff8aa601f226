import os
import time
from pathlib import Path
from threading import Event

import pytest
import torch

from cxr.core.errors import InputError
from cxr.models.members import Member
from cxr.training import checkpoints
from cxr.training.checkpoints import BackgroundWriter, copy_state


def test_a_second_training_is_refused_and_the_first_is_named(tmp_path: Path) -> None:
    with checkpoints.training_lock(tmp_path), pytest.raises(InputError, match=f"process {os.getpid()}"):  # noqa: SIM117
        with checkpoints.training_lock(tmp_path):
            pass
    with checkpoints.training_lock(tmp_path):
        pass


def test_a_member_has_another_folder_as_soon_as_anything_changes(tmp_path: Path) -> None:
    member = Member("net", 1)
    first = checkpoints.create_folder(tmp_path, member, {"lr": 0.1, "code": {"a": "b"}})
    assert checkpoints.create_folder(tmp_path, member, {"code": {"a": "b"}, "lr": 0.1}) == first
    assert checkpoints.create_folder(tmp_path, member, {"lr": 0.2, "code": {"a": "b"}}) != first
    assert checkpoints.create_folder(tmp_path, member, {"lr": 0.1, "code": {"a": "c"}}) != first


def test_the_last_state_is_restored_to_the_bit(tmp_path: Path) -> None:
    assert checkpoints.load_last(tmp_path) is None
    state = {"weights": {"a": torch.rand(5)}, "curve": [{"epoch": 1, "lr": 0.1}], "best_auroc": 0.123456789012345}
    checkpoints.save_last(state, tmp_path)
    loaded = checkpoints.load_last(tmp_path)
    assert loaded is not None
    assert torch.equal(loaded["weights"]["a"], state["weights"]["a"])  # type: ignore[index]
    assert loaded["curve"] == state["curve"]
    assert loaded["best_auroc"] == state["best_auroc"]


@pytest.mark.parametrize("content", [b"", b"broken", b"PK\x03\x04 half a file"])
def test_training_starts_again_with_a_warning_if_the_state_is_unreadable(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / checkpoints.LAST).write_bytes(content)
    assert checkpoints.load_last(tmp_path) is None
    assert "starts again from the first epoch" in capsys.readouterr().err


def test_unused_folders_are_removed(tmp_path: Path) -> None:
    kept, dropped = (checkpoints.create_folder(tmp_path, Member("net", seed), {}) for seed in (1, 2))
    with checkpoints.training_lock(tmp_path):
        checkpoints.remove_unused([kept], tmp_path)
    assert kept.is_dir()
    assert not dropped.exists()
    assert (tmp_path / ".lock").is_file()


def test_folders_with_unpublished_work_are_kept_up_to_a_limit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "MAX_UNPUBLISHED", 2)
    folders = [checkpoints.create_folder(tmp_path, Member("net", seed), {"seed": seed}) for seed in range(5)]
    used, published, oldest, unfinished, finished = folders
    for age, folder in enumerate((finished, unfinished, oldest)):
        (folder / (checkpoints.MODEL if folder == finished else checkpoints.LAST)).touch()
        os.utime(folder, (1_000_000 - age, 1_000_000 - age))
    (published / checkpoints.MODEL).touch()
    (published / checkpoints.PUBLISHED).touch()
    checkpoints.remove_unused([used], tmp_path)
    assert set(tmp_path.iterdir()) == {used, unfinished, finished}
    out = capsys.readouterr().out
    assert out.startswith(f"removed {oldest}: ")
    assert out.count("\n") == 1
    checkpoints.remove_unused([finished], tmp_path)
    checkpoints.remove_unused([unfinished], tmp_path)
    assert set(tmp_path.iterdir()) == {unfinished}, "the others are published"


def test_the_curve_is_rewritten_from_the_state(tmp_path: Path) -> None:
    curve = [{"epoch": 1, "lr": 0.1 + 0.2}, {"epoch": 2, "lr": 1e-7}]
    checkpoints.save_curve(curve, tmp_path)
    read = checkpoints.read_curve(tmp_path)
    assert read is not None
    assert read.to_dict("list") == {"epoch": ["1", "2"], "lr": ["0.30000000000000004", "1e-07"]}
    checkpoints.save_curve([], tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"\xff", b"epoch,lr\n", b"lr\n1\n", b"epoch,lr\n1,0\n3,0\n", b'epoch\n"1'])
def test_a_broken_curve_is_none(tmp_path: Path, content: bytes) -> None:
    assert checkpoints.read_curve(tmp_path) is None
    (tmp_path / checkpoints.CURVE).write_bytes(content)
    assert checkpoints.read_curve(tmp_path) is None


def test_a_full_disk_is_reported_and_the_last_state_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints.save_last({"epoch": 1}, tmp_path)

    def full(state: object, file: object) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:672] unexpected pos 64 vs 0")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(InputError, match=r"cannot write .*last\.pt; is the disk full\?"):
        checkpoints.save_last({"epoch": 2}, tmp_path)
    assert checkpoints.load_last(tmp_path) == {"epoch": 1}
    assert [path.name for path in tmp_path.iterdir()] == [checkpoints.LAST]


def test_the_background_writer_runs_one_function_at_a_time_and_raises_its_error() -> None:
    written: list[int] = []
    may_write = Event()

    def write(number: int) -> None:
        assert may_write.wait(10)
        written.append(number)
        if number == 2:
            raise InputError("the disk is full")

    with BackgroundWriter() as writer:
        writer.start(write, 1)
        assert written == []
        may_write.set()
        writer.start(write, 2)
        assert written[0] == 1
        with pytest.raises(InputError, match="the disk is full"):
            writer.start(write, 3)
    assert written == [1, 2]


def test_the_last_write_ends_before_an_exception_leaves_the_block() -> None:
    written: list[int] = []

    def write_slowly() -> None:
        time.sleep(0.05)
        written.append(1)

    def interrupt() -> None:
        with BackgroundWriter() as writer:
            writer.start(write_slowly)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert written == [1]


def test_the_copy_of_a_state_does_not_change_with_it(tmp_path: Path) -> None:
    torch.manual_seed(1)
    module = torch.nn.BatchNorm2d(2).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    state = {"model": module.state_dict(), "curve": [{"epoch": 1}], "steps": 3}
    copied, names = copy_state(state), list(module.state_dict())
    with torch.no_grad():
        module.weight.add_(1)
    state["curve"].append({"epoch": 2})
    assert list(copied["model"]) == names
    assert torch.equal(copied["model"]["weight"], torch.ones(2))
    assert (copied["curve"], copied["steps"]) == ([{"epoch": 1}], 3)
    checkpoints.save_last(copied, tmp_path)
    loaded = checkpoints.load_last(tmp_path)
    assert loaded is not None
    module.load_state_dict(loaded["model"])
    assert torch.equal(module.weight, torch.ones(2))
