"""An evaluation stopped at any moment is resumed to the same verdicts; a file that does not fit is left alone."""

import re
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from support import tiny
from support.evaluations import ASKING, ATTACKS, assert_same, evaluate, evaluate_short, images, net, stop_at, to_fit
from uiat import L2, Linf, UserError
from uiat.evaluation.engine.outcomes import Outcomes
from uiat.evaluation.engine.state_file import StateFile, checksum
from uiat.system.distributed import Rank
from uiat.system.tensor_files import read_tensors, write_tensors


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("options", [{}, ASKING], ids=["one call", "several calls"])
def test_wherever_it_is_stopped_it_is_resumed_to_the_same_verdicts(tmp_path, options):
    bound, calls = stop_at(0)
    whole = evaluate_short(bound=bound, **options)
    suffix = "-eot-2" if options else ""
    assert {"clean", *(f"{name}{suffix}" for name in ("pgd-3-2", "apgd-ce", "square"))} <= set(whole.broken_by) | set(
        calls
    )
    for at in range(1, len(calls) + 1, 13):
        path = tmp_path / f"{at}.state"
        with pytest.raises(tiny.Killed):
            evaluate_short(path, bound=stop_at(at)[0], **options)
        assert_same(evaluate_short(path, resume=True, **options), whole)


@pytest.mark.usefixtures("short")
def test_stopped_again_and_again(tmp_path):
    whole, path, stops = evaluate_short(), tmp_path / "state", 0
    while True:
        try:
            result = evaluate_short(path, resume=True, bound=stop_at(14)[0])  # up to five of them for what is done
            break
        except tiny.Killed:
            stops += 1
    assert stops > 2
    assert_same(result, whole)
    assert result.seconds.keys() == whole.seconds.keys()


@pytest.mark.usefixtures("short")
def test_a_finished_evaluation_is_read_back_without_an_attack(tmp_path):
    model = net()
    whole = evaluate_short(tmp_path / "state", model=model)
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    assert_same(evaluate_short(tmp_path / "state", model=model, resume=True), whole)
    assert len(calls) < 10  # the checks of the model and of its faster form, and no attack
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


@pytest.fixture
def half(tmp_path, short):
    path = tmp_path / "evaluation.state"
    with pytest.raises(tiny.Killed):
        evaluate_short(path, bound=stop_at(12)[0])
    return path


def refused(path, words, **options):
    before = path.read_bytes()
    with pytest.raises(UserError, match=f"{re.escape(str(path))}.*{words}"):
        evaluate_short(path, **{"resume": True} | options)
    assert path.read_bytes() == before


def test_a_file_that_is_in_the_way_is_not_overwritten(half):
    refused(half, r"resume it \(resume\) or delete the file", resume=False)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda content: content[: len(content) // 2], "not a readable safetensors file"),
        (lambda content: b"", "not a readable safetensors file"),
        (lambda content: b"not at all\n", "not a readable safetensors file"),
        (lambda content: content[:-3] + bytes([content[-3] ^ 4]) + content[-2:], "is damaged"),
        (lambda content: content.replace(b'seconds\\":', b'seconds\\": ', 1), "(damaged|not a readable)"),
    ],
)
def test_a_damaged_file_is_refused_by_name_and_left_alone(half, damage, words):
    half.write_bytes(damage(half.read_bytes()))
    refused(half, words)


def test_another_kind_of_file_is_refused(half):
    write_tensors(half, {"w": torch.ones(2)}, {"kind": "uiat.training.averaging"})
    refused(half, "is not the state of an evaluation")
    tensors, meta = read_tensors(half)
    write_tensors(half, tensors, meta | {"kind": "uiat.evaluation"})
    refused(half, "is damaged or was written by another version")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": net(4)}, "not the same weights$"),
        ({"threat": Linf(0.06)}, "not the same threat, attacks$"),
        ({"threat": L2(0.05)}, "not the same threat, attacks$"),
        ({"attacks": ("pgd-3-2",)}, "not the same attacks, order$"),
        ({"attacks": ATTACKS[::-1]}, "not the same order$"),
        ({"seed": 1}, "not the same seed$"),
        ({"calls": 2}, "not the same calls$"),
        ({"keep_examples": False}, "not the same examples$"),
        ({"fit": to_fit(41)}, "not the same fit$"),
        ({"transfer": net(5)}, "not the same transfer model, "),
    ],
)
def test_the_state_of_another_evaluation_is_refused(half, options, words):
    refused(half, words, **options)


