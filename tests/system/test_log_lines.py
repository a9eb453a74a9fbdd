import logging

from uiat.system.log_lines import warnings_shown


def test_warnings_of_the_package_go_to_standard_error(capsys):
    with warnings_shown():
        logging.getLogger("uiat").warning("careful")
        logging.getLogger("uiat").info("not this")
    assert capsys.readouterr().err == "uiat: warning: careful\n"
    assert not any(type(handler) is logging.StreamHandler for handler in logging.getLogger("uiat").handlers)
