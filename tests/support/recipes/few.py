"""The net of `tiny`, judged on fewer rows: for boards where every row is a process of its own."""

from tiny import _digits, calibration_data, finetune, labels, model, preprocessing, train_data

from edgeprune.recipes.data import Batches

__all__ = ["calibration_data", "finetune", "labels", "model", "preprocessing", "train_data"]


def eval_data() -> Batches:
    images, labels = _digits()
    return Batches(images[1200:1280], labels[1200:1280], 80)