def test_the_state_of_other_images_is_refused(half):
    x, y = images()
    options = {"threat": Linf(0.05), "attacks": ATTACKS, "keep_examples": True, "state": half, "resume": True}
    options["fit"] = to_fit()
    with pytest.raises(UserError, match=r"not the same images$"):
        evaluate(net(), x.flip(3), y, **options)
    with pytest.raises(UserError, match=r"not the same labels$"):
        evaluate(net(), x, y.flip(0), **options)


def test_the_batch_size_may_be_another_one(half):
    one, other = evaluate_short(half, resume=True, batch_size=4), evaluate_short()
    assert one.broken_by == other.broken_by
    assert one.calibration["attacked"] == pytest.approx(other.calibration["attacked"])


def test_a_folder_that_is_not_there_is_refused_before_the_work(tmp_path):
    bound, calls = stop_at(0)
    with pytest.raises(UserError, match=r"cannot write .*missing"):
        evaluate_short(tmp_path / "missing" / "state", bound=bound)
    assert not calls


def test_writes_inside_a_stage_wait_for_their_time(tmp_path):
    now, outcomes = [0.0], Outcomes(torch.arange(3))
    file = StateFile(tmp_path / "state", {}, minutes=5, clock=lambda: now[0])
    assert file.is_due()
    file.save(outcomes)
    for now[0], due in ((299.0, False), (300.0, True)):
        assert file.is_due() is due
    assert not StateFile(None, {}).is_due()


def test_what_a_kill_left_half_written_is_removed(tmp_path):
    (tmp_path / ".state.123.partial").write_bytes(b"half")
    (tmp_path / ".other.123.partial").write_bytes(b"half")
    evaluate_short(tmp_path / "state", attacks=["fgsm"])
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.123.partial", "state"]


def test_a_checksum_tells_names_shapes_types_and_values_apart():
    given = [{"a": torch.zeros(4)}, {"b": torch.zeros(4)}, {"a": torch.zeros(2, 2)}, {"a": torch.zeros(4).int()}]
    given += [{"a": torch.tensor([0, 0, 0, -0.0])}, {}]
    assert len({checksum(tensors) for tensors in given}) == len(given)
    assert checksum({"a": torch.zeros(()), "b": None}) == checksum({"a": torch.zeros(())})


def as_process(monkeypatch, path, rank, *, at):
    """One of several processes, alone: it is killed as it writes for the at-th time, or ends before that."""
    save, calls = StateFile.save, []

    def stopping(self, *words):
        calls.append(1)
        if len(calls) > at:
            raise tiny.Killed
        save(self, *words)

    with monkeypatch.context() as patch:
        patch.setattr("uiat.evaluation.evaluator.current_rank", lambda: rank)
        patch.setattr(Rank, "gather", lambda self, value: [value])
        patch.setattr(StateFile, "save", stopping)
        with suppress(tiny.Killed):
            evaluate_short(path, resume=True)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("stops", [(1, 1), (4, 3), (30, 9), (9, 30, 18)])
def test_it_is_resumed_in_another_number_of_processes(monkeypatch, tmp_path, stops, caplog):
    whole = evaluate_short()
    for rank, at in enumerate(stops):
        as_process(monkeypatch, tmp_path / "state", Rank(rank, len(stops)), at=at)
    with caplog.at_level("INFO", logger="uiat"):
        assert_same(evaluate_short(tmp_path / "state", resume=True), whole)
    assert f"begun in {len(stops)} processes and is resumed in 1" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


@pytest.mark.usefixtures("short")
def test_where_a_process_had_not_begun_all_is_begun_again(monkeypatch, tmp_path):
    as_process(monkeypatch, tmp_path / "state", Rank(1, 2), at=12)
    with pytest.raises(UserError, match=r"state\.rank1-of-2 holds the state"):
        evaluate_short(tmp_path / "state")
    assert_same(evaluate_short(tmp_path / "state", resume=True), evaluate_short())
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


@pytest.mark.usefixtures("short")
def test_the_state_of_another_evaluation_is_refused_from_any_number_of_processes(monkeypatch, tmp_path):
    for rank in range(2):
        as_process(monkeypatch, tmp_path / "state", Rank(rank, 2), at=4)
    with pytest.raises(UserError, match=r"rank0-of-2 is the state of another evaluation: not the same seed"):
        evaluate_short(tmp_path / "state", resume=True, seed=1)
    assert len(list(tmp_path.iterdir())) == 2


def test_the_images_and_the_file_of_a_process():
    assert [Rank(rank, 3).index(7).tolist() for rank in range(3)] == [[0, 3, 6], [1, 4], [2, 5]]
    assert Rank(rank=2, size=3).index(1).tolist() == []
    assert Rank().path(Path("a/state")) == Path("a/state")
    assert Rank(1, 2).path(Path("a/state")) == Path("a/state.rank1-of-2")
    assert Rank(1, 2).path(None) is None
