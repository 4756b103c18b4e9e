"""Sensitivity, recalibration, evaluation and recovery on a tiny net."""

from dataclasses import replace
from itertools import count, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from prune_nets import TinyResidual, stripes, tiny_evidence, tiny_recipe
from torch import nn
from torch.fx import GraphModule

from edgeprune.errors import EdgepruneError, RunError
from edgeprune.graph.surgery import apply_plan
from edgeprune.graph.trace import trace_model
from edgeprune.pruning import recover as recover_module
from edgeprune.pruning.evidence import Evidence
from edgeprune.pruning.held_out import hold_out
from edgeprune.pruning.importance import score_channels
from edgeprune.pruning.lesson import prepare_lesson
from edgeprune.pruning.recalibrate import evaluate, mean_loss, recalibrate_, recalibrate_if_better
from edgeprune.pruning.recover import Course, breaks_channels_last, learning_rate, recover, training_loss
from edgeprune.pruning.sensitivity import label_batches, measure_sensitivity, repair, tried_widths
from edgeprune.recipes.load import Finetune, Recipe
from edgeprune.recipes.reading import Data

SHORT = Finetune(epochs=3, learning_rate=0.05)


def silent(_: str) -> None:
    """Progress that nobody reads."""


def traced(seed: int = 0) -> GraphModule:
    torch.manual_seed(seed)
    return trace_model(TinyResidual(), torch.zeros(1, 2, 4, 4))


@given(st.dictionaries(st.integers(1, 64), st.floats(-2, 5), max_size=10))
def test_repaired_rises_fall_with_width_and_are_the_nearest(rises: dict[int, float]) -> None:
    fixed = repair(rises)
    assert fixed.keys() == rises.keys()
    ordered, given_order = ([one[width] for width in sorted(one)] for one in (fixed, rises))
    assert all(left >= right for left, right in pairwise([*ordered, 0.0]))
    if all(left >= right for left, right in pairwise([*given_order, 0.0])):
        np.testing.assert_allclose(ordered, given_order, atol=1e-12)


def test_sensitivity_tells_a_dead_channel_from_a_live_one() -> None:
    net = TinyResidual()
    with torch.no_grad():
        net.outer.weight[:, :3] = 0  # half of the inner channels are read by nobody
        net.outer.weight *= 3
    made = tiny_evidence(model=net)
    judge = apply_plan(made.program, made.analysis, {})
    recalibrate_(judge, made.batches[:1])
    answers = tuple((inputs, judge(inputs).detach()) for inputs, _ in made.batches)
    evidence = Evidence(made.program, made.analysis, answers, nn.functional.mse_loss)
    before = {name: value.clone() for name, value in evidence.tensors.items()}
    scores = score_channels("fisher", made)
    lines: list[str] = []
    rises = measure_sensitivity(evidence, scores, {"inner": (1, 3, 6), "stem": (4, 8)}, lambda _: False, lines.append)
    assert rises["inner"][6] == rises["stem"][8] == 0.0
    assert rises["inner"][3] < 1e-6 < rises["stem"][4]
    assert rises["inner"][1] >= rises["inner"][3]
    assert len(lines) == 2
    for name, value in evidence.tensors.items():
        assert torch.equal(value, before[name])


def test_a_lesson_lets_a_cut_net_learn_back_and_leaves_the_original_alone() -> None:
    evidence = tiny_evidence()
    before = {name: value.clone() for name, value in evidence.tensors.items()}
    lesson = prepare_lesson(evidence.program, tiny_recipe(Finetune(learning_rate=0.05)), nets=1)
    assert lesson.steps == len(lesson.exercises) == 48  # six batches of data, taken again and again
    widths = {"inner": (1, 6), "inner:branch": (0, 1)}
    scores = score_channels("l2", evidence)
    raw = measure_sensitivity(evidence, scores, widths, lambda _: False, lambda _: None)
    taught = measure_sensitivity(evidence, scores, widths, lesson.give_, lambda _: None)
    cut = apply_plan(evidence.program, evidence.analysis, {"inner:branch": ()})
    untrained = mean_loss(cut, evidence.batches, evidence.loss)
    lesson.give_(cut)
    assert mean_loss(cut, evidence.batches, evidence.loss) < untrained
    assert taught["inner:branch"][1] == raw["inner:branch"][1] == 0.0
    assert all(torch.equal(value, before[name]) for name, value in evidence.tensors.items())


