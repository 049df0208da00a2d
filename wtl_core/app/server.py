"""`wtl ui`: a server for this machine's browser alone, over the live workspace. Routes, and nothing of what they show.

It listens on 127.0.0.1, asks for a token (`guard`), reads while others write, and writes nothing but decisions.
"""

import socket
import threading
from contextlib import suppress
from importlib.resources import files
from typing import Annotated, Any, Literal

import numpy as np
import uvicorn
from fastapi import FastAPI, HTTPException, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from wtl_core.app import decisions, preview, rooms
from wtl_core.app.guard import Application, Guard
from wtl_core.app.live import STATES, Live
from wtl_core.app.pictures import Pictures
from wtl_core.app.preview import Previews
from wtl_core.errors import BusyError, ConfigError, CorruptArtifactError, InputError, TransientError, WtlError
from wtl_core.workspace.storage import Store

SampleId = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]
Start = Annotated[int, Query(ge=0, le=1_000_000_000)]
Count = Annotated[int, Query(ge=1, le=500)]
_FOR_EVER = {"cache-control": "private, max-age=31536000, immutable"}
"""Of what lies under the digest of its content: images, and columns."""
_STATUS = {ConfigError: 422, InputError: 422, BusyError: 409, TransientError: 503, CorruptArtifactError: 503}
_KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_FILES = {
    "/": ("wtl_core.app", "index.html"),
    **{
        f"/{name}": ("wtl_core.app", name)
        for name in (
            "app.js",
            "kit.js",
            "decide.js",
            "decided.js",
            "look.js",
            "picks.js",
            "map_room.js",
            "rooms.js",
            "recipe.js",
            "app.css",
        )
    },
    **{f"/{name}": ("wtl_core.report", name) for name in ("map.js", "dots.js", "shared.js", "grid.js", "page.css")},
}


Ids = Annotated[
    list[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]], Field(min_length=1, max_length=rooms.MOST_AT_ONCE)
]


class Asked(BaseModel):
    """A decision on some samples, and what it was made on, see `decisions.decide`."""

    ids: Ids
    decision: decisions.Decision
    expected: Annotated[dict[str, decisions.Decision], Field(max_length=rooms.MOST_AT_ONCE)] = {}
    by: Annotated[str, Field(max_length=300)] = ""


class Named(BaseModel):
    """Samples whose names are asked for."""

    ids: Ids


class TakenBack(BaseModel):
    """An entry of the ledger that no longer counts, for all its samples or some, see `decisions.undo`."""

    entry: Annotated[int, Field(ge=1, le=1_000_000_000)]
    ids: Ids | None = None


class Changed(BaseModel):
    """Parameters of the selection that a preview changes, see `recipe.selection`."""

    selection: Annotated[dict[str, Any], Field(max_length=40)]


