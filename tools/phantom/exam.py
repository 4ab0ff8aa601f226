"""What one image is drawn from: the exam, and the random numbers that belong to it."""

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.random import Generator
from tqdm import tqdm

Result = TypeVar("Result")

# Streams of random numbers; the first number of each key keeps them apart.
ANATOMY, EXPOSURE, LESION, HISTORY, REPORT = range(5)


def stream_of(stream: int, seed: int, *key: int) -> Generator:
    """Random numbers that depend on these integers alone, never on what was drawn before.

    NumPy pads short keys with zeros, so a last 0 in `key` gives the same numbers as none.
    """
    return np.random.default_rng([stream, seed, *key])


@dataclass(frozen=True)
class Exam:
    """One image to draw."""

    seed: int
    patient: int
    number: int  # of the image among the patient's, from 0
    age: int  # years
    sex: str  # M or F
    view: str  # PA, or AP: taken at the bedside
    strengths: Mapping[str, float] = field(default_factory=dict)  # of each positive, in (0, 1]; near 0 it is unseen

    def random(self, stream: int, *key: int) -> Generator:
        """Random numbers that depend on the seed, the patient and `key`, not on which image it is."""
        return stream_of(stream, self.seed, self.patient, *key)


def map_exams(work: Callable[[Exam], Result], exams: list[Exam]) -> list[Result]:
    """What `work`, a function that can be pickled, makes of each exam, on all cores."""
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        # disable=None: a bar where a terminal watches, nothing where none does.
        return list(tqdm(pool.map(work, exams, chunksize=16), "draw", len(exams), disable=None, unit=" images"))
