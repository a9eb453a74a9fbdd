import torch

from uiat.evaluation.selfcheck import attack_checks


def test_saturated_logits_need_an_effect_unless_the_gradient_is_gone():
    no, yes, far = torch.zeros(50, dtype=torch.bool), torch.ones(50, dtype=torch.bool), torch.full((50,), 30.0)
    some = torch.arange(50) < 4
    assert attack_checks.check_saturation(no, far, by_margin=yes, by_entropy=yes) is None
    assert attack_checks.check_saturation(no, far, by_margin=yes, by_entropy=~some) is None  # 4 to 0 may be chance
    assert attack_checks.check_saturation(no, far, by_margin=yes, by_entropy=no).check == "saturation"
    assert (
        attack_checks.check_saturation(no, far / 10, by_margin=yes, by_entropy=no).severity == "note"
    )  # sound models may
    assert attack_checks.check_saturation(yes, far, by_margin=no, by_entropy=no).check == "saturation"
