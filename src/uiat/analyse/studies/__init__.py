"""The studies, a file each, named as `uiat analyse` names them."""
