"""What every test shares: shape checking, one thread per worker, a fixed seed, the folder of real data."""

import os
import signal
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; subprocesses inherit it
os.environ.setdefault("MPLBACKEND", "Agg")

from jaxtyping import install_import_hook

# The hook only sees imports that come after it, so an earlier one would silently switch the shape checks off.
assert "uiat" not in sys.modules, "uiat was imported before tests/conftest.py could install the shape checks"
install_import_hook("uiat", "shapecheck.check")

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import jaxtyping
import pytest
import torch

from support.trained import evaluated_run, trained_runs  # noqa: F401 - fixtures of all tests

# Whatever has started the tests may ignore these (nohup, a shell's background job), and commands would inherit that.
for _number, _default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, _default)

torch.set_num_threads(1)  # the workers of pytest-xdist share the cores; threads on top only contend
hypothesis.settings.register_profile("uiat", deadline=None, max_examples=25, derandomize=True)
hypothesis.settings.load_profile("uiat")


# Tests of many seconds: so many of their cases are run by `make test`, the others by `make test-all`.
CASES_AT_ONCE = {
    "test_a_broken_defence_is_flagged": 1,
    "test_a_folder_that_does_not_load_is_refused_with_its_reason": 0,
    "test_a_frozen_run_resumes_bit_for_bit": 0,
    "test_a_kill_while_any_file_is_written_loses_nothing": 1,
    "test_a_model_that_cannot_be_written_is_refused_in_one_line": 1,
    "test_a_resumed_run_is_bit_identical": 3,
    "test_a_run_killed_after_its_teacher_is_resumed_bit_for_bit": 1,
    "test_a_run_killed_while_its_teacher_trains_is_resumed_bit_for_bit": 1,
    "test_a_run_that_is_stopped_goes_on_bit_for_bit_and_its_z_is_used_at_the_size_of_the_images": 0,
    "test_a_run_that_is_trained_by_hand_is_waited_for": 0,
    "test_a_sound_model_is_not_flagged": 0,  # its models are trained first
    "test_a_sweep_killed_in_its_first_moments_goes_on": 0,
    "test_a_terminal_sees_bars": 0,
    "test_apgd_breaks_what_the_reference_breaks": 1,
    "test_attacks_that_are_made_for_it_turn_a_verdict_into_a_note": 0,
    "test_commands_say_it_once": 1,
    "test_compiles_in_one_graph": 1,
    "test_ctrl_c_saves_and_says_how_to_resume": 0,
    "test_equal_tensors_and_facts_are_equal_files": 0,
    "test_every_study_writes_its_data_a_figure_and_what_the_numbers_say": 1,
    "test_images_that_plain_attacks_left_robust_and_auto_pgd_breaks": 0,
    "test_it_breaks_what_the_reference_breaks": 1,
    "test_it_is_resumed_in_another_number_of_processes": 1,
    "test_it_is_trained_resumed_evaluated_studied_and_reported": 0,
    "test_it_learns": 6,
    "test_notebooks_show_it_as_html": 1,
    "test_other_threat_models_are_compared_only_after_saying_so": 0,
    "test_perturb_leaves_the_model_alone": 24,
    "test_perturb_leaves_the_model_alone_after_an_exception": 12,
    "test_resume_does_not_need_the_file_again": 1,
    "test_several_processes_hold_what_one_would": 0,  # four sets of processes
    "test_six_evaluations_of_one_run_with_other_seeds_all_end": 0,
    "test_standard_training_is_not_said_to_overfit_an_attack": 0,
    "test_surroundings_change_no_verdict_and_are_as_they_were": 2,
    "test_the_ablation_changes_its_fields_one_at_a_time": 0,
    "test_the_old_layout_of_mnist": 1,
    "test_the_same_again_is_written_again_and_anything_else_is_refused": 0,
    "test_the_same_sweep_twice_shares_the_work": 0,
    "test_torchscript_is_evaluated_as_the_module_is": 0,
    "test_torchvision_is_not_imported_for_digits": 0,
    "test_what_an_older_version_left_stops_no_sweep": 0,
    "test_what_computes_something_else_is_refused": 0,
    "test_what_a_study_is_said_to_read_is_what_its_code_reads": 0,
    "test_wherever_it_is_stopped_it_is_resumed_to_the_same_verdicts": 1,
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow the cases beyond those in `CASES_AT_ONCE`."""
    seen = Counter[str]()
    for item in items:
        name = getattr(item, "originalname", None) or item.name
        if name in CASES_AT_ONCE:
            seen[name] += 1
            if seen[name] > CASES_AT_ONCE[name]:
                item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Switch the shape checks off, so that the package's own check of bad input answers, as it does for a user."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets beside the checkout; the test is skipped where there is none."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not (folder / "unpack.py").is_file():
        pytest.skip("needs the real data sets of ../shared/data, which are not on this machine")
    return folder