def test_a_lesson_that_does_harm_is_not_counted() -> None:
    evidence = tiny_evidence()
    scores = score_channels("l2", evidence)
    widths = {"inner": (2, 4, 6)}

    def ruin_(program: GraphModule) -> bool:
        with torch.no_grad():
            program.get_parameter("classifier.weight").mul_(-100)
        return True

    raw = measure_sensitivity(evidence, scores, widths, lambda _: False, silent)
    assert measure_sensitivity(evidence, scores, widths, ruin_, silent) == raw


def test_without_time_there_is_no_lesson(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeprune.pruning.lesson.SECONDS", 0.0)
    program = traced()
    weights = {name: value.clone() for name, value in program.named_parameters()}
    lesson = prepare_lesson(program, tiny_recipe(Finetune()), nets=10)
    lesson.give_(program)
    assert lesson.steps == 0
    assert all(torch.equal(value, weights[name]) for name, value in program.named_parameters())


def test_a_few_widths_of_many_are_tried_the_narrowest_and_widest_among_them() -> None:
    assert tried_widths(tuple(range(4, 65, 4)), 64) == [4, 20, 32, 44, 60]
    assert tried_widths((0, 1), 1) == [0]
    assert tried_widths((1,), 1) == []


def test_missing_targets_become_the_nets_own_answers() -> None:
    evidence = tiny_evidence()
    images = stripes(24)[0]
    batches = label_batches(evidence.program, [(images, None)] * 4, least=40)
    assert len(batches) == 2
    torch.testing.assert_close(batches[0][1], evidence.program(images).softmax(1))
    entropy = mean_loss(evidence.program, batches, nn.functional.cross_entropy)
    other = apply_plan(evidence.program, evidence.analysis, {"stem": (0, 1)})
    assert mean_loss(other, batches, nn.functional.cross_entropy) > entropy
    with pytest.raises(EdgepruneError, match="empty"):
        label_batches(evidence.program, [])


def test_recalibration_finds_the_statistics_of_all_batches() -> None:
    program = trace_model(nn.Sequential(nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4)), torch.zeros(1, 2, 4, 4))
    batches = [stripes(50, seed) for seed in range(4)]
    recalibrate_(program, batches)
    named = dict(program.named_buffers()) | dict(program.named_parameters())
    maps = nn.functional.conv2d(torch.cat([one for one, _ in batches]), named["0.weight"], named["0.bias"])
    torch.testing.assert_close(named["1.running_mean"], maps.mean((0, 2, 3)))
    within = torch.stack([nn.functional.conv2d(one, named["0.weight"]).var((0, 2, 3)) for one, _ in batches]).mean(0)
    torch.testing.assert_close(named["1.running_var"], within)


def test_evaluation_judges_all_batches_together() -> None:
    program = traced()
    images, labels = stripes(70)
    parts = list(zip(images.split(32), labels.split(32), strict=True))
    whole = evaluate(program, [(images, labels)], lambda outputs, targets: float((outputs.argmax(1) == targets).sum()))
    assert evaluate(program, parts, lambda outputs, targets: float((outputs.argmax(1) == targets).sum())) == whole
    with pytest.raises(EdgepruneError, match="inputs only"):
        evaluate(program, [(images, None)], lambda outputs, targets: 0.0)


def test_recovery_learns_and_leaves_its_input_alone() -> None:
    program = traced()
    before = {name: value.clone() for name, value in program.state_dict().items()}
    recipe = tiny_recipe(Finetune(epochs=8, learning_rate=0.05))
    lines: list[str] = []
    trained = recover(program, None, recipe, lines.append).program
    assert evaluate(trained, recipe.eval_data(), recipe.metric) > 80
    assert len(lines) == 8
    assert "epoch 8 of 8" in lines[-1]
    assert "left" in lines[0]
    for name, value in program.state_dict().items():
        assert torch.equal(value, before[name])
    images = stripes(6, 5)[0]
    torch.testing.assert_close(trained(images)[:1], trained(images[:1]))  # eval mode: no input sees another


