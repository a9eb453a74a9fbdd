"""An evaluation that is stopped at any moment goes on to the same verdicts; a file that does not fit is left alone."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

import uiat
from support import tiny
from support.paths import ROOT, SRC
from uiat import L2, Linf, UserError
from uiat.attacks import APGD, FAB, Square
from uiat.evaluation import registry
from uiat.evaluation.engine.outcomes import Outcomes, merge_outcomes
from uiat.evaluation.engine.state_file import StateFile, checksum
from uiat.system.atomic_files import read_tensors, write_tensors
from uiat.system.distributed import Rank

ATTACKS = ("pgd-3-2", "autoattack")
evaluate = partial(uiat.evaluate, selfchecks=False)


def net(seed=3):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 3)).double()


def images(n=24):
    x = torch.rand(n, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y = net()(x).argmax(1)
    y[0] = (y[0] + 1) % 3
    return x, y


@pytest.fixture
def short(monkeypatch):
    """The standard ensemble with budgets for tests."""
    searches = {
        "apgd-ce": lambda threat: APGD(threat=threat, loss="ce", iterations=5),
        "apgd-t": lambda threat: APGD(threat=threat, loss="targeted-dlr", iterations=3),
        "fab-t": lambda threat: FAB(threat=threat, iterations=3),
        "square": lambda threat: Square(threat=threat, iterations=12),
    }
    monkeypatch.setattr(registry, "_SEARCHES", searches)


def judged(path=None, *, model=None, threat=None, **options):
    x, y = images()
    settings = {"attacks": ATTACKS, "batch_size": 9, "save_minutes": 0.0, "keep_examples": True} | options
    return evaluate(model or net(), x, y, threat=threat or Linf(0.05), state=path, **settings)


def same(one, other):
    names = ("accuracy", "broken_by", "stages", "intervals", "per_class", "calibration", "budgets")
    assert {name: getattr(one, name) for name in names} == {name: getattr(other, name) for name in names}
    assert torch.equal(one.examples, other.examples)


def stopping(at):
    """A bound that raises when it is told something for the at-th time; it counts all."""
    calls = []

    def bound(stage, share):
        calls.append(stage)
        if len(calls) == at:
            raise tiny.Killed

    return bound, calls


@pytest.mark.usefixtures("short")
def test_wherever_it_is_stopped_it_goes_on_to_the_same_verdicts(tmp_path):
    bound, calls = stopping(0)
    whole = judged(bound=bound)
    assert {"clean", "pgd-3-2", "apgd-ce", "square"} <= set(whole.broken_by) | set(calls)
    for at in range(1, len(calls) + 1, 13):
        path = tmp_path / f"{at}.state"
        with pytest.raises(tiny.Killed):
            judged(path, bound=stopping(at)[0])
        same(judged(path, resume=True), whole)


@pytest.mark.usefixtures("short")
def test_stopped_again_and_again(tmp_path):
    whole, path, stops = judged(), tmp_path / "state", 0
    while True:
        try:
            result = judged(path, resume=True, bound=stopping(14)[0])  # up to five of them for what is done
            break
        except tiny.Killed:
            stops += 1
    assert stops > 2
    same(result, whole)
    assert result.seconds.keys() == whole.seconds.keys()


@pytest.mark.usefixtures("short")
def test_a_finished_evaluation_is_read_back_without_an_attack(tmp_path):
    model = net()
    whole = judged(tmp_path / "state", model=model)
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    same(judged(tmp_path / "state", model=model, resume=True), whole)
    assert len(calls) < 10  # the checks of the model and of its faster form, and no attack
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


@pytest.fixture
def half(tmp_path, short):
    path = tmp_path / "evaluation.state"
    with pytest.raises(tiny.Killed):
        judged(path, bound=stopping(12)[0])
    return path


def refused(path, words, **options):
    before = path.read_bytes()
    with pytest.raises(UserError, match=f"{re.escape(str(path))}.*{words}"):
        judged(path, **{"resume": True} | options)
    assert path.read_bytes() == before


def test_a_file_that_is_in_the_way_is_not_overwritten(half):
    refused(half, r"go on with it \(resume\) or delete it", resume=False)


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
        ({"keep_examples": False}, "not the same examples$"),
        ({"transfer": net(5)}, "not the same transfer model, "),
    ],
)
def test_the_state_of_another_evaluation_is_refused(half, options, words):
    refused(half, words, **options)


def test_the_state_of_other_images_is_refused(half):
    x, y = images()
    options = {"threat": Linf(0.05), "attacks": ATTACKS, "keep_examples": True, "state": half, "resume": True}
    with pytest.raises(UserError, match=r"not the same images$"):
        evaluate(net(), x.flip(3), y, **options)
    with pytest.raises(UserError, match=r"not the same labels$"):
        evaluate(net(), x, y.flip(0), **options)


def test_the_batch_size_may_be_another_one(half):
    one, other = judged(half, resume=True, batch_size=4), judged()
    assert one.broken_by == other.broken_by


def test_a_folder_that_is_not_there_is_refused_before_the_work(tmp_path):
    bound, calls = stopping(0)
    with pytest.raises(UserError, match=r"cannot write .*missing"):
        judged(tmp_path / "missing" / "state", bound=bound)
    assert not calls


def test_writes_inside_a_stage_wait_for_their_time(tmp_path):
    now, tally = [0.0], Outcomes(torch.arange(3))
    keeper = StateFile(tmp_path / "state", {}, minutes=5, clock=lambda: now[0])
    assert keeper.due()
    keeper.save(tally)
    for now[0], due in ((299.0, False), (300.0, True)):
        assert keeper.due() is due
    assert not StateFile(None, {}).due()


def test_what_a_kill_left_half_written_is_removed(tmp_path):
    (tmp_path / ".state.123.partial").write_bytes(b"half")
    (tmp_path / ".other.123.partial").write_bytes(b"half")
    judged(tmp_path / "state", attacks=["fgsm"])
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.123.partial", "state"]


def test_a_tally_comes_back_as_it_was():
    tally = Outcomes(torch.arange(3), examples=torch.zeros(3, 2), confidence=torch.rand(3), limit=4)
    tally.note("clean", "clean", torch.tensor([True, True, False]), torch.zeros(3, 2))
    tally.note("b", "b", torch.tensor([True, False, False]), torch.ones(3, 2))
    tally.note("a", "a", torch.tensor([False, True, False]), torch.full((3, 2), 2.0))
    tally.spend("b", "b", {"seconds": 0.5})
    tally.spend("b", "b", {"seconds": 0.25})
    tally.learn("a", torch.tensor([True, False, True]), torch.tensor([True, False, False]))
    again = Outcomes.unpack(tally.pack())
    assert list(again.right) == ["clean", "b", "a"]
    assert again.verdicts("a").tolist() == [1, -1, 0]
    assert again.verdicts("b").tolist() == [-1, -1, -1]
    for field in dataclasses.fields(Outcomes):
        one, other = getattr(tally, field.name), getattr(again, field.name)
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else str(one) == str(other)
    assert again.breaker.tolist() == [2, 1, 0]
    assert again.examples[:, 0].tolist() == [2, 1, 0]
    assert again.spent == {"b": {"b": {"seconds": 0.75}}}


def test_a_checksum_tells_names_shapes_types_and_values_apart():
    given = [{"a": torch.zeros(4)}, {"b": torch.zeros(4)}, {"a": torch.zeros(2, 2)}, {"a": torch.zeros(4).int()}]
    given += [{"a": torch.tensor([0, 0, 0, -0.0])}, {}]
    assert len({checksum(tensors) for tensors in given}) == len(given)
    assert checksum({"a": torch.zeros(()), "b": None}) == checksum({"a": torch.zeros(())})


def split_evaluation(folder, **options):
    """An evaluation, and what is to be compared of it."""
    x, y = images(21)
    options |= {"batch_size": 3, "keep_examples": True, "state": folder / "state"}
    result = evaluate(net(), x, y, threat=Linf(0.06), attacks=["pgd-3", "autoattack-quick"], **options)
    record = result.to_json()
    names = ("accuracy", "broken_by", "stages", "intervals", "per_class", "calibration", "passes")
    return {name: record[name] for name in names} | {"examples": result.examples.tolist()}


PROCESS = """
import json, sys
import torch, torch.distributed as dist
torch.set_num_threads(1)
from pathlib import Path
import uiat
from test_state_file import split_evaluation
rank, folder, told, facts = int(sys.argv[1]), Path(sys.argv[2]), [], {}
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
facts["result"] = split_evaluation(folder, progress=lambda *words: told.append(words))
facts["told"] = bool(told)
try:
    split_evaluation(folder)
