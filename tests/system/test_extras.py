import pytest

from uiat.errors import UserError
from uiat.system.extras import from_extra, installed_version


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            ModuleNotFoundError("No module named 'sklearn'", name="sklearn.datasets"),
            "digits needs scikit-learn, which is not installed: pip install 'uiat[data]'",
        ),
        (
            RuntimeError("operator torchvision::nms\ndoes not exist"),
            "digits needs a package that cannot be imported (operator torchvision::nms does not exist): "
            "pip install --force-reinstall 'uiat[data]' takes one that fits",
        ),
    ],
)
def test_what_cannot_be_imported_is_answered_in_one_line(fault, message):
    with pytest.raises(UserError) as caught, from_extra("data", "digits"):
        raise fault
    assert str(caught.value) == message


def test_other_errors_pass():
    with pytest.raises(KeyError), from_extra("data", "digits"):
        raise KeyError("digits")


def test_a_package_that_is_not_installed_has_no_version():
    assert installed_version("no-such-package-anywhere") is None
    assert installed_version("numpy")
