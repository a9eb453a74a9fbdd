"""Studies of models whose answers are known, without run folders."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

import uiat
from support import tiny
from uiat import Run
from uiat.analyse.study import Context, StudyOptions, StudyRun


@dataclass
class Known(Context):
    """A context whose models and images are given, models by the labels of the runs."""

    models: dict[str, nn.Module] = field(default_factory=dict)
    data: tuple = ()

    def load_model(self, run, which=None):
        return self.models[run.label].eval()

    def load_images(self, run, split="test"):
        self.sizes[split] = len(self.data[0])
        return self.data


def known(models, x, y, *, epsilon=0.1, **options):
    """Return a context of models by their labels, all of them on the same images."""
    runs = [StudyRun(name, Path(name), Run()) for name in models]
    options = StudyOptions(threat=f"Linf:{epsilon}", **{"attack": "pgd-5", **options})
    return Known(runs, options, models=models, data=(x, y))


class Always(nn.Module):
    """The same logits for every image, through a gradient of zero."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, x):
        return self.logits + 0 * x.flatten(1).sum(dim=1, keepdim=True)


class Centre(nn.Module):
    """Two classes, told apart by the middle pixels alone."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(4.0))

    def forward(self, x):
        score = self.scale * (x[:, :, 2:6, 2:6].mean(dim=(1, 2, 3)) - 0.5)
        return torch.stack([-score, score], dim=1)


def write_history(folder, rows, **settings):
    """Write a run folder of settings and metrics alone."""
    folder.mkdir()
    (folder / "config.yaml").write_text(uiat.dump(tiny.run(**settings)))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
