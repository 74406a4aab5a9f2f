from tests.pipeline.read.conftest import bucket, store

__all__ = ["bucket", "store"]
