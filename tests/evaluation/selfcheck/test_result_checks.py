from uiat import EvaluationResult
from uiat.evaluation.selfcheck import result_checks


def result(broken_by=(), **accuracy):
    names = {name.replace("_", "-"): value for name, value in accuracy.items()}
    by = [*broken_by, *[""] * (1_000 - len(broken_by))]
    return EvaluationResult("Linf:0.1", len(by), {"clean": 1.0, **names, "worst": 0.5}, {}, by, 0)


def test_what_a_result_knows():
    assert result_checks.from_result(result()) == []
    behind = result(["square"] * 50, autoattack=0.5)
    assert [f.check for f in result_checks.from_result(behind)] == ["square"]
    # 2 of 100 may be, and are a note as in the reference, which warns from 2 in 1,000.
    (note,) = result_checks.from_result(result(["square"] * 20, autoattack=0.5))
    assert (note.check, note.severity) == ("square", "note")
    assert note.reason.startswith("Square breaks 20 of 1000 images (2.0 %)")
    assert "square-20000" in note.next_step
    assert result_checks.from_result(result(["square"] * 2, autoattack=0.5)) == []
    first, behind_pgd = (
        result(["square"] * 50, square=0.5, autoattack=0.5),
        result(["square"] * 50, pgd_20=0.5, square=0.5),
    )
    assert result_checks.from_result(first) == []  # what runs first breaks what others would have broken
    assert result_checks.from_result(behind_pgd) == []  # plain PGD is no measure for it
    assert [f.check for f in result_checks.from_result(result(pgd_10=0.6, pgd_100=0.4))] == ["steps"]
    assert result_checks.from_result(result(pgd_10=0.42, pgd_100=0.4)) == []
    assert result_checks.from_result(result(pgd_10_5=0.6, pgd_100=0.4)) == []


def test_attacks_that_saturated_logits_or_random_answers_do_not_stop():
    assert result_checks.is_scale_free(result(apgd_t=0.1, square=0.5))
    assert result_checks.is_scale_free(result(cw_20=0.1))
    for others in ({"autoattack": 0.1}, {"pgd_20": 0.9, "cw_20": 0.1}, {"square": 0.5}, {}):
        assert not result_checks.is_scale_free(result(**others))
    assert result_checks.is_averaged(result(autoattack_rand=0.1, apgd_ce_eot_5=0.1))
    for others in ({"autoattack_rand": 0.1, "pgd_20": 0.9}, {"autoattack": 0.1}, {}):
        assert not result_checks.is_averaged(result(**others))


def test_a_plain_attack_that_a_stronger_one_of_the_result_corrects_is_named():
    (finding,) = result_checks.from_result(result(pgd_20=0.59, cw_20=0.55, autoattack_quick=0.5))
    assert (finding.check, finding.severity) == ("plain attack", "note")
    assert "pgd-20 overstates the robustness: 90 of 1000 images (9 %) withstand it" in finding.reason
    assert finding.reason.endswith("quote autoattack-quick")
    assert result_checks.from_result(result(pgd_20=0.53, autoattack_quick=0.5)) == []  # 3 of 100 may be
    assert result_checks.from_result(result(pgd_20=0.59, cw_20=0.5)) == []  # nothing stronger ran: `examine` looks
    assert result_checks.from_result(result(apgd_ce=0.59, apgd_t=0.5)) == []


def test_the_attack_to_quote_is_the_strongest_whatever_its_kind():
    found = result_checks.from_result(result(pgd_20=0.55, cw_20=0.5, noise_20=0.84, worst=0.5))
    (finding,) = [each for each in found if each.check == "plain attack"]
    assert finding.reason.endswith("quote cw-20")