except uiat.UserError as error:
    facts["refused"] = str(error)
(folder / f"{rank}.json").write_text(json.dumps(facts))
dist.destroy_process_group()
"""


def test_two_processes_come_to_the_verdicts_of_one(tmp_path):
    paths = [str(SRC), str(ROOT / "tests"), os.path.dirname(__file__)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    commands = ([sys.executable, "-c", PROCESS, str(rank), str(tmp_path)] for rank in range(2))
    started = [subprocess.Popen(command, env=environment) for command in commands]
    (tmp_path / "alone").mkdir()
    alone = split_evaluation(tmp_path / "alone")
    assert [process.wait(timeout=200) for process in started] == [0, 0]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first["result"] == second["result"] == json.loads(json.dumps(alone))
    assert len(set(alone["broken_by"])) > 2
    assert (first["told"], second["told"]) == (True, False)
    # Each is told of its own file, and neither waits for the other.
    for rank, facts in enumerate((first, second)):
        assert f"state.rank{rank}-of-2 holds the state of an evaluation" in facts["refused"]
    with pytest.raises(UserError, match=r"state\.rank0-of-2 holds the state of an evaluation"):
        split_evaluation(tmp_path)
    on = split_evaluation(tmp_path, resume=True)
    assert {**on, "passes": None} == {**alone, "passes": None}
    for kind in ("forward", "backward"):  # no attack was run again: the first of them had counted it all
        assert on["passes"]["apgd-t"][kind] == alone["passes"]["apgd-t"][kind]
    assert [path.name for path in tmp_path.glob("state*")] == ["state"]


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
            judged(path, resume=True)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("stops", [(1, 1), (4, 3), (30, 9), (9, 30, 18)])
def test_it_goes_on_in_another_number_of_processes(monkeypatch, tmp_path, stops, caplog):
    whole = judged()
    for rank, at in enumerate(stops):
        as_process(monkeypatch, tmp_path / "state", Rank(rank, len(stops)), at=at)
    with caplog.at_level("INFO", logger="uiat"):
        same(judged(tmp_path / "state", resume=True), whole)
    assert f"begun in {len(stops)} processes and goes on in 1" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


@pytest.mark.usefixtures("short")
def test_where_a_process_had_not_begun_nothing_is_known(monkeypatch, tmp_path):
    as_process(monkeypatch, tmp_path / "state", Rank(1, 2), at=12)
    with pytest.raises(UserError, match=r"state\.rank1-of-2 holds the state"):
        judged(tmp_path / "state")
    same(judged(tmp_path / "state", resume=True), judged())
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


@pytest.mark.usefixtures("short")
def test_the_state_of_another_evaluation_is_refused_from_any_number_of_processes(monkeypatch, tmp_path):
    for rank in range(2):
        as_process(monkeypatch, tmp_path / "state", Rank(rank, 2), at=4)
    with pytest.raises(UserError, match=r"rank0-of-2 is the state of another evaluation: not the same seed"):
        judged(tmp_path / "state", resume=True, seed=1)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.usefixtures("short")
def test_what_one_process_knows_is_divided_and_put_together_again(tmp_path):
    judged(tmp_path / "state")
    (tally, _) = StateFile(tmp_path / "state", read_tensors(tmp_path / "state")[1]["belongs"]).open(resume=True)
    parts = [merge_outcomes([tally], Rank(rank, 3)) for rank in range(3)]
    assert [len(part.index) for part in parts] == [8, 8, 8]
    again = merge_outcomes(parts, Rank())
    assert (again.names, again.after, again.spent) == (tally.names, tally.after, tally.spent)
    assert torch.equal(again.breaker, tally.breaker)
    assert torch.equal(again.examples, tally.examples)
    assert torch.equal(again.confidence, tally.confidence)
    for known in ("right", "known"):
        one, other = getattr(tally, known), getattr(again, known)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_share_of_a_process():
    assert [Rank(rank, 3).index(7).tolist() for rank in range(3)] == [[0, 3, 6], [1, 4], [2, 5]]
    assert Rank(rank=2, size=3).index(1).tolist() == []
    assert Rank().path(Path("a/state")) == Path("a/state")
    assert Rank(1, 2).path(Path("a/state")) == Path("a/state.rank1-of-2")
    assert Rank(1, 2).path(None) is None


@pytest.mark.usefixtures("short")
def test_a_process_without_images_does_nothing(monkeypatch):
    """As with one image and two processes; what the other one would say is left out."""
    x, y = images(1)
    monkeypatch.setattr("uiat.evaluation.evaluator.current_rank", lambda: Rank(1, 2))
    monkeypatch.setattr(Rank, "gather", lambda self, value: [value])
    result = evaluate(net(), x, y, threat=Linf(0.05), attacks=ATTACKS)
    assert set(result.accuracy.values()) == {0}  # of one image, none is known to be right


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("attacks", [("apgd-t", "autoattack"), ("autoattack-quick", "autoattack", "apgd-t")])
def test_what_two_attacks_share_is_run_once(attacks, tmp_path):
    alone = {name: judged(attacks=[name]) for name in attacks}
    bound, calls = stopping(0)
    both = judged(attacks=attacks, bound=bound)
    for name, one in alone.items():
        assert both.accuracy[name] == one.accuracy[name]
        assert both.stages.get(name) == one.stages.get(name)
    most, clean = max(alone.values(), key=lambda r: len(r.passes)), alone[attacks[0]].passes["clean"]["forward"]
    assert both.passes["apgd-ce"] == most.passes["apgd-ce"]
    # APGD-T alone looks at what APGD-CE has broken, too; nothing is looked at twice.
    assert both.passes["apgd-t"] == alone["apgd-t"].passes["apgd-t"]
    assert both.passes["clean"]["forward"] == clean
    path = tmp_path / "state"
    with pytest.raises(tiny.Killed):
        judged(path, attacks=attacks, bound=stopping(2 * len(calls) // 3)[0])
    same(judged(path, attacks=attacks, resume=True), both)


def test_stages_of_one_name_and_other_settings_are_told_apart():
    x, y = images(5)
    attacks = ["autoattack-quick", "autoattack-rand", "apgd-ce"]
    result = evaluate(net(), x, y, threat=Linf(0.05), attacks=attacks)
    assert result.budgets["apgd-ce"]["draws"] == 1
    assert result.budgets["apgd-ce (autoattack-rand)"]["draws"] == 20
    assert list(result.stages["autoattack-rand"]) == ["apgd-ce (autoattack-rand)", "apgd-dlr"]
    assert result.accuracy["apgd-ce"] == result.stages["autoattack-quick"]["apgd-ce"]
    alone = evaluate(net(), x, y, threat=Linf(0.05), attacks=["apgd-ce"])
    assert result.passes["apgd-ce"] == alone.passes["apgd-ce"]
