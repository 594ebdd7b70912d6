"""What is compared: heads, and GLSCL's with one thing changed, or several."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from benchmarks.lim_study import recipe
from benchmarks.lim_study.head import StudyHead
from glscl_jax.models.glscl import GLSCLConfig
from glscl_jax.models.heads.head import HEADS, Head


@dataclasses.dataclass(frozen=True)
class Shape:
    """What decides which program a variant is trained by; `lim` is of GLSCL's head alone.

    Attributes:
      head: a name of `HEADS`.
      temporal: a name of `temporal.KINDS`.
      queries, lim_layers, share_queries, share_decoder: as `GLSCLHead` has them.
    """

    head: str = "lim_study"
    temporal: str = "seqTransf"
    queries: int = 8
    lim_layers: int = recipe.LIM_LAYERS
    share_queries: bool = True
    share_decoder: bool = True

    @property
    def has_lim(self) -> bool:
        """Whether it is GLSCL's head, and options and starts count."""
        return self.head == StudyHead.name

    def model_config(self, **more) -> GLSCLConfig:
        """The demo's model with this head; `more` are its further settings."""
        return dataclasses.replace(recipe.MODEL, temporal=self.temporal, head=self._head_of(more))

    def _head_of(self, more: Mapping[str, Any]) -> Head:
        if not self.has_lim:
            return HEADS[self.head]()
        return StudyHead(
            queries=self.queries,
            lim_layers=self.lim_layers,
            lim_heads=recipe.LIM_HEADS,
            lim_feed_forward=recipe.LIM_FEED_FORWARD,
            lim_dropout=0.0,
            share_queries=self.share_queries,
            share_decoder=self.share_decoder,
            **more,
        )

    def settings(self) -> dict[str, Any]:
        """What of it is not the usual."""
        usual = Shape()
        names = ("queries", "lim_layers", "share_queries", "share_decoder")
        changed = {name: getattr(self, name) for name in names}
        return {name: x for name, x in changed.items() if x != getattr(usual, name)}


@dataclasses.dataclass(frozen=True)
class Variant:
    """One thing that is trained with every seed.

    Attributes:
      name: what it is called.
      shape: see there.
      options: of `Options`, what is not the reference's.
      start: how queries begin, a name of `STARTS`; "" as the reference's.
    """

    name: str
    shape: Shape = Shape()
    options: tuple[tuple[str, float], ...] = ()
    start: str = ""

    @property
    def settings(self) -> dict[str, Any]:
        """What of it is not the reference's, by name."""
        start = {"start": self.start} if self.start else {}
        return {**self.shape.settings(), **dict(self.options), **start}


def _lim(name: str, start: str = "", **options: float) -> Variant:
    return Variant(name, options=tuple(options.items()), start=start)


def _shaped(variant: Variant, name: str, **shape) -> Variant:
    return dataclasses.replace(variant, name=name, shape=Shape(**shape))


BARE = {"alpha": 0.0, "beta": 0.0, "centre": 0.0}
# Consistency without what its first factor does to a large batch, and diversity where it acts.
PAIRED = {"per_pair": 1.0}
RELEASED = _lim("glscl")
NO_LOSSES = _lim("no losses", **BARE)
ALONE = {"gim_weight": 0.0, "lim_weight": 1.0, **BARE}
LIM_ALONE = _lim("lim alone, no losses", **ALONE)

# Heads, the released LIM among them, are called as `benchmarks.figure1` calls them.
HEAD_VARIANTS = (
    Variant("gim", Shape("gim")),
    Variant("mean_pooling", Shape("mean", temporal="None")),
    Variant("mean", Shape("mean")),
    Variant("wti", Shape("wti")),
    Variant("x_pool", Shape("x_pool")),
    Variant("dicosa", Shape("dicosa")),
)