def create_app(live: Live, *, token: str, port: int) -> Application:
    """The application over a workspace, behind its guard.

    Args:
        live: The workspace.
        token: What every request must bring.
        port: Of the server, which its requests name.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    _add_files(app)
    _add_rooms(app, live)
    _add_pictures(app, live, Pictures(live.store))
    _add_columns(app, live)
    _add_decisions(app, live)
    _add_recipe(app, live, Previews(live))

    @app.exception_handler(WtlError)
    def explain(_request: Request, error: Exception) -> JSONResponse:
        status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 500)
        return JSONResponse({"error": str(error)}, status)

    return Guard(app, token=token, port=port)


def serve(store: Store, taken: socket.socket, *, token: str) -> None:
    """Answer on a socket that listens until the process is told to end."""
    port = int(taken.getsockname()[1])
    live = Live(store)
    threading.Thread(target=_load, args=(live,), name="wtl-app-load", daemon=True).start()
    app = create_app(live, token=token, port=port)
    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, date_header=False)
    uvicorn.Server(config).run(sockets=[taken])


def _add_files(app: FastAPI) -> None:
    for address, (package, name) in _FILES.items():
        kind = f"{_KINDS[name.rpartition('.')[2]]}; charset=utf-8"
        answer = Response(files(package).joinpath(name).read_bytes(), headers={"content-type": kind})
        app.add_api_route(address, lambda answer=answer: answer, methods=["GET"], response_model=None)


def _add_rooms(app: FastAPI, live: Live) -> None:
    @app.get("/api/state")
    def state() -> dict[str, Any]:
        return rooms.state(live)

    @app.get("/api/picks")
    def picks(start: Start = 0, count: Count = 100, show: Literal["all", "open", "decided"] = "all") -> dict[str, Any]:
        return rooms.queue(live, start=start, count=count, show=show)

    @app.get("/api/images/{sample_id}")
    def image(sample_id: SampleId) -> dict[str, Any]:
        return rooms.image(live, _row(live, sample_id))

    @app.get("/api/images/{sample_id}/neighbours")
    def neighbours(sample_id: SampleId) -> dict[str, Any]:
        return rooms.neighbours(live, _row(live, sample_id))

    @app.get("/api/near")
    def near(start: Start = 0, count: Count = 20) -> dict[str, Any]:
        return rooms.near_groups(live, start=start, count=count)

    @app.get("/api/near/{sample_id}")
    def near_group(sample_id: SampleId) -> dict[str, Any]:
        return {"items": rooms.near_group(live, _row(live, sample_id))}

    @app.get("/api/find")
    def find(name: Annotated[str, Query(min_length=1, max_length=300)]) -> dict[str, Any]:
        return rooms.find(live, name)

    @app.post("/api/names")
    def names(asked: Named) -> dict[str, Any]:
        return {"names": rooms.names(live, asked.ids)}

    @app.get("/api/arrivals")
    def arrivals(start: Start = 0, count: Count = 100) -> dict[str, Any]:
        return rooms.arrivals(live, start=start, count=count)

    @app.get("/api/quarantine")
    def quarantine(
        start: Start = 0, count: Count = 100, reason: Annotated[str, Query(max_length=60)] = ""
    ) -> dict[str, Any]:
        return rooms.quarantine(live, start=start, count=count, reason=reason)

    @app.get("/api/labels")
    def labels() -> dict[str, Any]:
        return rooms.labels(live)

    @app.get("/api/doubtful")
    def doubtful(count: Count = 60) -> dict[str, Any]:
        return rooms.doubtful(live, count=count)


def _add_pictures(app: FastAPI, live: Live, pictures: Pictures) -> None:
    def answer(data: bytes | None) -> Response:
        if data is None:
            raise HTTPException(404, "the image can no longer be read")
        return Response(data, media_type="image/jpeg", headers=_FOR_EVER)

    @app.get("/thumbs/{sample_id}")
    def thumbnail(sample_id: SampleId) -> Response:
        return answer(pictures.thumbnail(*_place(live, sample_id)))

    @app.get("/images/{sample_id}")
    def large(sample_id: SampleId) -> Response:
        return answer(pictures.large(*_place(live, sample_id)))


def _add_columns(app: FastAPI, live: Live) -> None:
    @app.get("/api/columns")
    def listed() -> dict[str, Any]:
        view = live.view()
        found = {name: {"kind": column.kind, "digest": column.digest} for name, column in view.columns().items()}
        return {
            "refresh": view.commit.number,
            "count": view.samples.height,
            "columns": found,
            "levels": view.levels,
            "has_places": view.has_places,
            "groupings": [group.described() for group in view.groupings],
        }

    @app.get("/columns/{name}/{digest}")
    def column(
        name: Annotated[str, Path(pattern=r"^[a-z0-9]{1,20}$")],
        digest: Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")],
    ) -> Response:
        found = live.view().columns().get(name)
        if found is None or found.digest != digest:
            raise HTTPException(404, "no such column of this refresh; load the page again")
        return Response(found.array.data.cast("B"), media_type="application/octet-stream", headers=_FOR_EVER)

    @app.get("/api/states")
    def states() -> Response:
        """The code of each row's state, one byte each, as `live.STATES` has them."""
        entries = live.entries()
        headers = {"x-wtl-entries": str(entries.length), "x-wtl-states": ",".join(STATES)}
        return Response(entries.states.tobytes(), media_type="application/octet-stream", headers=headers)

    @app.get("/api/mask")
    def mask(where: Annotated[str, Query(min_length=1, max_length=1000)]) -> Response:
        """One bit a row, the first row in the lowest bit, and the number of rows in a header."""
        holds = live.view().holds(where)
        packed = np.packbits(holds, bitorder="little").tobytes()
        return Response(packed, media_type="application/octet-stream", headers={"x-wtl-count": str(int(holds.sum()))})


def _add_decisions(app: FastAPI, live: Live) -> None:
    @app.post("/api/decisions")
    def decide(asked: Asked) -> dict[str, Any]:
        done = decisions.decide(
            live.store, asked.ids, asked.decision, expected=asked.expected, request=asked.by or None
        )
        return {"now": done.now, "left": done.left}

    @app.post("/api/undo")
    def undo(asked: TakenBack) -> dict[str, Any]:
        done = decisions.undo(live.store, asked.entry, asked.ids)
        return {"now": done.now, "left": done.left}

    @app.get("/api/decisions")
    def decided(
        start: Start = 0, count: Count = 20, show: Literal["all", "kept", "unusable", "redundant"] = "all"
    ) -> dict[str, Any]:
        return rooms.decided(live, start=start, count=count, show=show)

    @app.get("/api/decisions/{entry}")
    def decided_by(entry: Annotated[int, Path(ge=1, le=1_000_000_000)]) -> dict[str, Any]:
        return {"items": rooms.decided_by(live, entry)}


def _add_recipe(app: FastAPI, live: Live, previews: Previews) -> None:
    @app.get("/api/recipe")
    def recipe() -> dict[str, Any]:
        return rooms.recipe(live)

    @app.post("/api/preview")
    def start(changed: Changed) -> dict[str, Any]:
        return {"number": previews.start(changed.selection)}

    @app.get("/api/preview")
    def look() -> dict[str, Any]:
        return preview.told(previews.current())

    @app.get("/api/preview/picks")
    def picks(start: Start = 0, count: Count = 100) -> dict[str, Any]:
        job = previews.current()
        return {"start": start, "items": [] if job is None else preview.picks(job, start=start, count=count)}


def _row(live: Live, sample_id: str) -> int:
    row = live.view().row_of(sample_id)
    if row < 0:
        raise HTTPException(404, "no image of the pool has this id")
    return row


def _place(live: Live, sample_id: str) -> tuple[str, int]:
    """Part and row of a sample in the pool's files."""
    told = live.view().samples.row(_row(live, sample_id), named=True)
    return str(told["part"]), int(told["row"])


def _load(live: Live) -> None:
    """Load the view before the first page asks for it, which is told where that fails, and then what rooms ask for."""
    with suppress(WtlError):
        live.view().columns()
