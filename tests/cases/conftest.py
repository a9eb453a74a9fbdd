from support.commands import ask, own, run, trained  # noqa: F401  fixtures
