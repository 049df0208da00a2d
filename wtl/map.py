"""The map of a workspace in a notebook."""

from html import escape


class Map:
    """A page with the map of a pool, which a notebook shows in a frame; the frame may load nothing.

    Attributes:
        page: The page, one HTML file.
    """

    def __init__(self, page: str, *, height: int) -> None:
        self.page = page
        self._height = height

    def _repr_html_(self) -> str:
        frame = f'sandbox="allow-scripts" width="100%" height="{self._height}" style="border:0" title="Map of the pool"'
        return f'<iframe {frame} srcdoc="{escape(self.page)}"></iframe>'
