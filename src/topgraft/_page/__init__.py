"""The page that answers questions about photos: one for the server and for the export to browsers.

`page.html`, `page.css` and `page.mjs` are the same in both. They import `ask.mjs`, which says how a photo
becomes an answer: `ask-server.mjs` sends it, `ask-here.mjs` keeps it in the browser and needs `worker.mjs`,
`model.mjs` and `offline.js` beside it.
"""

from __future__ import annotations

from importlib.resources import files

POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; connect-src 'self'; worker-src 'self'; form-action 'none'; base-uri 'none'"
)
"""What the page may do: talk to where it came from, and to nobody else."""


def part(name: str) -> bytes:
    """Return the bytes of one of the page's files, as it lies in this package."""
    return files(__name__).joinpath(name).read_bytes()
