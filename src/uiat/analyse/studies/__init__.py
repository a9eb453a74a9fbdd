"""The studies, one file each, named as `uiat analyse` names them.

A study is a module with `measure` (runs and images to plain data), `sentences` (what the data say), `draw` (a figure of
them), where a table says more, `table`, and `STUDY`, which holds them; and its name in `uiat.analyse.runner`.
"""
