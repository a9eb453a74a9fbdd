"""Settings of a run folder that cannot be read."""

import pytest

import uiat
from uiat import UserError
from uiat.runs.settings import read_config, read_run


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", "not a text file"),
        (b"a: [", "is not valid YAML"),
        (b"- 1\n- 2", "does not hold the settings of a run"),
        (b"seeed: 3", "did you mean 'seed'"),
        (b"seed: many", "seed must be a whole number"),
        (b"!!python/object/apply:os.system ['true']", "is not valid YAML"),
        (b"objective: {name: uiats}", "did you mean 'uiat'"),
        (b"optimisation: {epochs: 0}", "epochs must be at least 1"),
    ],
)
def test_settings_that_cannot_be_read(content, message, tmp_path):
    (tmp_path / "config.yaml").write_bytes(content + b"\n")
    for act in (read_run, uiat.resume):
        with pytest.raises(UserError, match=message):
            act(tmp_path)


def test_what_is_no_run_folder(tmp_path):
    with pytest.raises(UserError, match=r"is not a run folder: it has no config.yaml"):
        uiat.resume(tmp_path)
    with pytest.raises(UserError, match=r"cannot read .*No such file"):
        read_config(tmp_path / "missing.yaml")


@pytest.mark.parametrize("name", ["evil.py:go", "evil:go", "torchattacks:PGD(steps=2)"])
def test_an_attack_of_ones_own_in_a_file_is_not_imported(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text("raise SystemExit('it was run')\n")
    path = tmp_path / "c.yaml"
    path.write_text(f"evaluation: {{attacks: ['clean', '{name}']}}\n")
    with pytest.raises(UserError, match=r"names code to attack with, .*: allow it with --own-code"):
        read_config(path)
    assert read_config(path, own_code=True).evaluation.attacks == ("clean", name)
