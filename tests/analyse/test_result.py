"""Files of a study."""

import json

from uiat.analyse.result import compact


def test_numbers_in_a_list_stay_on_one_line():
    value = {"a": [0.5, None, "x, y"], "b": [[1, 2], [3, 4]], "c": {"d": []}}
    assert json.loads(compact(value)) == value
    assert '"a": [0.5, null, "x, y"]' in compact(value)
