"""The description of one image to render, and its random numbers."""

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.random import Generator
from tqdm import tqdm

Result = TypeVar("Result")

# Independent streams of random numbers: the first number of each key.
ANATOMY, EXPOSURE, LESION, HISTORY, REPORT = range(5)


def stream_of(stream: int, seed: int, *key: int) -> Generator:
    """Return a generator that depends on these integers only.

    NumPy pads short keys with zeros, so a trailing 0 in `key` has no effect.
    """
    return np.random.default_rng([stream, seed, *key])


@dataclass(frozen=True)
class Exam:
    """One image to render, of one patient."""

    seed: int
    patient: int
    number: int  # index of the image of this patient
    age: int  # years
    sex: str  # M or F
    view: str  # view position: PA, or AP (at the bedside)
    strengths: Mapping[str, float] = field(default_factory=dict)  # of each finding, in (0, 1]; near 0 it is invisible

    def random(self, stream: int, *key: int) -> Generator:
        """Return a generator that depends on the seed, the patient and `key`, but not on the image."""
        return stream_of(stream, self.seed, self.patient, *key)


def map_exams(work: Callable[[Exam], Result], exams: list[Exam]) -> list[Result]:
    """Return `work(exam)` for each exam, computed by a process on each core; `work` must be picklable."""
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        # disable=None: show the bar only if standard error is a terminal.
        return list(tqdm(pool.map(work, exams, chunksize=16), "render", len(exams), disable=None, unit=" images"))
