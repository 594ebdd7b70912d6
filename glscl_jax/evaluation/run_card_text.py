"""results.md: a run card to read."""

from glscl_jax.figures import DIRECTIONS, FIGURES
from glscl_jax.retrieval import rerank

LABELS = {"none": "none", "qbnorm": rerank.QB_NORM, "dual_softmax": rerank.DUAL_SOFTMAX}


def page(card: dict) -> str:
    """results.md: a results.json as Markdown."""
    parts = [f"# {title(card)}", _table(card)]
    parts.append(
        "In brackets the 95 % interval by bootstrap over queries"
        f" ({card['t2v']['queries']:,} and {card['v2t']['queries']:,})."
    )
    if card["notes"]:
        parts.append("\n".join(f"- **{note}**" for note in card["notes"]))
    parts += ["## What was evaluated", _facts(card), "## Time", _times(card)]
    return "\n\n".join(parts) + "\n"


def title(card: dict) -> str:
    """Checkpoint, data set and split; what else than the head's own score ranked, if it did."""
    checkpoint = card["checkpoint"]
    method = card["rerank"]["method"]
    changed = "" if method == "none" else f", {LABELS[method]}"
    changed += ", by single vectors" if card.get("single_vector") else ""
    step = "converted" if checkpoint["step"] is None else f"step {checkpoint['step']}"
    return (
        f"{checkpoint['directory']} ({step}) on {card['data']['dataset']},"
        f" split {card['data']['split']}{changed}"
    )


def terminal(card: dict) -> str:
    """What the terminal shows below the table of ranks: other tie rules, the paper's row, notes."""
    lines = [
        "95 % interval of R@1: "
        + ", ".join(
            f"{label} {' to '.join(f'{x:.1f}' for x in card[name]['interval_95']['R@1'])}"
            for name, label in DIRECTIONS.items()
        )
    ]
    for name in DIRECTIONS:
        if "legacy" in card[name]:
            lines.append(f"ties as released, {name}: {_line(card[name]['legacy'])}")
    if row := card["published"]:
        lines += [
            f"{row['benchmark']} as published, {name}: {_line(row[name])}" for name in DIRECTIONS
        ]
    return "\n".join(lines + [f"note: {note}" for note in card["notes"]])


def _line(figures: dict) -> str:
    return ", ".join(f"{key} {x:.1f}" for key, x in figures.items() if x is not None)


def _table(card: dict) -> str:
    lines = [f"| | {' | '.join(FIGURES)} |", "| --- " * (len(FIGURES) + 1) + "|"]
    for name, label in DIRECTIONS.items():
        facts = card[name]
        ranges = facts["interval_95"]
        cells = [
            f"{facts['mean'][x]:.1f} ({ranges[x][0]:.1f} to {ranges[x][1]:.1f})" for x in FIGURES
        ]
        lines.append(f"| {label} | {' | '.join(cells)} |")
        rows = {"ties optimistic": "optimistic", "ties pessimistic": "pessimistic"}
        rows = rows if facts["tied_queries"] else {}
        if "legacy" in facts:
            rows["ties as released"] = "legacy"
        lines += [_row(shown, facts[tie]) for shown, tie in rows.items()]
        if single := card.get("single_vector"):
            lines.append(_row("by the head's own score", single[name]["exact"]))
        if card["published"]:
            lines.append(_row("published", card["published"][name]))
    return "\n".join(lines)


def _row(label: str, figures: dict) -> str:
    cells = (figures.get(name) for name in FIGURES)
    return f"| {label} | {' | '.join('-' if x is None else f'{x:.1f}' for x in cells)} |"


def _facts(card: dict) -> str:
    checkpoint, data, settings = card["checkpoint"], card["data"], card["settings"]
    published_row = card["published"]
    rows = {
        "parameters": f"SHA-256 `{checkpoint['parameters_sha256']}`",
        "origin": _listed(checkpoint["origin"]) or "not recorded",
        "towers": checkpoint["variant"] or "of no published size",
        "videos": f"{data['videos']:,}, clip ids SHA-256 `{data['clip_ids_sha256']}`",
        "captions": f"{data['texts']:,}, SHA-256 `{data['captions_sha256']}`",
        "frames decoded": f"{data['frames_decoded']:,}",
        "settings": _listed(settings),
        "features": card["features"],
        "of the head": _listed({k: f"{x:.3f}" for k, x in _figures(card).items()}) or "nothing",
        "post-processing": _post_processing(card["rerank"]),
        "ties": "mean of the first and the last place"
        + (", and as the released metric counts them" if card["tie_rule"] == "legacy" else ""),
        "published figures": f"{published_row['benchmark']}, {published_row['source']}"
        if published_row
        else "none for this split and these towers",
        "devices": card["device"],
        "versions": _listed(card["versions"]),
        "date": card["date"],
    }
    lines = ["| | |", "| --- | --- |"]
    # Names of files and clips are other people's text.
    escaped = ((key, value.replace("|", "\\|").replace("\n", " ")) for key, value in rows.items())
    return "\n".join(lines + [f"| {key} | {value} |" for key, value in escaped])


def _figures(card: dict) -> dict:
    """What the head says of its features; nothing in cards of earlier versions."""
    return card.get("head", {}).get("figures", {})


def _listed(facts: dict) -> str:
    return ", ".join(f"{key} {value}" for key, value in facts.items() if value is not None)


def _post_processing(facts: dict) -> str:
    label = LABELS[facts["method"]]
    if not (bank := facts.get("bank")):
        extra = {key: value for key, value in facts.items() if key != "method"}
        return f"{label}; {_listed(extra)}" if extra else label
    settings = "; ".join(f"{name}: {_listed(facts[name])}" for name in DIRECTIONS)
    return (
        f"{label}; {settings}; bank: split {bank['split']}, {bank['texts']:,} captions (SHA-256"
        f" `{bank['captions_sha256']}`) and {bank['videos']:,} videos (clip ids SHA-256"
        f" `{bank['clip_ids_sha256']}`)"
    )


def _times(card: dict) -> str:
    counts = {"encode videos": ("videos", "videos"), "encode captions": ("texts", "captions")}
    lines = ["| stage | seconds | |", "| --- | --- | --- |"]
    for stage, seconds in card["seconds"].items():
        key, unit = counts.get(stage, (None, ""))
        # What was kept from before took no time now.
        new = key and seconds and card["features"] == "encoded"
        rate = f"{card['data'][key] / seconds:,.0f} {unit}/s" if new else ""
        lines.append(f"| {stage} | {seconds:.2f} | {rate} |")
    return "\n".join(lines)
