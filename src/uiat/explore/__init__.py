"""A page on which a person moves an image against a model and towards its class, and sees what the models answer."""

from uiat.explore.answers import Answer, Explorer, Question, Source
from uiat.explore.load import load_explorer
from uiat.explore.save import save_page
from uiat.explore.server import Site, serving

__all__ = ["Answer", "Explorer", "Question", "Site", "Source", "load_explorer", "save_page", "serving"]
