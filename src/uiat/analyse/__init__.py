"""Run the paper's studies: each gives numbers as plain data, a figure of them, and what they say (UIAT, CVPR 2023)."""

from uiat.analyse.result import Result
from uiat.analyse.runner import STUDIES, run
from uiat.analyse.studies.ablation_rows import changes
from uiat.analyse.study import Study, StudyOptions

__all__ = ["STUDIES", "StudyOptions", "Result", "Study", "changes", "run"]
