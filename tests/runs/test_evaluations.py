"""Evaluations of a folder: damaged ones refused, stale ones passed over, the strongest on most images counts."""

import json

import pytest
import torch

import uiat
from support import tiny
from support.commands import folder_of_images
from uiat import UserError
from uiat.evaluation.record import write_record
from uiat.intervals import wilson
from uiat.runs.evaluation_record import read_record
from uiat.runs.evaluations import choose, find_evaluations, read_evaluation, sum_of_source
from uiat.runs.run_files import find_runs, read_files
from uiat.system.manifest import sum_of
from uiat.system.tensor_files import read_tensors, write_tensors

SUMS = {"weights": "w", "images": "i", "labels": "l"}


def make(verdicts, *, attack="fgsm", threat="Linf:0.2", sums=SUMS, **more):
    """A record whose images are broken by an attack where a letter is x, and misclassified where it is c."""
    broken = [{"x": attack, "c": "clean", "-": ""}[letter] for letter in verdicts]
    n = len(broken)
    accuracy = {"clean": sum(name != "clean" for name in broken) / n, attack: broken.count("") / n}
    accuracy["worst"] = accuracy[attack]
    intervals = {name: wilson(round(value * n), n) for name, value in accuracy.items()}
    record = {"threat": threat, "n": n, "accuracy": accuracy, "broken_by": broken, "intervals": intervals}
    return record | {"seconds": {attack: 1.0}, "sums": sums, "verdict": "", "warnings": [], "seed": 0} | more


def fill(folder, *records):
    """Write records as if one evaluation came after the other."""
    for i, record in enumerate(reversed(records)):
        write_record(folder / (f"evaluation-{len(records) - i}.json" if i else "evaluation.json"), record)
    return folder


def test_a_quick_later_evaluation_is_not_the_result(tmp_path):
    fill(tmp_path, make("xxxx------"), make("x---", sums={}))
    result, notes = choose(tmp_path)
    assert (result["n"], result["accuracy"]["worst"]) == (10, 0.6)
    assert notes[0] == "the result is that of evaluation-1.json: the lowest worst case on most images"
    assert notes[1].startswith("beside it: evaluation.json (4 images")


def test_the_lowest_worst_case_on_as_many_images_counts(tmp_path):
    other = {**SUMS, "images": "other"}
    fill(tmp_path, make("xx--"), make("xxx-", sums=other), make("x---"))
    assert read_evaluation(tmp_path)["accuracy"]["worst"] == 0.25


def test_attacks_on_the_same_images_are_joined_image_by_image(tmp_path):
    fill(tmp_path, make("xx---c"), make("--xx-c", attack="pgd-2"))
    result, notes = choose(tmp_path)
    assert result["broken_by"].count("") == 1
    assert result["accuracy"] == {"clean": 5 / 6, "fgsm": 0.5, "pgd-2": 0.5, "worst": 1 / 6}
    assert result["intervals"]["worst"] == wilson(1, 6)
    assert "joins evaluation.json and evaluation-1.json, of the same 6 images" in notes[0]


def test_an_attack_fitted_on_other_images_is_joined(tmp_path):
    fitted = make("--xx", attack="uap-1", sums={**SUMS, "fitting images": "f"})
    fill(tmp_path, make("xx--"), fitted)
    result = read_evaluation(tmp_path)
    assert result["accuracy"] == {"clean": 1.0, "fgsm": 0.5, "uap-1": 0.5, "worst": 0.0}
    assert result["sums"]["fitting images"] == "f"


def test_an_attack_outside_the_ball_on_more_images_is_no_worst_case(tmp_path):
    outside = make("------", attack="spatial", sums={}, budgets={"spatial": {"attack": "Spatial"}})
    fill(tmp_path, make("xxx-"), outside)
    assert read_evaluation(tmp_path)["accuracy"]["worst"] == 0.25


@pytest.mark.parametrize("change", [{"threat": "Linf:0.1"}, {"sums": {**SUMS, "labels": "m"}}, {"which": "last"}])
def test_nothing_else_is_joined(tmp_path, change):
    fill(tmp_path, make("xx--", which="best"), make("--xx", attack="pgd-2", **{"which": "best", **change}))
    assert set(read_evaluation(tmp_path)["accuracy"]) in ({"clean", "fgsm", "worst"}, {"clean", "pgd-2", "worst"})


def test_an_evaluation_of_other_weights_is_stale(tmp_path):
    run = uiat.train(tiny.run(epochs=1), run_dir=tmp_path / "run").folder
    x, y = (part[:16] for part in uiat.data.tensors("digits", "test"))
    uiat.evaluate(uiat.load(run), x, y, threat=uiat.Linf(0.2), attacks=["fgsm"]).save(run)
    assert read_files(run).evaluation["n"] == 16
    (run / "manifest.json").unlink()
    model = uiat.load(run)
    torch.nn.init.normal_(next(model.parameters()))
    write_tensors(run / "best.safetensors", model.state_dict(), read_tensors(run / "best.safetensors")[1])
    files = read_files(run)
    assert files.evaluation is None
    assert "stale: evaluation.json is of other weights than best.safetensors; it is passed over" in files.notes


