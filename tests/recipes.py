"""Recipes at the smallest size."""

from configs import common


def config_with(head: str, **changes):
    """The base recipe at the smallest size, under a head; `model__head__queries` is a path."""
    config = common.shrunk(common.base())
    config.model.clip.update(vision_width=64, vision_layers=1, text_width=64, text_layers=1)
    config.model.head.name = head
    for name, value in changes.items():
        *sections, last = name.split("__")
        part = config
        for section in sections:
            part = part[section]
        part[last] = value
    return config
