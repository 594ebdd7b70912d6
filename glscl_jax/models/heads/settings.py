"""From the plain values of `config.model.head` and `config.losses` to a head and its losses."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from glscl_jax.models.heads.head import HEADS, Head


def head_of_settings(settings: Mapping) -> Head:
    """A head from its `name` and its settings; those of other heads are passed over (see `idle`).

    Raises:
      ValueError: naming an unknown head or setting, or one out of its range.
    """
    settings = dict(settings)
    name = settings.pop("name")
    if name not in HEADS:
        raise ValueError(f"name is {name!r}: give one of {', '.join(sorted(HEADS))}")
    return HEADS[name](**_own(HEADS[name], settings, HEADS.values()))


def settings_of_head(head: Head) -> dict[str, Any]:
    """The plain values that `head_of_settings` turns back into `head`."""
    return {"name": head.name, **{name: getattr(head, name) for name in names_of(type(head))}}


def loss_weights_of_settings(head: Head, settings: Mapping) -> Any:
    """The constants of a head's own losses; those of other heads are passed over (see `idle`).

    Raises:
      ValueError: naming an unknown constant, or one out of its range.
    """
    others = (other.loss_weights for other in HEADS.values())
    return head.loss_weights(**_own(head.loss_weights, dict(settings), others))


def idle(head: Head, settings: Mapping, losses: Mapping) -> list[str]:
    """Which of `config.model.head` and `config.losses` play no part under this head, by path."""
    own, constants = {"name", *names_of(type(head))}, names_of(head.loss_weights)
    idle = [f"model.head.{name}" for name in settings if name not in own]
    return idle + [f"losses.{name}" for name in losses if name not in constants]


def names_of(kind: type) -> list[str]:
    """The names of a dataclass's fields; none of a class that is no dataclass."""
    return [x.name for x in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else []


def _own(kind: type, settings: dict, all_kinds) -> dict:
    own, known = names_of(kind), {name for other in all_kinds for name in names_of(other)}
    for name in settings:
        if name not in own and name not in known:
            listed = ", ".join(sorted(own)) or "none"
            raise ValueError(f"{name}: there is no such setting; there are {listed}")
    return {name: value for name, value in settings.items() if name in own}