def test_a_teacher_is_followed_where_targets_say_nothing() -> None:
    teacher_recipe = tiny_recipe(Finetune(epochs=8, learning_rate=0.05, distillation=0.0))
    teacher = recover(traced(), None, teacher_recipe, silent).program
    images, labels = stripes(192)
    noise = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    batches = list(zip(images.split(32), noise.split(32), strict=True))
    recipe = tiny_recipe(Finetune(epochs=8, learning_rate=0.05, distillation=1.0), batches)
    taught = recover(traced(1), teacher, recipe, silent).program
    assert evaluate(taught, recipe.eval_data(), recipe.metric) > 80


def test_the_distance_to_an_equal_teacher_is_nothing() -> None:
    recipe = tiny_recipe(Finetune(distillation=1.0))
    outputs, targets = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    assert float(training_loss(recipe, outputs, targets, outputs.clone())) == pytest.approx(0, abs=1e-6)
    other = torch.randn(5, 3)
    expected = sum(
        (b := (o / 4).softmax(0)) @ (b.log() - (s / 4).log_softmax(0)) for o, s in zip(other, outputs, strict=True)
    )
    assert float(training_loss(recipe, outputs, targets, other)) == pytest.approx(float(expected) * 16 / 5, rel=1e-4)


@pytest.mark.parametrize("is_judged", [False, True])
def test_an_interrupted_recovery_ends_as_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_judged: bool
) -> None:
    monkeypatch.setattr(recover_module, "choose_mode", lambda *_: recover_module.Mode())
    recipe, checkpoint = spoilt_after(2), tmp_path / "recover.safetensors"
    teacher = traced(7)
    course = Course(checkpoint, held_out=hold_out(recipe, teacher)[0] if is_judged else None)
    whole = recover(traced(), teacher, recipe, silent, replace(course, checkpoint=None))

    def kill(line: str) -> None:
        if "epoch 3" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recover(traced(), teacher, spoilt_after(2), kill, course)
    lines: list[str] = []
    resumed = recover(traced(), teacher, spoilt_after(2, begun=3), lines.append, course)
    assert len(lines) == 1
    assert whole.kept == resumed.kept == (2 if is_judged else 4)
    assert [one.loss for one in resumed.standings] == pytest.approx([one.loss for one in whole.standings], rel=1e-4)
    for name, value in whole.program.state_dict().items():
        torch.testing.assert_close(resumed.program.state_dict()[name], value, rtol=1e-5, atol=1e-6)
    again: list[str] = []
    assert recover(traced(), teacher, recipe, again.append, course).kept == whole.kept
    assert again == []


def spoilt_after(epochs: int, begun: int = 0) -> Recipe:
    """A recipe of four epochs whose data are good at first, and then have every label wrong; `begun` are over."""
    recipe, passes = tiny_recipe(Finetune(epochs=4, learning_rate=0.05, distillation=0.0)), count(begun)

    def train_data() -> Data:
        good = recipe.train_data()
        if next(passes) < epochs:
            return good
        return replace(good, batches=[(inputs, (targets + 1) % 3) for inputs, targets in good.batches])

    return replace(recipe, train_data=train_data)


def test_the_best_state_on_held_out_data_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recover_module, "choose_mode", lambda *_: recover_module.Mode())
    recipe = spoilt_after(2)
    held_out, _ = hold_out(recipe, traced())
    done = recover(traced(), None, recipe, silent, Course(held_out=held_out))
    assert done.kept == 2
    assert len(done.standings) == 5
    assert held_out.judge(done.program).loss == pytest.approx(done.standings[2].loss, rel=1e-5)
    qualities = [one.quality or 0.0 for one in done.standings]
    assert qualities[2] > max(qualities[0], qualities[4]) + 10
    unjudged = recover(traced(), None, spoilt_after(2), silent)
    assert held_out.judge(unjudged.program).quality == pytest.approx(qualities[4], abs=2)


