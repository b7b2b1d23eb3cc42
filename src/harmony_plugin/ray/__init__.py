"""Harmony on Ray: rows and folders of replies split by Ray Data, and the vLLM plugin in replicas of Ray Serve.

    build_processor(config, preprocess=..., postprocess=harmony_plugin.ray.split)             # ray.data.llm
    harmony_plugin.ray.folders.split_folder("s3://bucket/replies", "s3://bucket/split")
    callback_config: {callback_class: harmony_plugin.ray.serve.RegisterParsers}               # ray.serve.llm

Scaling, placing and retrying are Ray's. Importing this module needs no Ray; its modules need what they are for.
"""

from .rows import FIELDS, Columns, split

__all__ = ["FIELDS", "Columns", "split"]
