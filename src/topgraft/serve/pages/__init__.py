"""What people see: the page at `/`, and the interface at `/docs`. No file comes from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import jinja2
from fastapi import FastAPI, Request, Response

from topgraft import _page

SCRIPT, STYLE = "text/javascript", "text/css"
FILES = {
    "/page.css": ("page.css", STYLE),
    "/page.mjs": ("page.mjs", SCRIPT),
    "/ask.mjs": ("ask-server.mjs", SCRIPT),
}


def add_pages(app: FastAPI) -> None:
    """Add the page for photos and the description of the interface."""
    policy = {
        "Content-Security-Policy": f"{_page.POLICY}; frame-ancestors 'none'",
        "Cache-Control": "no-cache",
    }
    html = _page.part("page.html").decode().replace("{{ policy }}", _page.POLICY)

    def page() -> Response:
        return Response(html, media_type="text/html", headers=policy)

    def docs(request: Request) -> Response:
        environment = jinja2.Environment(
            loader=jinja2.PackageLoader("topgraft.serve.pages", "."),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
        )
        text = environment.get_template("docs.html").render(
            api=app.openapi(), base=str(request.base_url).rstrip("/")
        )
        return Response(text, media_type="text/html", headers=policy)

    app.add_api_route("/", page, include_in_schema=False)
    app.add_api_route("/docs", docs, include_in_schema=False)
    add_files(app, FILES)


def add_files(app: FastAPI, files: Mapping[str, tuple[str, str]]) -> None:
    """Add files of the pages: their names and media types by path."""

    def file(name: str, kind: str) -> Response:
        return Response(_page.part(name), media_type=kind, headers={"Cache-Control": "no-cache"})

    for path, (name, kind) in files.items():
        app.add_api_route(path, partial(file, name, kind), include_in_schema=False)
