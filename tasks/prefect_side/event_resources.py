"""How events name the workspace that they are about. Imports nothing heavy: the command line uses it too."""

import hashlib
import re


def workspace_resource(root: str) -> str:
    """The Prefect resource id of a workspace: `wtl.workspace.`, its root in letters, digits, dots and dashes, a digest.

    The digest distinguishes `a/b` from `a-b`.
    """
    shown = re.sub(r"[^A-Za-z0-9.]+", "-", root).strip("-")
    return f"wtl.workspace.{shown}.{hashlib.sha256(root.encode()).hexdigest()[:8]}"
