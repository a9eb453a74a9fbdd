"""Mutated calls and command lines end in a result, or in one line that names the culprit."""

import logging

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support import mutations

pytestmark = [pytest.mark.usefixtures("unchecked"), pytest.mark.filterwarnings("ignore")]
few = settings(suppress_health_check=list(HealthCheck), deadline=None, database=None, derandomize=True)
NEEDS_A_FOLDER = {"load", "load_inverse", "resume", "analyse.run", "experiments.sweep"}


@pytest.fixture(scope="module", autouse=True)
def _silent():
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def chooser(data):
    return lambda options: data.draw(st.sampled_from(list(options)))


@pytest.mark.parametrize("name", sorted(mutations.CALLS.keys() - NEEDS_A_FOLDER))
def test_what_is_mutated_is_accepted_as_it_is(name):
    """Or else a refusal of everything would pass."""
    outcome = mutations.run_call(name, mutations.CALLS[name][1](), "")
    assert outcome.kind == "accepted", outcome


@pytest.mark.parametrize("name", sorted(mutations.CALLS.keys() - NEEDS_A_FOLDER))
def test_nothing_at_all_in_place_of_an_argument(name):
    """Draws leave out most of these pairs, so a function that lost its check would be found by chance."""
    for argument in mutations.CALLS[name][1]():
        outcome = mutations.run_call(name, mutations.CALLS[name][1]() | {argument: None}, argument)
        assert outcome.kind in {"accepted", "refused"}, outcome


@settings(few, max_examples=300)
@given(st.data())
def test_mutated_calls(data):
    outcome = mutations.run_call(*mutations.mutated_call(chooser(data)))
    assert outcome.kind in {"accepted", "refused"}, outcome


@settings(few, max_examples=40)
@given(st.data())
def test_mutated_command_lines(data):
    outcome = mutations.run_line(mutations.mutated_line(chooser(data)))
    assert outcome.kind in {"accepted", "refused"}, outcome
