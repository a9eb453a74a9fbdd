"""The type checker of the jaxtyping hook in tests: beartype, an int passing for a float as PEP 484 says."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
