"""What is taken home: a whole program, the plan as a file, a link; and the way back from a file or a link."""

import base64
from collections.abc import Callable
from html import escape

import ipywidgets as widgets

from ..explorer import WIDE
from .sheet import Sheet


class Taking(widgets.VBox):
    """A program to copy, a file and a link that restore everything, and where they are put back.

    `restore(text)` is called with the text of a file or of a link.
    """

    def __init__(self, restore: Callable[[str], None]):
        tall = widgets.Layout(width="auto", height="auto")
        self.code = widgets.Textarea(description="program", rows=18, layout=tall)
        self.copy = widgets.Button(description="Copy the program", layout={"align_self": "flex-start"})
        self.links = widgets.HTML()
        self.given = widgets.Text(
            description="link or file", placeholder="paste a link or the text of a file", layout=widgets.Layout(**WIDE)
        )
        self.put = widgets.Button(description="Restore")
        self.upload = widgets.FileUpload(accept=".json", multiple=False, description="Open a file", icon="")
        super().__init__([self.code, self.copy, self.links, self.given, widgets.HBox([self.put, self.upload])])
        self.add_class("ttq-take")
        self.copy.add_class("ttq-copy")
        self.code.add_class("ttq-program")
        self.put.on_click(lambda _: restore(self.given.value))
        self.upload.observe(lambda move: self._read(move["new"], restore), "value")

    def show(self, sheet: Sheet, program: str) -> None:
        """The program and the links of one moment."""
        self.code.value, link = program, sheet.to_link()
        files = {"plan.py": program, "plan.json": sheet.to_json()}
        saved = " · ".join(
            f'<a download="{name}" href="data:text/plain;base64,{base64.b64encode(text.encode()).decode()}">'
            f"Download {name}</a>"
            for name, text in files.items()
        )
        self.links.value = (
            f'{saved} · <a class="ttq-link" href="?plan={escape(link)}">This plan as a link</a> (in JupyterLab copy '
            "its address and paste it below: it restores the model, the plan and what was put beside it)"
        )

    @staticmethod
    def _read(files, restore: Callable[[str], None]) -> None:
        for file in files:
            restore(bytes(file["content"]).decode("utf-8", errors="replace"))
