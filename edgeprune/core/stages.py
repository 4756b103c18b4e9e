"""What each stage of the line does, in words."""

STEPS = {
    "trace": "build the model, find channels that live and die together",
    "profile": "measure its layers and some whole variants on the board",
    "score": "measure how the loss rises as each group is narrowed",
    "plan": "choose the widths within the budget, proven",
    "fit": "measure the cut net untrained, plan again if it misses the budget",
    "prune": "cut the channels, prove the cut",
    "recover": "fine-tune with distillation from the original",
    "export": "ONNX and TFLite, fp32 and int8, each checked",
    "measure": "push, measure latency and quality on the board",
    "confirm": "measure what ships again beside the unpruned file, in fresh processes",
    "gate": "judge by the gates",
    "report": "report.json, report.html, gates.junit.xml, gates.md",
}
"""What each stage does, in the order of the line."""
