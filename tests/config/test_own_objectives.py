"""An objective of the user's own, by name: its fields are settings like the package's own, and nothing runs unasked."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest

from support.objectives import LOGIT_PAIRING, write_objective
from uiat import Linf, Run, UserError, override
from uiat.config import own_objectives, yaml_io
from uiat.config.own_objectives import find_objective, is_objective_code
from uiat.config.schema import is_own_code

pytestmark = pytest.mark.usefixtures("unchecked")
NAME = "mine.py:LogitPairing"


@pytest.fixture(autouse=True)
def _working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_objective(Path("mine.py"))


def named(*settings):
    return override(Run(), [("objective.name", NAME), *settings])


def test_its_fields_are_overrides_and_come_back_from_yaml():
    run = named(
        ("objective.weight", "0.25"), ("objective.attack.steps", "3"), ("objective.attack.threat.epsilon", ".1")
    )
    objective = run.objective
    assert (type(objective).__name__, objective.name, objective.weight) == ("LogitPairing", NAME, 0.25)
    assert (objective.attack.steps, objective.threat) == (3, Linf(0.1))
    assert [is_own_code(run), is_own_code(Run())] == [True, False]
    text = yaml_io.dump(run)
    assert f"name: {NAME}" in text
    assert yaml_io.load(text, own_code=True) == run


def test_a_switch_keeps_the_attack_and_goes_back():
    away = named(("objective.attack.steps", "3"))
    back = override(away, [("objective.name", "pgd-at")])
    assert (back.objective.name, back.objective.attack.steps, back.threat) == ("pgd-at", 3, Run().threat)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("objective.wieght", "1", "unknown field 'objective.wieght'; did you mean 'objective.weight'"),
        ("objective.weight", "heavy", "objective.weight must be a number, not 'heavy'"),
        ("objective.share", "2", "objective: share must be at most 1, but is 2"),
        (
            "objective.attack.stepz",
            "1",
            "unknown field 'objective.attack.stepz'; did you mean 'objective.attack.steps'",
        ),
        ("objective.mode", "smth", "unknown objective.mode 'smth'; did you mean 'smooth'"),
        ("objective.power", "0", "objective: ValueError: a power of 0 pairs nothing"),
        ("objective.name", "mine.py:LogitPairng", "did you mean 'LogitPairing'"),
        ("objective.name", "gone.py:LogitPairing", "there is no file 'gone.py' to read the objective from"),
        ("objective.name", "no_such_package.objectives:One", "there is no module 'no_such_package' to import"),
    ],
)
def test_a_wrong_field_is_answered_as_the_package_answers_its_own(field, value, message):
    with pytest.raises(UserError, match=message):
        named((field, value))


def test_a_radius_of_its_own_is_written_in_255ths_and_read_back():
    run = named(("objective.radius", "8/255"))
    assert run.objective.radius == 8 / 255
    assert "radius: 8/255" in yaml_io.dump(run)
    assert yaml_io.load(yaml_io.dump(run), own_code=True).objective.radius == 8 / 255


WRONG = {
    "def Pairing():\n    pass": "is no class: name a frozen dataclass",
    "class Pairing:\n    name = 'a'": "is no dataclass",
    "from dataclasses import dataclass\n@dataclass\nclass Pairing:\n    weight: float = 1.0": 'has no field "name"',
    "from dataclasses import dataclass\n@dataclass\nclass Pairing:\n    weight: float\n    name: str = 'a'": (
        "needs a default for each field, and weight has none"
    ),
    "from dataclasses import dataclass\n@dataclass\nclass Pairing:\n    name: str = 'a'": (
        "mine.py:Pairing: the objective has no init or perturb or loss or threat"
    ),
    "from dataclasses import dataclass\n@dataclass\nclass Pairing:\n    name: 'Missing' = 'a'": (
        "cannot be made: NameError"
    ),
    f"{LOGIT_PAIRING}\n@dataclass(frozen=True)\nclass Pairing(LogitPairing):\n    f: object = print": (
        "keeps a builtin.* in f, which"
    ),
}


@pytest.mark.parametrize("source", WRONG)
def test_a_class_that_is_no_objective_is_refused_in_one_line(source):
    Path("mine.py").write_text(source)
    with pytest.raises(UserError, match=WRONG[source]) as refused:
        override(Run(), [("objective.name", "mine.py:Pairing")])
    assert "\n" not in str(refused.value)


def test_a_text_that_names_code_runs_nothing_unless_it_is_allowed():
    text = yaml_io.dump(named())
    with open("mine.py", "a") as file:
        file.write("\nopen('ran', 'w').close()\n")
    with pytest.raises(UserError, match=r"objective\.name is code, 'mine\.py:LogitPairing': allow it with own_"):
        yaml_io.load(text)
    assert not Path("ran").exists()
    yaml_io.load(text, own_code=True)
    assert Path("ran").exists()


def test_one_import_gives_one_class_until_the_file_changes():
    first = find_objective(NAME)
    assert find_objective(NAME) is first
    write_objective(Path("mine.py"), more="# changed")
    assert find_objective(NAME) is not first
    assert dataclasses.is_dataclass(find_objective(NAME))


def test_an_entry_point_of_an_installed_package_is_a_name(monkeypatch):
    cls = find_objective(NAME)
    entry = SimpleNamespace(value="json:loads", load=lambda: cls)
    monkeypatch.setattr(own_objectives, "entry_points", lambda **which: [entry] if which["name"] == "pairing" else [])
    monkeypatch.setattr("uiat.system.own_code.entry_points", lambda **which: [entry])
    assert [is_objective_code(name) for name in ("pairing", "pgd-at", "paring")] == [True, False, False]
    assert type(override(Run(), [("objective.name", "pairing")]).objective) is cls
