"""Takes finished annotations of a Label Studio project back as labels, those that are new or changed since last time.

What was taken is told by the ledger alone: each label has the address of its task, and when its annotation was last
changed. So a label that somebody corrects or takes back in the workspace stays so until the annotation changes again.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from wtl_core.errors import ConfigError, InputError
from wtl_core.labelling import label_conflicts, labels, sample_names
from wtl_core.labelling.formats import label_studio
from wtl_core.labelling.formats.rows import Classes, shown
from wtl_core.labelling.tools.label_studio import Project
from wtl_core.labelling.tools.params import ToolParams
from wtl_core.workspace import ledger
from wtl_core.workspace.storage import Store

_OVERLAP = timedelta(hours=1)
"""A change may get its time long before others can see it: a transaction that is at work."""


@dataclass(frozen=True)
class TakenBack:
    """What came back.

    Attributes:
        project: Its address.
        taken: Images whose annotation is new or has changed.
        added: Those of them that were not labelled.
        corrected: Those that had another label.
        classes: How many of those taken have which class; `empty` are those that hold nothing of interest.
        unknown: How many of them have no known class.
        disagreeing: Tasks whose annotations contradict each other; these are not entered.
        foreign: Tasks that are of no image of the workspace; nor are these.
        skipped: Tasks that were skipped in the tool and have no annotation.
        waiting: Tasks that nobody has looked at yet.
        entry: The ledger's entry; 0 if nothing was taken.
    """

    project: str
    taken: int = 0
    added: int = 0
    corrected: int = 0
    classes: dict[str, int] = field(default_factory=dict)
    unknown: int = 0
    disagreeing: list[str] = field(default_factory=list)
    foreign: int = 0
    skipped: int = 0
    waiting: int = 0
    entry: int = 0

    def told(self, *, is_dry: bool = False) -> str:
        """What was done, in a few words."""
        labels = "1 label" if self.taken == 1 else f"{self.taken:,} labels"
        taken = f"{labels} {'to take' if is_dry else 'taken'}" if self.taken else "no new label"
        corrected = f", {self.corrected:,} corrected" if self.corrected else ""
        return f"{taken}{corrected}, {'1 image waits' if self.waiting == 1 else f'{self.waiting:,} images wait'}"

    def to_json(self) -> dict[str, Any]:
        """What `wtl take-back --json` prints."""
        return asdict(self)


@dataclass(frozen=True)
class _Taken:
    """A task's label: the address of the task, the classes, and when they were last changed in the tool."""

    origin: str
    classes: Classes
    changed: str


def run(store: Store, project: Project, params: ToolParams, *, is_dry: bool) -> TakenBack:
    """Enter the labels of annotations that are new, or changed since they were last taken.

    Annotations of one task must agree; if some are marked as ground truth, only these count. Where an image has several
    tasks, the annotation that was changed last counts.

    Args:
        store: The workspace, whose lease is held.
        project: The project.
        params: Which control holds classes, and which classes are entered under other names.
        is_dry: Enter nothing; say what would be.

    Raises:
        ConfigError: several controls may hold classes, or `params` names one that does not; or what `Project` raises.
        InputError: a class has two spellings; nothing is entered.
        TransientError: what `Project` raises.
    """
    control = _control(project, params)
    entries = ledger.read(store)
    present = labels.present_classes(store)
    before = _taken_before(entries, project)
    taken: dict[str, _Taken] = {}
    disagreeing, foreign = [], 0
    for task, sample_id in _with_samples(store, entries, project.annotated(_since(before))):
        origin, submitted = project.task_link(task["id"]), _submitted(task)
        changed = max((annotation["updated_at"] for annotation in submitted), default="")
        if sample_id is None:
            foreign += 1
        elif changed > before.get(sample_id, ""):
            told = [_classes(annotation, control, origin) for annotation in submitted]
            known = [names for names in told if names is not None]
            if len(set(map(frozenset, known))) > 1:
                disagreeing.append(origin)
            elif sample_id not in taken or taken[sample_id].changed < changed:
                classes = label_conflicts.settled(known[0], params.rename) if known else present.get(sample_id)
                taken[sample_id] = _Taken(origin, classes, changed)
    given = {sample_id: found.classes for sample_id, found in taken.items()}
    _check_spellings(project, given, present)
    entry = 0
    if taken and not is_dry:
        entry = ledger.append_from_tool(
            store,
            "labelled",
            list(taken),
            origins=[found.origin for found in taken.values()],
            classes=list(given.values()),
            changed=[found.changed for found in taken.values()],
        )
    return TakenBack(
        project.link,
        taken=len(taken),
        added=sum(sample_id not in present for sample_id in given),
        corrected=sum(key in present and set(names or ()) != set(present[key] or ()) for key, names in given.items()),
        classes=labels.counts(given.values()),
        unknown=sum(names is None for names in given.values()),
        disagreeing=disagreeing,
        foreign=foreign,
        skipped=project.skipped(),
        waiting=project.waiting(),
        entry=entry,
    )


