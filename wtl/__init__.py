"""What to label, in Python: open a workspace, or rank vectors of your own. Imports neither torch nor Prefect by itself.

import wtl
ws = wtl.open("workspace")
ws.ranking(), ws.cut("5%"), ws.ladder().plot()
wtl.rank(vectors, ids).cut("5%")
"""

from wtl.engine import Ranking, rank
from wtl.labels import Labels
from wtl.ladder import Ladder
from wtl.picks import Picks
from wtl.workspace import Vectors, Workspace, open  # noqa: A004, `wtl.open` reads as it should
from wtl_core.errors import ConfigError, InputError, TransientError, WtlError

__all__ = [
    "ConfigError",
    "InputError",
    "Labels",
    "Ladder",
    "Picks",
    "Ranking",
    "TransientError",
    "Vectors",
    "Workspace",
    "WtlError",
    "open",
    "rank",
]
