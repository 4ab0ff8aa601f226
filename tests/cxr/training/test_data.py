from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cxr.core.errors import InputError
from cxr.core.labels import CLASSES, UNKNOWN
from cxr.training.data import label_tensor, load_training_data, untrained_classes
from tests.fixtures.planted import SIDE, write_planted

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_planted(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_train_and_val_have_their_images_labels_and_patients(folder: Path) -> None:
    data = load_training_data(CPU)
    split, images = pd.read_csv("data/split.csv"), np.load("data/images.npy")
    labels = pd.read_csv("data/sample.csv")[list(CLASSES)].to_numpy()
    for name, part in (("train", data.train), ("val", data.val)):
        rows = np.flatnonzero(split["split"] == name)
        loaded = next(part.images.batches([np.arange(len(rows))]))
        assert np.array_equal((loaded.squeeze(1) * 255).round().numpy(), images[rows])
        assert np.array_equal(part.labels.numpy(), labels[rows])
    assert data.image_size == SIDE
    assert data.patients == sorted(set(split.loc[split["split"] != "test", "patient"]))


def test_val_must_have_both_values_of_some_class(folder: Path) -> None:
    split, sample = pd.read_csv("data/split.csv"), pd.read_csv("data/sample.csv")
    sample.loc[split["split"] == "val", list(CLASSES)] = 0
    sample.to_csv("data/sample.csv", index=False)
    with pytest.raises(InputError, match="no class has both positives and negatives in val"):
        load_training_data(CPU)


def test_files_of_another_sample_are_refused(folder: Path) -> None:
    split, sample = pd.read_csv("data/split.csv"), pd.read_csv("data/sample.csv")
    for table, name in ((split, "split"), (sample, "sample")):
        table[::-1].to_csv(f"data/{name}.csv", index=False)
    with pytest.raises(InputError, match=r"images\.npy and data/images\.json do not belong to the 240 images"):
        load_training_data(CPU)
    sample.to_csv("data/sample.csv", index=False)
    for value, message in (("tst", "invalid split 'tst'"), ("val", "1 patients are in more than one split: 0;")):
        changed = split.copy()
        changed.loc[1, "split"] = value
        changed.to_csv("data/split.csv", index=False)
        with pytest.raises(InputError, match=rf"data/split\.csv: {message}"):
            load_training_data(CPU)


def test_classes_without_known_labels_are_listed() -> None:
    labels = np.zeros((3, len(CLASSES)), np.uint8)
    labels[:, 4] = UNKNOWN
    labels[1:, 5] = UNKNOWN
    assert untrained_classes(label_tensor(labels, CPU)) == [CLASSES[4]]
