"""Labels that contradict each other: told, and never settled by a guess. Here too are the user's own settlements."""

import re
import unicodedata
from collections.abc import Mapping, Sequence

from wtl_core.errors import ConfigError, InputError
from wtl_core.labelling.formats.rows import Classes, LabelRows, Reading, shown
from wtl_core.recipe.selection import EMPTY

_SHOWN = 3


def by_sample(where: str, rows: LabelRows, sample_of: Mapping[str, str], reading: Reading) -> dict[str, Classes]:
    """The classes of each sample that the rows name, in their order, renamed as `reading` says.

    Several rows of a sample must say the same, or add up if `reading` says so. Where one of them does not know the
    classes, the others count.

    Raises:
        InputError: rows of one image say different things, or one says that it is empty and names a class; the first
            of them are named.
    """
    given: dict[str, Classes] = {}
    conflicts: dict[str, str] = {}
    for name, told in zip(rows.names, rows.classes, strict=True):
        sample_id = sample_of.get(name)
        if sample_id is None:
            continue
        classes = None if told is None else settled(told, reading.renamed)
        before = given.setdefault(sample_id, classes)
        if classes and not reading.adds_up and _says_empty(told or (), reading.renamed):
            conflicts.setdefault(sample_id, f"{shown([name])} {_told(())} and {_told(classes)}")
        elif before is None:
            given[sample_id] = classes
        elif classes is not None and set(classes) != set(before):
            if reading.adds_up:
                given[sample_id] = tuple(dict.fromkeys((*before, *classes)))
            else:
                conflicts.setdefault(sample_id, f"{shown([name])} {_told(before)} and {_told(classes)}")
    if conflicts:
        first = "; ".join(list(conflicts.values())[:_SHOWN])
        remedy = "correct the file, or add --several if an image may have several rows, as in a table of boxes"
        raise InputError(
            f"{where}: expected one label for each image, found {len(conflicts):,} with different ones ({first}); "
            f"{remedy}; nothing is entered"
        )
    return given


def check_renamed(where: str, told: Sequence[Classes], renamed: Mapping[str, str]) -> None:
    """Refuse new names for classes that the file does not hold, such as misspelt ones. Raises ConfigError."""
    if not renamed:
        return
    known = {name for classes in told for name in classes or ()}
    if missing := [name for name in renamed if name not in known]:
        raise ConfigError(
            f"{where}: --rename expected classes of the file ({shown(sorted(known))}), found {shown(missing)}; "
            "nothing is entered"
        )


def check_spellings(
    where: str, given: Mapping[str, Classes], present: Mapping[str, Classes], *, are_distinct: bool
) -> None:
    """Refuse a new class that is one already, but for case, blanks, dashes or underscores.

    Spellings that the ledger holds beside each other already are taken for different classes.

    Args:
        where: Where the labels come from.
        given: Classes of samples that are entered.
        present: Those that the ledger holds.
        are_distinct: Take all spellings for different classes.

    Raises:
        InputError: names of classes that are one to a reader; nothing is entered.
    """
    if are_distinct:
        return
    known = {name for classes in present.values() for name in classes or ()}
    kept = {key: classes for key, classes in present.items() if given.get(key) is None}
    counts: dict[str, dict[str, int]] = {}
    for classes in (*given.values(), *kept.values()):
        for name in classes or ():
            spellings = counts.setdefault(_to_a_reader(name), {})
            spellings[name] = spellings.get(name, 0) + 1
    doubtful = [group for group in counts.values() if len(group) > 1 and not group.keys() <= known]
    if not doubtful:
        return
    groups = [", ".join(f"{name!r} ({count:,})" for name, count in group.items()) for group in doubtful[:_SHOWN]]
    of_file = {name for classes in given.values() for name in classes or ()}
    first = next((name for name in doubtful[0] if name in known), next(iter(doubtful[0])))
    second = next(name for name in doubtful[0] if name in of_file and name != first)  # `--rename` takes these alone
    rename = f"--rename {f'{second}={first}'!r} takes one for the other"
    if "=" in second:  # it would be read as where the old name ends
        rename = f"correct {second!r} in the file"
    raise InputError(
        f"{where}: expected one spelling of each class, found {'; '.join(groups)}"
        f"{'; ...' if len(doubtful) > _SHOWN else ''}; {rename}, --distinct takes them for different classes; nothing "
        "is entered"
    )


def settled(classes: tuple[str, ...], renamed: Mapping[str, str]) -> tuple[str, ...]:
    """The classes under their new names; tools that have a class called `empty` mean an image without any."""
    names = dict.fromkeys(renamed.get(name, name) for name in classes)
    return tuple(name for name in names if not _is_empty(name))


def _says_empty(classes: tuple[str, ...], renamed: Mapping[str, str]) -> bool:
    return any(_is_empty(renamed.get(name, name)) for name in classes)


def _is_empty(name: str) -> bool:
    return name.strip().lower() == EMPTY


def _to_a_reader(name: str) -> str:
    """What is left of a name without what a reader does not see or weigh: case, blanks, dashes, underscores, marks.

    Of a number its value, with its sign: a table whose column has gaps turns 3 into 3.0.
    """
    seen = "".join(sign for sign in unicodedata.normalize("NFKC", name) if unicodedata.category(sign) != "Cf")
    if re.fullmatch(r"\s*[+-]?\d+(\.0*)?\s*", seen):
        return str(int(seen.strip().partition(".")[0]))
    return re.sub(r"[\s_-]+", " ", seen).strip().casefold()


def _told(classes: tuple[str, ...]) -> str:
    return shown(classes) if classes else "empty"
