"""The format `tfds:NAME_OR_DIRECTORY/SPLIT?fps=25`: a split of a data set of TensorFlow Datasets."""

from videodit_data.formats.registry import register_format
from videodit_data.tfds.source import open_tfds

register_format("tfds", open_tfds)
