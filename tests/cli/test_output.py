from rich.console import Console

from uiat.cli.output import command, console, fields, table


def test_nothing_in_the_text_is_markup_and_a_pipe_is_wide(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    console().print("[8/255] :smile: " + "x" * 200)
    assert capsys.readouterr().out == "[8/255] :smile: " + "x" * 200 + "\n"
    console(quiet=True).print("nothing")
    assert capsys.readouterr().out == ""


def test_tables(capsys):
    Console(width=60).print(table("a", "number", rows=[("x", "1"), ("y", "22")], numbers=["number"], narrow=True))
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()[2:]] == ["x       1", "y      22"]
    shown = fields([("objective.weight", None, "lambda")])
    assert [list(column.cells) for column in shown.columns] == [["objective.weight"], ["null"], ["lambda"]]


def test_a_command_can_be_copied():
    assert command("evaluate", "a run", own_code=True) == "uiat evaluate 'a run' --own-code"
