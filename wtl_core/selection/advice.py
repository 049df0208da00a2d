"""Advice to a person in plain sentences, from the figures of a ladder. No measuring."""

import numpy as np

NOT_MEASURABLE = (
    "The pool is too small or too much alike to measure: no image has another one beside its near-duplicates."
)


def advise(coverage: np.ndarray, low: np.ndarray, high: np.ndarray, count: np.ndarray, *, picks: int) -> str:
    """What the next 5 % would add, and where choosing does not help."""
    here = min(int(np.searchsorted(count, picks)), len(count) - 1)
    here = int(np.searchsorted(count, count[here], side="right")) - 1  # in a small pool several per cents are one pick
    then = min(here + 5, len(count) - 1)
    percents = np.arange(1, len(count) + 1)
    sentences = []
    if then > here:
        added = 100 * (coverage[then] - coverage[here]) / max(coverage[-1], 1e-12)
        whole = "of what labelling everything would give"
        sentences.append(f"From {here + 1} % on, the next {then - here} % adds {added:.1f} % {whole}.")
    elif picks >= count[-1]:
        sentences.append("All samples are picked: nothing is left to add.")
    else:
        sentences.append(f"All but the last {count[-1] - picks} of {count[-1]} samples are picked.")
    helps = coverage > high
    if helps[:-1].all():
        sentences.append("The ranking covers more than random at every per cent below 100.")
    elif not helps.any():
        sentences.append("Selection does not help on this pool: no per cent covers more than random does.")
    else:
        weak = percents[:-1][~helps[:-1]]
        sentences.append(f"Selection does not cover more than random at {_ranges(weak)} %.")
    worse = percents[coverage < low]
    if len(worse):
        sentences.append(f"It covers less than random at {_ranges(worse)} %: take random picks there.")
    return " ".join(sentences)


def nothing_left(*, labelled: int, skipped: int, held_out: int, filtered: int) -> str:
    """The advice when no sample of the pool is left to label."""
    others = [f"{skipped:,} skipped"] if skipped else []
    others += [f"{held_out:,} held out for validation and test"] if held_out else []
    others += [f"{filtered:,} excluded by the recipe's filters"] if filtered else []
    beside = "".join(f" and {other}" for other in others)
    return f"No image is left to label: {labelled:,} are labelled{beside}. Add images or sources to go on."


def _ranges(percents: np.ndarray) -> str:
    """Whole numbers as ranges: 3-5, 9."""
    parts: list[list[int]] = []
    for percent in percents.tolist():
        if parts and percent == parts[-1][1] + 1:
            parts[-1][1] = percent
        else:
            parts.append([percent, percent])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)
