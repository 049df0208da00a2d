"""How events name what they are about. Imports nothing, so that the command line can use it too."""

import re


def workspace_resource(root: str) -> str:
    """The Prefect resource id of a workspace: `wtl.workspace.` and its root in letters, digits, dots and dashes."""
    return "wtl.workspace." + re.sub(r"[^A-Za-z0-9.]+", "-", root).strip("-")
