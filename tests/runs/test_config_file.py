"""config.yaml: every setting, as it was written, or refused; never defaults."""

import json
from pathlib import Path

import pytest

import uiat
from support import tiny
from support.run_folders import as_version_1
from uiat import UserError, recipes
from uiat.config.yaml_io import describe_fields, to_dict
from uiat.runs.config_file import ADDED, dump_settings, read_settings, threat_of
from uiat.runs.folder import make_folder
from uiat.runs.reader import leaves
from uiat.runs.settings import read_config, read_run
from uiat.system.manifest import MANIFEST_FILE, update_manifest

RUN = tiny.run(seed=7)


@pytest.fixture(params=["0.1", "0.2"])
def folder(request, tmp_path):
    """A folder of each version."""
    made = make_folder(RUN, tmp_path / "run")
    return made if request.param == "0.2" else as_version_1(made)


def test_settings_come_back(folder):
    assert read_run(folder) == RUN
    assert threat_of(read_settings(folder)) == RUN.threat


def test_a_file_cut_anywhere_is_refused(folder):
    path = folder / "config.yaml"
    whole = path.read_bytes()
    for end in [*range(0, len(whole), 61), len(whole) - 1]:
        path.write_bytes(whole[:end])
        with pytest.raises(UserError, match=r"config\.yaml( is| has|: \w+ must be a mapping)"):  # behind a heading
            read_settings(folder)


def test_a_file_that_lacks_any_setting_is_refused_and_the_setting_named(folder):
    path = folder / "config.yaml"
    lines = path.read_text().splitlines(keepends=True)
    is_old = not lines[0].startswith("format")
    plain = [i for i, line in enumerate(lines) if not line.rstrip().endswith(":") and line.lstrip()[0] != "-"]
    for i in plain:
        name = lines[i].strip().partition(":")[0]
        if name == "format" or (is_old and name in {key.rpartition(".")[2] for key in ADDED}):
            continue
        path.write_text("".join(lines[:i] + lines[i + 1 :]))
        with pytest.raises(UserError, match=rf"config\.yaml.*\b{name}\b"):
            read_settings(folder)


def test_what_version_1_did_not_write_is_listed():
    """Version 0.1's own settings by method, taken from its folders: a field added since has to be in ADDED."""
    written = json.loads(Path(__file__).with_name("settings-0.1.json").read_text())
    for method, then in written.items():
        now = {path for path, _ in leaves(to_dict(recipes.get(f"digits-{method}")))}
        assert now - set(then) <= ADDED, method


def test_a_run_from_before_the_copy_of_the_network_goes_on_without_it(tmp_path):
    made = make_folder(RUN, tmp_path / "run")
    assert read_run(made).compute.fold
    settings = json.loads((made / MANIFEST_FILE).read_text())["settings"]
    del settings["compute"]["fold"]
    update_manifest(made, settings=settings)
    path = made / "config.yaml"
    path.write_text(path.read_text().replace("  fold: true\n", ""))
    assert not read_run(made).compute.fold
    assert not read_run(as_version_1(made)).compute.fold


def test_a_configuration_of_ones_own_may_be_partial_and_that_of_a_run_is_one(tmp_path):
    (tmp_path / "mine.yaml").write_text("seed: 3")
    assert read_config(tmp_path / "mine.yaml").seed == 3
    (tmp_path / "whole.yaml").write_text(dump_settings(RUN))
    assert read_config(tmp_path / "whole.yaml") == RUN == uiat.load_config(dump_settings(RUN))


def test_a_format_of_a_later_version_is_refused(folder):
    path = folder / "config.yaml"
    path.write_text("format: 99\n" + path.read_text().removeprefix("format: 2\n"))
    with pytest.raises(UserError, match=r"config\.yaml has format 99, which this version of uiat does not know"):
        read_settings(folder)


def test_a_manifest_of_no_settings_lets_none_be_missing(tmp_path):
    folder = make_folder(RUN, tmp_path / "run")
    update_manifest(folder, settings={})
    (folder / "config.yaml").write_text("name: x\n")
    with pytest.raises(UserError, match="is incomplete: it lacks model, data, objective"):
        read_settings(folder)


def test_every_setting_that_is_missing_is_counted(tmp_path):
    made = as_version_1(make_folder(RUN, tmp_path / "run"))
    (made / "config.yaml").write_text("name: run\n")
    leaves = len(list(describe_fields(RUN)))
    with pytest.raises(UserError, match=r"it lacks seed, data.name, .* and \d+ more; .* never filled with defaults"):
        read_settings(made)
    assert leaves > 50


def test_an_edit_that_decides_no_weights_is_said(tmp_path, caplog):
    made = make_folder(RUN, tmp_path / "run")
    path = made / "config.yaml"
    path.write_text(path.read_text().replace("chance_epochs: 5", "chance_epochs: 2"))
    assert read_run(made).guards.chance_epochs == 2
    assert f"{path} was edited: guards.chance_epochs was 5 and is 2" in caplog.text
    path.write_text(path.read_text().replace("batch_size: 32", "batch_size: 33"))
    with pytest.raises(UserError, match=r"data\.batch_size was 32 and is 33"):
        read_run(made)
