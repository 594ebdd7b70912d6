"""Searches in one's own videos: which of the programs, then its arguments.

    python -m glscl_jax.search index --checkpoint runs/mine --videos videos --index my_index
    python -m glscl_jax.search query --index my_index "a dog runs on the beach"
    python -m glscl_jax.search serve --index my_index
    python -m glscl_jax.search export --index my_index --out features.parquet

The first makes an index of a folder, or brings one up to date; the second ranks its windows by a
sentence, a video or a picture; the third shows a page for it; the fourth writes its features for
other engines. `... index --help` has the flags.
"""

from glscl_jax.runtime import named_programs

PROGRAMS = {
    name: f"glscl_jax.search.{name}_program" for name in ("index", "query", "serve", "export")
}


def cli() -> None:
    """Runs the program that the first argument names."""
    named_programs.run(PROGRAMS, __doc__ or "")


if __name__ == "__main__":
    cli()
