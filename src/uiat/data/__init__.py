"""Data: sets by name or from the user's own tensors, their splits, and loaders that yield `Batch(x, y, index)`.

Images are in [0, 1] everywhere; normalisation is the model's first layer, never the data's business.
"""

from uiat.data.augmentation import AUGMENTATIONS, Augmentation
from uiat.data.catalog import NAMES, STATS, statistics
from uiat.data.extra import ExtraImages, open_extra
from uiat.data.image_folder import Folder, open_folder
from uiat.data.image_set import Batch, ImageSet, as_float, check_images, from_tensors
from uiat.data.loader import Loader
from uiat.data.map_dataset import from_dataset
from uiat.data.own_data import is_data_code
from uiat.data.sources import can_open, default_root, has_test_part, load, open_data, tensors
from uiat.data.split import Subsample, choose_subsample, split_validation, stratified_subset, take_images
from uiat.data.stream import Labelled, Stream, open_stream
from uiat.data.streaming import StreamingLoader, loader_for

__all__ = [
    "AUGMENTATIONS",
    "NAMES",
    "STATS",
    "Augmentation",
    "Batch",
    "ExtraImages",
    "Folder",
    "ImageSet",
    "Labelled",
    "Loader",
    "Stream",
    "StreamingLoader",
    "Subsample",
    "as_float",
    "can_open",
    "check_images",
    "choose_subsample",
    "default_root",
    "from_dataset",
    "from_tensors",
    "has_test_part",
    "is_data_code",
    "load",
    "loader_for",
    "open_data",
    "open_extra",
    "open_folder",
    "open_stream",
    "split_validation",
    "statistics",
    "stratified_subset",
    "take_images",
    "tensors",
]
