"""Export: the finished classifier for another runtime, and checked in it before it is there."""

from topgraft._export.make import Exported, export

__all__ = ["Exported", "export"]
