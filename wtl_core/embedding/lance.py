"""Imports `lancedb` without the slow preparations of its web client, which nothing here calls.

To prepare its checks takes 0.4 s of the 0.9 s that the import takes, in each run, and its 200 models 0.1 s more.
"""

import pydantic

_validate_call, _config = pydantic.validate_call, pydantic.BaseModel.model_config
pydantic.validate_call = lambda function: function  # type: ignore[assignment]
pydantic.BaseModel.model_config = {**_config, "defer_build": True}  # a model is then completed at its first use
try:
    import lancedb
    from lancedb.index import IvfFlat
finally:
    pydantic.validate_call = _validate_call
    pydantic.BaseModel.model_config = _config

__all__ = ["IvfFlat", "lancedb"]