def test_a_training_that_does_harm_leaves_the_net_as_it_was() -> None:
    """A loss that pulls away from what the metric wants: it falls, and the net gets worse."""
    recipe = tiny_recipe(Finetune(epochs=8, learning_rate=0.05))
    good = recover(traced(), None, recipe, silent).program
    wrong = replace(
        recipe, loss=lambda outputs, targets: 100 * nn.functional.mse_loss(outputs, torch.ones_like(outputs))
    )
    held_out = replace(hold_out(recipe, good)[0], loss=wrong.loss)
    done = recover(good, None, wrong, silent, Course(held_out=held_out))
    assert done.kept == 0
    assert done.standings[-1].loss < done.standings[0].loss
    for name, value in good.state_dict().items():
        assert torch.equal(done.program.state_dict()[name], value)


@pytest.mark.parametrize("what", ["torn", "other weights", "not a checkpoint"])
def test_a_checkpoint_of_something_else_is_passed_over(tmp_path: Path, what: str) -> None:
    recipe, checkpoint = tiny_recipe(SHORT), tmp_path / "recover.safetensors"
    recover(traced(5 if what == "other weights" else 0), None, recipe, silent, Course(checkpoint))
    if what == "torn":
        checkpoint.write_bytes(checkpoint.read_bytes()[:500])
    if what == "not a checkpoint":
        checkpoint.write_text("hello")
    lines: list[str] = []
    recover(traced(), None, recipe, lines.append, Course(checkpoint))
    assert len(lines) == 3


def test_a_checkpoint_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    course = Course(tmp_path / "missing" / "recover.safetensors")
    with pytest.raises(RunError, match="cannot be written"):
        recover(traced(), None, tiny_recipe(SHORT), silent, course)


def test_a_loss_that_explodes_says_what_to_change() -> None:
    images, labels = stripes(32)
    recipe = tiny_recipe(SHORT, [(images * float("inf"), labels)])
    with pytest.raises(
        EdgepruneError, match=r"epoch 1: the inputs .*; lower finetune learning_rate in stripes.py \(now 0.05\)"
    ):
        recover(traced(), None, recipe, silent)


def test_no_epochs_give_the_net_as_it_was() -> None:
    program = traced()
    same = recover(program, None, tiny_recipe(Finetune(epochs=0)), silent).program
    torch.testing.assert_close(same(stripes(4)[0]), program(stripes(4)[0]))


def test_the_schedule_warms_up_and_ends_at_zero() -> None:
    rates = [learning_rate(step / 100, 1.0) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[5] == pytest.approx(1.0)
    assert rates[100] == pytest.approx(0.0, abs=1e-9)
    assert rates[5:] == sorted(rates[5:], reverse=True)


@pytest.mark.parametrize(("channels", "stride", "breaks"), [(8, 2, True), (16, 2, False), (8, 1, False)])
def test_layout_that_corrupts_memory_is_not_tried(channels: int, stride: int, breaks: bool) -> None:
    net = nn.Sequential(nn.Conv2d(3, channels, 3), nn.Conv2d(channels, 32, 1, stride), nn.Flatten(), nn.LazyLinear(2))
    net(torch.zeros(2, 3, 8, 8))
    assert breaks_channels_last(trace_model(net, torch.zeros(1, 3, 8, 8))) is breaks


def test_statistics_of_other_inputs_are_replaced_and_good_ones_kept() -> None:
    torch.manual_seed(0)
    evidence = tiny_evidence()
    spoilt = apply_plan(evidence.program, evidence.analysis, {})
    recalibrate_(spoilt, [(inputs * 3 + 1, targets) for inputs, targets in evidence.batches])
    good = apply_plan(evidence.program, evidence.analysis, {})
    recalibrate_(good, evidence.batches)
    answers = [(inputs, good(inputs).detach()) for inputs, _ in evidence.batches]
    mended, changed = recalibrate_if_better(spoilt, answers, nn.functional.mse_loss)
    assert changed
    assert mean_loss(mended, answers, nn.functional.mse_loss) < 0.1 * mean_loss(spoilt, answers, nn.functional.mse_loss)
    same, changed = recalibrate_if_better(good, answers, nn.functional.mse_loss)
    assert same is good
    assert not changed
