"""The type checker of the jaxtyping hook in tests: beartype, an int passing for a float as PEP 484 says.

It looks at the first item of a container, not at one drawn from Python's random generator: a draw in a step would keep
it from being recorded (`uiat.speed.cuda_graphs`).
"""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True, is_random=False))
