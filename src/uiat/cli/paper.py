"""The map from the paper to the code: statement, how sure it is, symbol, test, recipe. PAPER.md has the same table."""

from dataclasses import dataclass

MARKS = {
    "P": "stated by the paper's abstract or summary",
    "C": "read in another group's re-implementation",
    "I": "inferred",
    "?": "unknown: a field, with the alternatives",
}


@dataclass(frozen=True)
class Row:
    """One statement of the paper and where it lives.

    Args:
        statement: what is claimed or defined.
        mark: one of MARKS.
        symbol: dotted name of the code, importable.
        test: file::test, which fails if the code says otherwise.
        recipe: a recipe that uses it.

    Example:
        >>> ROWS[0].mark
        'P'
    """

    statement: str
    mark: str
    symbol: str
    test: str
    recipe: str


ROWS = (
    Row(
        "x_adv = argmax over B(x, epsilon) of CE(f(.), y): PGD-10, epsilon 8/255, step 2/255, random start",
        "P",
        "uiat.attacks.PGD",
        "tests/attacks/test_pgd.py::test_linf_reaches_the_corner_exactly",
        "cifar10-resnet18-pgd-at",
    ),
    Row(
        "x_inv = argmin over B(x, epsilon_inv) of L_inv, an instance-wise inverse adversary",
        "P",
        "uiat.inverse.InstanceInverse",
        "tests/inverse/test_universal.py::test_the_instance_inverse_is_the_opposite_corner",
        "digits-iat",
    ),
    Row(
        "L_inv = CE + mu R with a feature-level regulariser R; its form: none, feature, feature-repulsion, logit",
        "?",
        "uiat.inverse.inverse_loss",
        "tests/inverse/test_universal.py::test_the_inverse_loss_is_cross_entropy_and_its_regulariser",
        "digits-iat",
    ),
    Row(
        "R = KL(p(x) || p(x_inv)) - KL(p(x_adv) || p(x_inv)), coefficient 1",
        "C",
        "uiat.inverse.inverse_loss",
        "tests/inverse/test_universal.py::test_the_inverse_loss_is_cross_entropy_and_its_regulariser",
        "digits-iat",
    ),
    Row(
        "inverse radius 4/255 (8/255 in another configuration), step 2/255, 10 steps for the instance-wise kind",
        "C",
        "uiat.inverse.InstanceInverse",
        "tests/inverse/test_universal.py::test_fractions_become_floats",
        "cifar10-resnet18-iat",
    ),
    Row(
        "IAT: CE(f(x_adv), y) + lambda KL between p(x_adv) and p(x_inv)",
        "P",
        "uiat.objectives.UIAT",
        "tests/objectives/test_baselines.py::test_uiat_by_formula",
        "digits-iat",
    ),
    Row(
        "lambda = 3.5",
        "C",
        "uiat.objectives.UIAT",
        "tests/objectives/test_baselines.py::test_uiat_by_formula",
        "cifar10-resnet18-uiat",
    ),
    Row(
        "direction of the KL: the inverse prediction as the target (I), or the reverse (C)",
        "?",
        "uiat.objectives.UIAT",
        "tests/objectives/test_baselines.py::test_uiat_by_formula",
        "digits-uiat",
    ),
    Row(
        "gradient through the inverse branch: on (C), or a detached target",
        "?",
        "uiat.objectives.UIAT",
        "tests/objectives/test_baselines.py::test_the_gradient_through_the_inverse_branch",
        "digits-uiat",
    ),
    Row(
        "one universal inverse perturbation a class, z in R^(K x C x H x W), shared by its images",
        "P",
        "uiat.inverse.UniversalInverse",
        "tests/inverse/test_universal.py::test_the_universal_perturbation_is_minus_epsilon_sign_w_exactly",
        "digits-uiat",
    ),
    Row(
        "z starts at 0 (alternatives: uniform, random sign); one signed step a batch on the class-mean gradient",
        "I",
        "uiat.inverse.UniversalInverse",
        "tests/inverse/test_universal.py::test_the_update_is_the_papers_loop_over_classes",
        "digits-uiat",
    ),
    Row(
        "x_inv = clip(x + z_y, 0, 1), after data augmentation",
        "I",
        "uiat.inverse.apply_universal",
        "tests/inverse/test_universal.py::test_it_is_applied_by_label_and_clipped",
        "digits-uiat",
    ),
    Row(
        "a momentum on the predictions of inverse adversaries steadies the target; per example or per class, gamma",
        "?",
        "uiat.inverse.InverseState",
        "tests/objectives/test_baselines.py::test_momentum_against_a_slow_reference",
        "digits-uiat",
    ),
    Row(
        "one-off: z computed during one epoch e0, then frozen, at little loss; the base method alone before it",
        "P",
        "uiat.inverse.UniversalInverse",
        "tests/inverse/test_universal.py::test_one_off_refines_in_its_epoch_and_never_again",
        "digits-uiat-one-off",
    ),
    Row(
        "plugs into single-step adversarial training: x_adv from FGSM or FGSM-RS",
        "P",
        "uiat.attacks.FGSMRS",
        "tests/attacks/test_pgd.py::test_fgsm_rs_is_one_projected_step_of_a_quarter_more_than_epsilon",
        "digits-uiat",
    ),
    Row(
        "BatchNorm: crafting in eval mode; both training passes move the running statistics",
        "I",
        "uiat.models.modes.frozen",
        "tests/objectives/test_baselines.py::test_which_passes_move_the_running_statistics",
        "digits-uiat",
    ),
    Row(
        "the prediction on a misclassified natural image misleads a method that ties the adversarial prediction to it",
        "P",
        "uiat.analyse.studies.misaligned.measure",
        "tests/analyse/studies/test_misaligned.py::test_the_pull_is_1_for_a_model_that_never_leaves_its_wrong_class",
        "digits-trades",
    ),
    Row(
        "images of low and of high loss: the test set cut in half, accuracy against strength (below 0: inverse)",
        "P",
        "uiat.analyse.studies.confidence_gap.measure",
        "tests/analyse/studies/test_confidence_gap.py::test_the_gap_of_a_model_whose_distances_are_known",
        "digits-uiat",
    ),
    Row(
        "accuracy against attack strength: gains at weak attacks, losses at strong ones",
        "P",
        "uiat.analyse.studies.strength.measure",
        "tests/analyse/studies/test_strength.py::test_accuracy_falls_where_the_distances_say_and_strength_0_is_clean",
        "digits-uiat",
    ),
    Row(
        "robust overfitting is milder",
        "P",
        "uiat.analyse.studies.overfitting.measure",
        "tests/analyse/studies/test_overfitting.py::test_overfitting_is_measured_under_one_attack_whatever_a_run_was_trained_under",
        "digits-uiat",
    ),
    Row(
        "when the one epoch of one-off comes matters",
        "P",
        "uiat.analyse.studies.one_off.measure",
        "tests/analyse/studies/test_one_off.py::test_one_off_is_held_against_its_base_and_uiat",
        "digits-uiat-one-off",
    ),
    Row(
        "each component of the method helps",
        "P",
        "uiat.analyse.studies.ablation.measure",
        "tests/analyse/studies/test_ablation_rows.py::test_each_row_changes_the_run_and_no_two_are_the_same",
        "digits-uiat",
    ),
    Row(
        "what the universal perturbations look like, and what they say of the decision boundary",
        "P",
        "uiat.analyse.studies.inverse_gallery.measure",
        "tests/analyse/studies/test_inverse_gallery.py::test_a_strong_perturbation_draws_every_image_to_its_class_and_none_draws_none",
        "digits-uiat",
    ),
    Row(
        "training costs little more than PGD-AT",
        "P",
        "uiat.analyse.studies.cost.measure",
        "tests/analyse/studies/test_cost.py::test_passes_of_a_step",
        "digits-uiat",
    ),
    Row(
        "objection: inverse examples draw attention to the background and widen the train-test robust gap",
        "C",
        "uiat.analyse.studies.attention.measure",
        "tests/analyse/studies/test_attention.py::test_saliency_is_where_the_model_looks",
        "digits-uiat",
    ),
)


def markdown() -> str:
    """The table of PAPER.md.

    Example:
        >>> markdown().splitlines()[0]
        '| statement | mark | code | test | recipe |'
    """
    lines = ["| statement | mark | code | test | recipe |", "|---|---|---|---|---|"]
    for row in ROWS:
        statement = row.statement.replace("|", "\\|")
        lines.append(f"| {statement} | {row.mark} | `{row.symbol}` | `{row.test}` | `{row.recipe}` |")
    return "\n".join(lines)