# In the order of what is to be known first: each line one run of ten.
LIM_VARIANTS = (
    RELEASED,
    NO_LOSSES,
    _lim("lim_weight 0, no losses", lim_weight=0.0, **BARE),
    LIM_ALONE,
    _lim("consistency per pair", **PAIRED),
    _lim("orthogonal, no losses", "orthogonal", **BARE),
    _lim("sliced, no losses", sliced=1.0, **BARE),
    _lim("competing, orthogonal, no losses", "orthogonal", competing=1.0, masked=1.0, **BARE),
    _lim(
        "orthogonal, positions, norm, masked, no losses",
        "orthogonal_long",
        positions=1.0,
        memory_norm=1.0,
        masked=1.0,
        **BARE,
    ),
    _lim("projected, no losses", projected=1.0, **BARE),
    # ----
    _lim("lim alone", gim_weight=0.0, lim_weight=1.0),
    _lim("lim_weight 0.1", lim_weight=0.1),
    _lim("lim_weight 0.25", lim_weight=0.25),
    _lim("lim_weight 1", lim_weight=1.0),
    _lim("lim_weight learned", learned=1.0),
    _lim("lim_weight 0", lim_weight=0.0),
    _lim("alpha 0", alpha=0.0),
    _lim("alpha 0.1", alpha=0.1),
    _lim("alpha 1", alpha=1.0),
    _lim("beta 0", beta=0.0),
    # ----
    _lim("centre 0", centre=0.0),
    _lim("per item, alpha 0.1", per_item=1.0, alpha=0.1, both_sides=1.0, beta=0.0, centre=0.0),
    _lim("per item, alpha 1", per_item=1.0, alpha=1.0, both_sides=1.0, beta=0.0, centre=0.0),
    _lim(
        "per item, alpha 1, margin 1, orthogonal",
        "orthogonal",
        per_item=1.0,
        alpha=1.0,
        margin=1.0,
        both_sides=1.0,
        beta=0.0,
        centre=0.0,
    ),
    _lim("orthogonal", "orthogonal"),
    _lim("normal, no losses", "normal", **BARE),
    _lim("normal x5, no losses", "normal_x5", **BARE),
    _lim("uniform x5", "uniform_x5"),
    _lim("positions, no losses", positions=1.0, **BARE),
    _lim("memory norm, no losses", memory_norm=1.0, **BARE),
    # ----
    _lim("masked, no losses", masked=1.0, **BARE),
    _lim("lim rate x0.1, no losses", lim_rate=0.1, **BARE),
    _lim("lim rate x10, no losses", lim_rate=10.0, **BARE),
    _lim("repeated, orthogonal, no losses", "orthogonal_long", repeated=1.0, **BARE),
    _lim("pre-norm, orthogonal, no losses", "orthogonal_long", pre_norm=1.0, **BARE),
    _lim("centred, orthogonal, no losses", "orthogonal_long", centred=1.0, **BARE),
    _lim(
        "repeated, competing, positions, norm, masked, no losses",
        "orthogonal_long",
        repeated=1.0,
        competing=1.0,
        positions=1.0,
        memory_norm=1.0,
        masked=1.0,
        **BARE,
    ),
    _lim(
        "per item, alpha 1, repeated, positions, norm, masked",
        "orthogonal_long",
        per_item=1.0,
        alpha=1.0,
        both_sides=1.0,
        beta=0.0,
        centre=0.0,
        repeated=1.0,
        positions=1.0,
        memory_norm=1.0,
        masked=1.0,
    ),
    _lim(
        "sliced, positions, norm, masked, no losses",
        sliced=1.0,
        positions=1.0,
        memory_norm=1.0,
        masked=1.0,
        **BARE,
    ),
    _lim(
        "lim_weight 0.25, masked, norm, no losses",
        lim_weight=0.25,
        memory_norm=1.0,
        masked=1.0,
        **BARE,
    ),
    # ---- Where the GIM has no part: whether concepts that differ help then.
    _lim("lim alone, sliced, no losses", sliced=1.0, **ALONE),
    _lim("lim alone, masked, no losses", masked=1.0, **ALONE),
    _lim(
        "lim alone, orthogonal, positions, norm, masked, no losses",
        "orthogonal_long",
        positions=1.0,
        memory_norm=1.0,
        masked=1.0,
        **ALONE,
    ),
    _lim("lim alone, per item, alpha 1", per_item=1.0, both_sides=1.0, **{**ALONE, "alpha": 1.0}),
)

SHAPED_VARIANTS = tuple(
    _shaped(variant, name + (", no losses" if variant is NO_LOSSES else ""), **shape)
    for name, shape in (
        ("K 1", {"queries": 1}),
        ("K 32", {"queries": 32}),
        ("layers 1", {"lim_layers": 1}),
        ("own queries and decoders", {"share_queries": False, "share_decoder": False}),
        ("layers 3", {"lim_layers": 3}),
        ("K 2", {"queries": 2}),
        ("K 4", {"queries": 4}),
        ("K 16", {"queries": 16}),
    )
    for variant in (RELEASED, NO_LOSSES)
)
SHAPED_VARIANTS += (_shaped(LIM_ALONE, "K 1, lim alone, no losses", queries=1),)
ALL = (*HEAD_VARIANTS[:2], *LIM_VARIANTS[:10], *HEAD_VARIANTS[2:], *LIM_VARIANTS[10:])
ALL += SHAPED_VARIANTS
