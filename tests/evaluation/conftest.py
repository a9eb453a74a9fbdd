import pytest

from support.evaluations import shorten_ensembles


@pytest.fixture
def short(monkeypatch):
    """The attacks of the ensembles have budgets for tests."""
    shorten_ensembles(monkeypatch)
