"""Train the baseline of the recipe `motion-cnn` and write its checkpoint and log.

    python benchmarks/train_motion_cnn.py [--epochs 40]

The training loop is the one that recovers pruned nets, without a teacher. The last epoch is kept: the two people of
the evaluation choose nothing.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace

import torch
from safetensors.torch import save_file

from edgeprune.graph.trace import trace_model
from edgeprune.pruning.recalibrate import evaluate
from edgeprune.pruning.recover import recover
from edgeprune.recipes import motion_cnn
from edgeprune.recipes.load import Finetune, load_recipe
from edgeprune.recipes.networks import MotionCNN


def main() -> None:
    """Train, log, save."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    settings = Finetune(epochs=arguments.epochs, learning_rate=0.1, distillation=0.0)
    recipe = replace(load_recipe("motion-cnn"), finetune=settings)
    lines = [json.dumps({"network": "MotionCNN", "torch": torch.__version__, **asdict(settings)})]

    def note(line: str) -> None:
        print(line, flush=True)
        lines.append(json.dumps({"progress": line}))

    net = recover(trace_model(MotionCNN(), recipe.example_input()), None, recipe, note).program
    accuracy = evaluate(net, recipe.eval_data(), recipe.metric)
    lines.append(json.dumps({"test_accuracy_percent": round(accuracy, 2)}))
    print(lines[-1])
    state = {name: value.contiguous() for name, value in net.state_dict().items() if name in MotionCNN().state_dict()}
    save_file(state, motion_cnn.CHECKPOINT)
    motion_cnn.CHECKPOINT.with_suffix(".log").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