def test_an_evaluation_of_code_that_has_changed_is_stale(tmp_path):
    code = tmp_path / "net.py"
    code.write_text("one")
    fill(tmp_path, make("x-", model=f"{code}:net", files={str(code): sum_of_source(str(code))}))
    assert not find_evaluations(tmp_path)[0].stale
    code.write_text("two")
    assert "net.py" in find_evaluations(tmp_path)[0].stale


def test_an_evaluation_of_an_image_folder_with_other_images_is_stale(tmp_path):
    folder_of_images(tmp_path / "images", 2)
    name = f"imagefolder:{tmp_path / 'images'}"
    fill(tmp_path, make("x-", data=name, files={name: sum_of_source(name)}))
    assert not find_evaluations(tmp_path)[0].stale
    image = tmp_path / "images" / "test" / "0" / "a.png"
    image.rename(image.with_name("b.png"))
    assert "than there is now" in find_evaluations(tmp_path)[0].stale


@pytest.mark.parametrize("is_run", [True, False])
@pytest.mark.parametrize("name", ["weights.pth", "other"])
def test_no_file_is_summed_but_what_an_evaluation_is_of(tmp_path, monkeypatch, name, is_run):
    """A record of another person's may list any file of this machine, such as one that is too long to be read."""
    summed = []
    monkeypatch.setattr("uiat.runs.evaluations.sum_of_source", lambda name: summed.append(name) or "0")
    fill(tmp_path, make("x-", data="digits", model="small-cnn", weights="weights.pth", files={name: "x"}))
    if is_run:
        (tmp_path / "config.yaml").write_text("")
    assert bool(find_evaluations(tmp_path)[0].stale) is bool(summed) is (name == "weights.pth" and not is_run)


def test_an_edited_record_is_refused(tmp_path):
    path = fill(tmp_path, make("xx--")) / "evaluation.json"
    record = json.loads(path.read_text())
    record["accuracy"]["worst"] = 0.99
    path.write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"evaluation\.json is damaged: .*its sha256 is not that of its contents"):
        read_record(path)


def test_the_advice_for_a_damaged_record_is_one_that_helps(tmp_path):
    fill(tmp_path, make("xx--"), make("x---"))
    for name, advice in (("evaluation.json", "evaluate the run again"), ("evaluation-1.json", "remove it")):
        whole = (tmp_path / name).read_text()
        (tmp_path / name).write_text(whole[:30])
        with pytest.raises(UserError, match=rf"{name} is damaged: {advice} \(it does not hold a JSON object\)"):
            find_evaluations(tmp_path)
        (tmp_path / name).write_text(whole)


CONTRADICTIONS = {
    "outside its interval": {"accuracy": {"clean": 1.0, "fgsm": 0.75, "worst": 0.75}, "intervals": {"worst": [0, 0.5]}},
    "no number of its 4 images": {"accuracy": {"clean": 0.99}},
    "no fraction": {"accuracy": {"clean": 1.5}},
    "is below the worst case": {"accuracy": {"clean": 0.5, "worst": 0.75}},
    "of its 4 images are robust": {"accuracy": {"clean": 1.0, "worst": 0.75}, "broken_by": ["", "", "a", "b"]},
    "verdicts on 2 images": {"broken_by": ["", ""]},
    "between those of its classes": {"per_class": {"clean": [0.1, None, 0.2]}},
}


