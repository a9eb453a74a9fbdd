"""Data of every study as its JSON file holds them, with names that are long and numbers that are made up."""

RADII = [i / 255 for i in range(0, 17, 2)]
ROW = {"n": 100, "clean": [0.8, 0.82], "robust": [0.45, 0.5], "seeds": [0, 1]}
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def names(count):
    """Return names of runs that are told apart by their end alone, longer than a column of a paper."""
    settings = "digits-uiat,optimisation.epochs=40,objective.inverse.radius=0.1,objective.momentum=class"
    return [f"{settings},seed={i}" for i in range(count)]


def gallery(classes, runs):
    """Data of inverse-gallery for so many classes; the numbers are those of a chessboard."""
    labels = CLASSES if classes == 10 else [f"aquarium_fish_{c}" for c in range(classes)]
    board = [[(-1.0) ** (i + j) / 3 for j in range(classes)] for i in range(classes)]
    run = {"shift": board}
    data = {"classes": labels, "from": runs[0], "norm": "Linf", "radius": 4 / 255, "shape": [classes, 3, 8, 8]}
    pictures = [[[0.01] * 8] * 24] * min(classes, 20)
    return data | {"cosine": board, "pictures": pictures, "runs": dict.fromkeys(runs, run)}


def make_data(study, count):
    """Return data of a study of so many runs."""
    runs, over_n = names(count), {"norm": "Linf", "epsilon": 8 / 255}
    curve = {"n": 100, "accuracy": [0.9 - 0.1 * i for i in range(9)]}
    each = dict.fromkeys
    sides = {"train": 0.6, "held-out": 0.4}
    weights = [
        {"epoch": e, "weights": [w], "mean": 0.81, "deviation": 0.2, **sides} for e, w in ((3, "best"), (4, "last"))
    ]
    history = {
        "epochs": [1, 2, 3, 4],
        "train_by_epoch": [0.2, 0.3, 0.4, 0.5],
        "held_out_by_epoch": [0.2, 0.3, 0.35, None],
    }
    history |= {"best_by_epoch": [3, 0.35], "held_out": 150, "n": 100, "weights": weights}
    marks = {kind: {"centre": 0.3, "error": 0.01} for kind in ("natural", "adversarial", "inverse")}
    went = {kind: {"is_wrong": 0.5, "is_true": 0.3} for kind in ("natural", "adversarial", "inverse")}
    surface = [[1.0 + 0.1 * (i + j) for j in range(11)] for i in range(11)]
    lines = {"adversarial": [0.2 * (i + 1) for i in range(13)], "random": [1.0] * 13, "surface": surface}
    tried = {"clean": 0.9, "all": 0.8, "class": 0.7, "robust": 0.5, "adversarial": [[[0.1] * 8] * 8] * 10}
    one_off = [
        {"epoch": e, "epochs": 10, "n": 100, "clean": 0.9, "robust": 0.5, "passes": 20.0} for e in (1, 5, "never")
    ]
    columns = ["clean", "Linf 0.1", "Linf 0.2", "L2 0.46", "patch-2", "spatial", "corruptions"]
    between = {"from": runs[0], "to": runs[-1], "rows": [ROW | {"alpha": a} for a in (0.25, 0.75)]}
    groups = {"groups": {run: [run] for run in runs}, "n": {"test": 100}}
    return {
        "ablation": {"base": runs[0], "rows": each(runs, ROW)},
        "alignment": {"runs": each(runs, {"n": 100, "weights": weights, "recorded": [], "ended": 4})},
        "attention": {
            "area": 0.25,
            "runs": each(runs, marks | {"robust_train": 0.5, "robust_test": 0.4, "n_robust": 100}),
        },
        "confidence-gap": {"strengths": RADII, **over_n, "runs": each(runs, {"low": curve, "high": curve})},
        "cost": {"rows": [{"run": run, "passes": 20.0, "seconds": 9.0, "worst": 0.5, "n": 100} for run in runs]},
        "inverse-gallery": gallery(10, runs),
        "landscape": {
            "steps": [i / 4 for i in range(-4, 9)],
            "grid": [i / 5 - 1 for i in range(11)],
            "runs": each(runs, lines),
        },
        "misaligned": {"runs": each(runs, went | {"misclassified": 31})},
        "one-off": {"rows": one_off},
        "overfitting": {"attack": "pgd-10", "runs": each(runs, history)},
        "strength": {"strengths": RADII, **over_n, "runs": each(runs, curve)},
        "tradeoff": {
            "rows": {run: ROW | {"runs": [run], "clean": [0.7 + 0.02 * i] * 2} for i, run in enumerate(runs)},
            "front": runs[:1],
            "between": between,
        },
        "universal": groups
        | {"runs": each(runs, tried), "classes": CLASSES, "channels": 1, "transfer": each(runs, each(runs, 0.5))},
        "unseen": groups | {"columns": columns, "trained": "Linf 0.2", "runs": each(runs, each(columns, 0.5))},
    }[study]
