"""The label loop: what a person is asked, what comes of the answers; `serve/labelling.py` has the page."""

from topgraft._relabel.layout import corrected_photos, write_layout
from topgraft._relabel.review import Review, table_of

__all__ = ["Review", "corrected_photos", "table_of", "write_layout"]
