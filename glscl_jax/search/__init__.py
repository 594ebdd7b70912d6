"""Search in one's own videos: an index of their windows, and the model's own ranking of them.

index = glscl_jax.search.open("DIR")
for hit in index.query("a dog runs on the beach").hits:
    print(hit.score, hit.video, hit.start, hit.end)
"""

__all__ = ["open"]


def __getattr__(name: str):
    # On first use, as `glscl_jax.load`.
    if name == "open":
        from glscl_jax.search.index import open

        return open
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
