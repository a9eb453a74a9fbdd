from support.commands import ask, run, trained  # noqa: F401  fixtures
