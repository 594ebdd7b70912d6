"""A step of each family of encoders in sizes B and L, on sixteen chips, on four, and on one GPU.

MetaCLIP 2 begins at H, CLIPA at L. 128 clips, the recipe's batch, and half as many of L and H; of
v5e:4x4 twice as many, for a chip to have something to do. Of VideoPrism it is its own config, with
as many frames as it was trained with, few clips at once, and the recipe's batch everywhere.
"""

from benchmarks.compiled.rows import ROWS, Row

# Devices, and what `train` is given for them: docs/training.md.
DEVICES = {"v5e:4x4": ("--config.mesh.fsdp=8",), "v5p:2x2x1": (), "h100x1": ()}
# By family, what of its recipe is not the default.
_ALL_PLACES = "--config.data.num_words=64"
MODELS = {
    "ViT-B/16": (),
    "ViT-L/14": (),
    "SigLIP-B/16": (_ALL_PLACES,),
    "SigLIP-L/16@256": (_ALL_PLACES,),
    "SigLIP2-B/16": (_ALL_PLACES,),
    "SigLIP2-L/16@256": (_ALL_PLACES,),
    "PE-Core-B/16": (),
    "PE-Core-L/14@336": (),
    "MetaCLIP2-H/14": (),
    "CLIPA-L/14": (),
    # Its micro-batches would each gather the parameters, which a chip holds whole; those of L, four
    # clips a chip and not eight, are quicker along fsdp.
    "VideoPrism-B/18@288": ("--config.mesh.fsdp=1",),
    "VideoPrism-L/18@288": ("--config.data.num_frames=8",),
}
# Clips at once: in the last blocks all patches of all frames of a clip see each other.
AT_ONCE = {"v5e:4x4": 16, "v5p:2x2x1": 16, "h100x1": 8}


def _row(topology: str, variant: str) -> Row:
    is_prism = variant.startswith("VideoPrism")
    clips = 128 if "-B" in variant else 64
    clips *= 2 if topology == "v5e:4x4" and not is_prism else 1
    flags = (*DEVICES[topology], *MODELS[variant])
    name = f"{topology} {variant} {clips}"
    if not is_prism:
        return Row(name, topology, variant, clips, flags)
    at_once = f"--config.microbatch={AT_ONCE[topology]}"
    return Row(
        name, topology, variant, clips, (*flags, at_once), config="configs/msrvtt.py:videoprism_b"
    )


# A step that is among the others already is that one.
_KNOWN = {row.name: row for row in ROWS}
FAMILIES = tuple(
    _KNOWN.get(row.name, row)
    for row in (_row(topology, variant) for topology in DEVICES for variant in MODELS)
)