def _control(project: Project, params: ToolParams) -> str | None:
    """The control that holds classes; None where none does."""
    kinds = {name: str(control.get("type")) for name, control in project.controls().items()}
    names = [name for name, kind in kinds.items() if kind in ("Choices", "Taxonomy") or kind.endswith("Labels")]
    wanted = params.class_control
    if (wanted is not None and wanted not in names) or (wanted is None and len(names) > 1):
        named = "several" if wanted is None else repr(wanted)
        raise ConfigError(
            f"{project.link}: expected one control that holds classes, found {named} among {shown(names)}; name one by "
            "`class_control` of [labelling] in the site file"
        )
    return wanted or (names[0] if names else None)


def _taken_before(entries: pl.DataFrame, project: Project) -> dict[str, str]:
    """When the label of each sample that was taken from the project was last changed there."""
    is_ours = (pl.col("kind") == "labelled") & pl.col("origin").str.starts_with(f"{project.link}/")
    taken = entries.filter(is_ours, pl.col("changed").is_not_null())
    return dict(taken.group_by("sample_id").agg(pl.max("changed")).iter_rows())


def _since(before: Mapping[str, str]) -> datetime | None:
    return datetime.fromisoformat(max(before.values())) - _OVERLAP if before else None


def _submitted(task: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The annotations of a task that count: those that were not cancelled, or the ground truth among them."""
    submitted = [held for held in task["annotations"] if not held.get("was_cancelled")]
    return [held for held in submitted if held.get("ground_truth")] or submitted


def _with_samples(
    store: Store, entries: pl.DataFrame, tasks: Iterable[dict[str, Any]]
) -> Iterator[tuple[dict[str, Any], str | None]]:
    """Each task with the sample that it shows, None for one of no sample; those that were not handed out come last."""
    known, others = set(entries["sample_id"]), list[tuple[dict[str, Any], str]]()
    for task in tasks:
        name = task["data"].get("sample_id")
        if isinstance(name, str) and name not in known:
            others.append((task, name))
        else:
            yield task, name if isinstance(name, str) else None
    if others:
        matched = sample_names.match_in_pool(store, list({name for _, name in others}))
        alone = matched.filter(pl.col("sample_ids").list.len() == 1)
        sample_of = dict(alone.select("value", pl.col("sample_ids").list.first()).iter_rows())
        yield from ((task, sample_of.get(name)) for task, name in others)


def _classes(annotation: Mapping[str, Any], control: str | None, origin: str) -> Classes:
    try:
        return label_studio.classes_of_annotation(annotation, control)
    except (ValueError, TypeError, LookupError) as error:
        raise InputError(
            f"{origin}: expected classes, found {error}; mend the annotation; nothing is entered"
        ) from error


def _check_spellings(project: Project, given: Mapping[str, Classes], present: Mapping[str, Classes]) -> None:
    try:
        label_conflicts.check_spellings(project.link, given, present, are_distinct=False)
    except InputError as error:
        raise InputError(f"{error}; what --rename does, [labelling.rename] of the site file does here") from error