@pytest.mark.parametrize("says", CONTRADICTIONS)
def test_numbers_that_contradict_one_another_are_refused_in_a_record_of_version_1(says, tmp_path):
    record = {"threat": "Linf:0.1", "n": 4, "accuracy": {"clean": 0.5, "worst": 0.5}} | CONTRADICTIONS[says]
    (tmp_path / "evaluation.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=rf"evaluation\.json is damaged: .*{says}"):
        read_record(tmp_path / "evaluation.json")


WRONG_TYPES = [
    *({"intervals": value} for value in ([], {"clean": None}, {"clean": [0.1]}, {"clean": ["a", "b"]})),
    *({"per_class": value} for value in (3, {"clean": 3}, {"clean": ["a"]})),
    *({"sweep": value} for value in (None, [], {}, {"norm": "Linf", "attack": "a", "epsilons": [1], "accuracy": "x"})),
    *({"threat": value} for value in (None, 3, "", "Linf", "Linf:nan", "Linf:1e999999999", "Linf:-1", "L7:1")),
    *({"warnings": value} for value in (3, [None], {"a": 1})),
    *({"seconds": value} for value in ([], {"clean": "long"}, {"clean": True})),
    *({"n": value} for value in (0, -1, 2.5, "4", None, True)),
    *({"broken_by": value} for value in (3, [None, None, None, None])),
    *({"stages": value} for value in ([], {"a": None})),
    *({"unseen": value} for value in ([], {})),
    *({"corruptions": value} for value in (3, {"accuracy": None})),
    *({"verdict": 3}, {"data": []}, {"which": 7}, {"environment": []}, {"accuracy": {"clean": 10**400}}),
]


@pytest.mark.parametrize("change", WRONG_TYPES, ids=str)
def test_values_of_other_types_are_refused_by_name(change, tmp_path):
    record = {"threat": "Linf:0.1", "n": 4, "accuracy": {"clean": 0.5}} | change
    (tmp_path / "evaluation.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"evaluation\.json is damaged"):
        read_files(tmp_path)


def test_folders_are_taken_apart_and_what_does_not_belong_is_named(tmp_path, caplog):
    fill(tmp_path, make("x-"))
    assert find_runs(tmp_path) == [tmp_path]
    assert read_files(tmp_path).evaluation["n"] == 2
    (tmp_path / "more" / "nothing").mkdir(parents=True)
    assert find_runs(tmp_path / "more") == []
    assert f"{tmp_path / 'more'} is passed over" in caplog.text
    fill(tmp_path / "more" / "nothing", make("x-"))
    assert find_runs(tmp_path / "more") == [tmp_path / "more" / "nothing"]


def test_evaluations_by_other_rules_of_what_is_broken_are_not_joined(tmp_path):
    fill(
        tmp_path,
        make(
            "------", calls={"calls": 20, "wrong": 18, "accuracy": {"worst": 1.0}, "intervals": {"worst": [1.0, 1.0]}}
        ),
        make("xx----", attack="noise-5"),
    )
    result, notes = choose(tmp_path)
    assert not any("joins" in note for note in notes)
    assert result["accuracy"]["worst"] == 4 / 6


UNTIL = {"of": 9, "done": 4, "stopped": True, "bounds": [0.0, 1.0], "interval": [0.0, 1.0]}
CALLS = {"calls": 3, "wrong": 1, "accuracy": {"clean": 0.5}, "intervals": {"clean": [0.0, 1.0]}}


@pytest.mark.parametrize(
    "changed",
    [
        {"until": UNTIL | {"bounds": []}},
        {"until": UNTIL | {"interval": [0.0]}},
        {"calls": CALLS | {"intervals": {}}},
        {"calls": CALLS | {"intervals": {"clean": [0.5]}}},
        {"sample": [1]},
        {"sample": {"index": "abc"}},
        {"sample": {"index": [0, 1, 2, "3"]}},
        {"sample": {"index": [0, -1, 2, 3]}},
        {"sample": {"index": [0, 1]}},
    ],
)
def test_a_sealed_record_of_what_cannot_be_is_damaged(tmp_path, changed):
    fill(tmp_path, make("x---", until=UNTIL, calls=CALLS, sample={"rule": "random", "index": [4, 2, 0, 1]}))
    assert read_record(tmp_path / "evaluation.json")["n"] == 4
    fill(tmp_path, make("x---", **changed))
    with pytest.raises(UserError, match=r"evaluation\.json is damaged"):
        read_record(tmp_path / "evaluation.json")


def test_of_a_saved_data_set_only_its_own_files_count(tmp_path):
    data = tmp_path / "data"
    for part in ("train", "test"):
        (data / part).mkdir(parents=True)
        for name in ("state.json", "data-00000-of-00001.arrow", "dataset_info.json"):
            (data / part / name).write_text(part)
    (data / "dataset_dict.json").write_text("{}")
    files = [path for path in sorted(data.rglob("*")) if path.is_file()]  # the sum of earlier records
    before = sum_of_source(f"hf:{data}")
    assert before == sum_of("\n".join(f"{path.name}/{path.stat().st_size}" for path in files).encode())
    (data / "deep" / "below").mkdir(parents=True)
    (data / "deep" / "below" / "x").write_text("x")
    assert sum_of_source(f"hf:{data}") == before
    (data / "test" / "state.json").write_text("another")
    assert sum_of_source(f"hf:{data}") not in (before, None)


@pytest.mark.parametrize("name", ["hf:/", "hf:/usr", "~nobody-of-this-name/x.py", "npz:/dev/zero", "hf:~nobody/x"])
def test_a_source_that_is_none_is_not_searched_for(name, monkeypatch):
    monkeypatch.setattr("pathlib.Path.rglob", lambda *given: pytest.fail("the disk is walked"))
    assert sum_of_source(name) is None
