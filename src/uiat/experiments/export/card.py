"""The model card of an exported run, in the Hub's layout: what was trained, how it was attacked, what is not known."""

import json
from collections.abc import Mapping
from typing import Any

from uiat.experiments.export.bundle import Bundle
from uiat.experiments.export.formats import describe_use
from uiat.formatting import percent, threat_text
from uiat.markup import markdown_code, markdown_text
from uiat.runs.reader import training_seconds
from uiat.system.extras import from_extra

TASK = "image-classification"
_METHOD_NAMES = {"uiat": "Universal Inverse Adversarial Training (Dong et al., CVPR 2023)"}


def make_card(bundle: Bundle) -> str:
    """Return README.md: metadata that the Hub reads, and the text.

    Raises:
        UserError: huggingface_hub is not installed.
    """
    with from_extra("export", "a model card"):
        from huggingface_hub import ModelCard, ModelCardData
    results = _evaluation_results(bundle)
    data = ModelCardData(
        model_name=bundle.name,
        library_name="pytorch",
        tags=["adversarial-training", "robustness", "image-classification", "uiat"],
        datasets=[bundle.files.setting("data.name")],
        metrics=["accuracy"] if results else None,
        eval_results=results or None,
    )
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{_text(bundle)}"))


def _evaluation_results(bundle: Bundle) -> list[Any]:
    from huggingface_hub import EvalResult

    evaluation = bundle.files.evaluation or {}
    accuracy, name = evaluation.get("accuracy", {}), str(evaluation.get("data", bundle.files.setting("data.name")))
    threat = threat_text(str(evaluation["threat"])) if evaluation else ""
    return [
        EvalResult(
            task_type=TASK,
            dataset_type=name,
            dataset_name=name,
            dataset_split="test",
            metric_type="accuracy",
            metric_name="accuracy" if attack == "clean" else f"robust accuracy, {attack}, {threat}",
            metric_value=round(100 * value, 2),
        )
        for attack, value in accuracy.items()
    ]


def _text(bundle: Bundle) -> str:
    method = str(bundle.files.setting("objective.name"))
    method = _METHOD_NAMES.get(method, markdown_code(method))
    parts = [
        f"# {markdown_code(bundle.name)}",
        f"An image classifier trained to stay right under attack, by {method}.",
        _training(bundle),
        _accuracy(bundle.files.evaluation),
        _limits(bundle),
        "## How to load it\n\nImages are floats (B, C, H, W) in [0, 1]; the model normalises them itself.\n\n"
        f"```python\n{describe_use('hf', bundle.model)}\n```",
        f"## Settings\n\n```json\n{json.dumps(bundle.to_json(), indent=2)}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _training(bundle: Bundle) -> str:
    setting, environment = bundle.files.setting, bundle.files.environment
    device = ", ".join(map(str, environment.get("device_names") or [environment.get("processor", "an unknown device")]))
    threat = threat_text(bundle.threat) if bundle.threat else "none: standard training"
    rows = {
        "data": f"{markdown_text(setting('data.name'))}, {setting('data.subset') or 'all'} training images",
        "architecture": markdown_text(setting("model.name")),
        "threat model": threat,
        "epochs": f"{len(bundle.files.history)} of {setting('optimisation.epochs')}, {bundle.which} weights",
        "seed": setting("seed"),
        "time": f"{training_seconds(bundle.files.history):.0f} s on {markdown_text(device)}",
    }
    lines = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"## Training\n\n| | |\n|---|---|\n{lines}"


def _accuracy(evaluation: Mapping[str, Any] | None) -> str:
    head = "## Accuracy"
    if evaluation is None:
        return f"{head}\n\nNot evaluated yet."
    intervals = evaluation.get("intervals", {})
    rows = []
    for attack, value in evaluation["accuracy"].items():
        low, high = intervals.get(attack, (None, None))
        rows.append(f"| {markdown_text(attack)} | {percent(value)} | {percent(low)} to {percent(high)} |")
    verdict = str(evaluation.get("verdict") or "not checked")
    return (
        f'{head}\n\nOn {evaluation["n"]:,} test images, threat model {threat_text(str(evaluation["threat"]))}; "worst" '
        "counts an image as right only if it is robust to every attack.\n\n"
        "| attack | accuracy | 95 % interval |\n|---|---|---|\n"
        + "\n".join(rows)
        + f"\n\nSelf-checks: {markdown_text(verdict)}."
    )


def _limits(bundle: Bundle) -> str:
    threat = threat_text(bundle.threat) if bundle.threat else "any threat model"
    return (
        "## Limits\n\n"
        f"- Robust accuracy is an upper bound: a stronger attack may break more. It was measured, not certified.\n"
        f"- It holds for {threat} alone: not for larger perturbations, other norms, or other kinds of images.\n"
        "- Trained for research on adversarial robustness; not for use where a wrong answer does harm."
    )
