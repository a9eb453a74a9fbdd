"""Data: sets by name or from the user's own tensors, their splits, and loaders that yield `Batch(x, y, index)`.

Images are in [0, 1] everywhere; normalisation is the model's first layer, never the data's business.
"""

from uiat.data.channels import STATS, statistics
from uiat.data.folder import Folder, open_folder
from uiat.data.imageset import Batch, ImageSet, as_float, check, from_dataset, from_tensors
from uiat.data.loader import Loader
from uiat.data.readers import NAMES, default_root, load, open_data, tensors
from uiat.data.sampling import AUGMENTATIONS
from uiat.data.split import split_validation, stratified_subset
from uiat.data.streaming import StreamingLoader, loader_for

__all__ = [
    "AUGMENTATIONS",
    "NAMES",
    "STATS",
    "Batch",
    "Folder",
    "ImageSet",
    "Loader",
    "StreamingLoader",
    "as_float",
    "check",
    "default_root",
    "from_dataset",
    "from_tensors",
    "load",
    "loader_for",
    "open_data",
    "open_folder",
    "split_validation",
    "statistics",
    "stratified_subset",
    "tensors",
]
