"""Run folders as training and evaluation leave them, and answers of a model, without having run anything."""

import json

import torch
import yaml

from uiat.report import Sample, Samples, read_all, write_report
from uiat.report.groups import group_runs
from uiat.system.atomic_files import write_json
from uiat.system.manifest import start_manifest
from uiat.system.tensor_files import write_tensors

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
ACCURACY = {"clean": 0.82, "autoattack": 0.485, "worst": 0.485}


def write_run(
    path,
    *,
    name="cifar10-resnet18-pgd-at",
    seed=0,
    objective=None,
    data="cifar10",
    threat="Linf:0.03137255",
    accuracy=None,
    n=10_000,
    epochs=4,
    inverse=False,
    sweep=False,
    verdict="nothing speaks against the number",
    **more,
):
    """Write a run folder and return its path."""
    path.mkdir(parents=True)
    config = {
        "name": name,
        "seed": seed,
        "data": {"name": data, "root": str(path), "subset": None},
        "model": {"name": "resnet18", "width": None},
        "objective": objective or {"name": "pgd-at", "attack": {"steps": 10, "start": "uniform"}},
        "optimisation": {"epochs": epochs, "awp": 0.0},
        "evaluation": {"attacks": ["clean", "autoattack"]},
    }
    write_settings(path, {**config, **more})
    rows = [
        {
            **{"epoch": e, "learning_rate": 0.1, "train_adv_ce": 2.0 - e / 10, "train_correct": 0.2 + e / 20},
            **{"seconds": 10.0, "clean": 0.5 + e / 20, "robust": 0.3 + (e + seed) / 40, "validation_seconds": 1.0},
            "alarms": [],
        }
        for e in range(epochs)
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_json(path / "environment.json", {"torch": "2.14.1", "processor": "AMD EPYC", "device_names": []})
    if inverse:
        write_tensors(path / "inverse.safetensors", {"z": torch.rand(10, 3, 8, 8) - 0.5}, {"threat": "Linf:0.5"})
    if accuracy is not None:
        strengths = [-0.015686, 0.0, 0.015686, 0.031373]
        result = {
            **{"run": name, "which": "best", "data": data, "split": "test", "threat": threat, "n": n, "seed": 0},
            **{"accuracy": accuracy, "seconds": dict.fromkeys(accuracy, 2.0), "verdict": verdict},
            "intervals": {key: [value - 0.01, value + 0.01] for key, value in accuracy.items()},
            "per_class": {key: [max(0.0, value - i / 50) for i in range(10)] for key, value in accuracy.items()},
        }
        record = {"norm": "Linf", "attack": "pgd-20", "epsilons": strengths, "accuracy": [0.9, 0.8, 0.6, 0.4]}
        write_json(path / "evaluation.json", result | ({"sweep": record} if sweep else {}))
    return path


def write_settings(path, config):
    """Write the config.yaml of a run folder, of any settings, and the manifest by which they are known."""
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    start_manifest(path, [], settings=config)


def as_version_1(run):
    """Make of a run folder one as version 0.1 left it: no manifest, no format, no sums in its evaluations."""
    (run / "manifest.json").unlink()
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.removeprefix("format: 2\n"))
    for path in run.glob("evaluation*.json"):
        record = json.loads(path.read_text())
        write_json(path, {key: record[key] for key in record if key not in ("format", "sha256", "sums", "files")})
    return run


def make_samples(path):
    """Return answers of the model of a run folder: three images, and a confusion matrix of 31 a class."""
    x = torch.rand(3, 8, 8)
    images = {"natural": x, "adversarial": (x + 0.03).clamp(0, 1), "inverse": (x - 0.01).clamp(0, 1)}
    said = {"natural": (3, 0.9), "adversarial": (5, 0.6), "inverse": (3, 0.99)}
    shown = [Sample(index=i, label=3, images=images, predicted=said) for i in range(3)]
    confusion = [[22 if i == j else 1 for j in range(10)] for i in range(10)]
    return {path: Samples(CLASSES, "PGD-20", "the universal perturbation", shown, confusion)}


def groups_of(folders):
    """Read run folders and group them."""
    return group_runs(read_all(folders))


def pages(folders, out, **options):
    """Write a report and return its HTML and its Markdown."""
    html, text = write_report(folders, out, **options)
    return html.read_text(), text.read_text()
