"""Tests mirror the package: src/uiat/a/b.py is tested in tests/a/test_b.py, and no module is without tests."""

from support.paths import ROOT, SRC

TESTS = ROOT / "tests"
# Module -> where it is tested, for those too small for a file of their own.
ELSEWHERE = {
    "checks/annotations.py": "cases/test_arguments.py",
    "checks/arguments.py": "cases/test_arguments.py",
    "checks/names.py": "config/test_field_names.py",
    "checks/radii.py": "test_threat.py",
    "checks/ranges.py": "cases/test_arguments.py",
    "checks/values.py": "cases/test_arguments.py",
    "config/compute.py": "config/test_schema.py",
    "config/plain_yaml.py": "cases/test_arguments.py",
    "models/misfit.py": "cases/test_arguments.py",
    "markup.py": "cases/test_output.py",
    "modes.py": "models/test_modes.py",
    "data/folder_layout.py": "data/test_image_folder.py",
    "data/image_file.py": "data/test_image_folder.py",
    "data/map_dataset.py": "data/test_image_set.py",
    "data/notices.py": "data/test_image_folder.py",
    "data/standard_files.py": "data/test_catalog.py",
    "experiments/compare_page.py": "cli/test_compare.py",
    "experiments/finish.py": "experiments/test_run_grid.py",
    "experiments/target_checks.py": "experiments/test_target.py",
    "experiments/options.py": "cli/test_options.py",
    "experiments/predictions.py": "cli/test_report.py",
    "report/scores.py": "report/test_summary.py",
    "report/svg/scatter.py": "report/test_tradeoff.py",
    "runs/evaluation_record.py": "runs/test_evaluations.py",
    "speed/cudnn.py": "speed/test_cuda.py",
    "speed/folding.py": "speed/test_fast_copy.py",
    "speed/tensor_cores.py": "speed/test_inner_model.py",
    "speed/throughput.py": "training/test_autotune.py",
    "training/first_batch.py": "cases/test_surroundings.py",
    "system/surroundings.py": "cases/test_surroundings.py",
}


def test_each_module_has_its_test_file():
    for file in sorted((SRC / "uiat").rglob("*.py")):
        module = file.relative_to(SRC / "uiat")
        if module.name not in {"__init__.py", "__main__.py"}:
            own = module.parent / f"test_{module.name}"
            assert (TESTS / ELSEWHERE.get(str(module), own)).is_file(), f"{module} has no test file tests/{own}"


def test_exceptions_are_needed():
    for module in ELSEWHERE:
        assert (SRC / "uiat" / module).is_file()
        assert not (TESTS / module).with_name(f"test_{(SRC / module).name}").exists(), f"{module} has a file of its own"
