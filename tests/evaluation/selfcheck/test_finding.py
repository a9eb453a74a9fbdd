from uiat.evaluation.selfcheck import Finding, attack_checks, verdict
from uiat.evaluation.selfcheck.finding import sign_test, wilson_lower


def test_verdicts():
    note, reason = Finding("images", "it rests on 3 images", "note"), Finding("noise", "noise breaks it")
    assert verdict([]) == "nothing speaks against the number"
    assert verdict([note]) == "nothing speaks against the number, but note: it rests on 3 images"
    assert verdict([reason, note]) == "do not believe this number: noise breaks it"
    advice = [
        Finding("noise", "noise breaks it", next_step="run that"),
        Finding("gradient", "none", next_step="run that"),
    ]
    more = Finding("square", "it helps", "note", "run this")
    assert verdict([*advice, more]) == "do not believe this number: noise breaks it; none; next: run that"
    assert verdict([note, more]).endswith("but note: it rests on 3 images; it helps; next: run this")


def test_a_share_needs_enough_images_to_speak():
    assert wilson_lower(3, 3) < 0.5 < wilson_lower(30, 30)
    assert wilson_lower(0, 10) == wilson_lower(0, 0) == 0
    assert attack_checks.check_gradient_free_wins("square", 3, 4) is not None
    assert attack_checks.check_gradient_free_wins("square", 1, 30) is None
    assert attack_checks.check_unbounded_attack(1, 10) is None
    assert attack_checks.check_more_steps(8, 64) is None
    assert attack_checks.check_more_steps(16, 64) is not None


def test_the_sign_test():
    assert sign_test(0, 0) == 1
    assert sign_test(8, 0) == 1 / 256
    assert sign_test(5, 5) > 0.5
    assert attack_checks.check_larger_radius(3, 8, 100) is None
    assert attack_checks.check_larger_radius(0, 8, 100) is not None
