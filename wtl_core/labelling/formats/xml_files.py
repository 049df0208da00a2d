"""Labels in XML: CVAT for images 1.1, one file for all images, and Pascal VOC, a file for each."""

from xml.etree import ElementTree

from wtl_core.labelling.formats.rows import Classes, LabelRows, Reading, collect


class _Tree(ElementTree.TreeBuilder):
    """Refuses a document type: no tool writes one, and its entities can expand a small file to fill the memory."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:  # noqa: ARG002, the parser's call
        raise ValueError(f"XML with a document type, {name[:60]!r}, which files of labels do not have")


def of_xml(files: dict[str, bytes], reading: Reading) -> LabelRows:
    """The labels in XML files by their names; all are CVAT's, or all are Pascal VOC's.

    Raises:
        ValueError, LookupError: a file that is cut, of another kind, or without what it must have.
    """
    if reading.class_column is not None or reading.column is not None:
        raise ValueError("XML, which has no columns: leave out --column and --class-column")
    labels: list[tuple[str, Classes]] = []
    for name, data in files.items():
        try:
            root = ElementTree.fromstring(data, parser=ElementTree.XMLParser(target=_Tree()))  # noqa: S314, see _Tree
        except ElementTree.ParseError as error:
            raise ValueError(f"{name}: XML that cannot be read (further): {error}") from error
        if root.tag == "annotations":
            labels += _of_cvat(root, name)
        elif root.tag == "annotation":
            labels.append(_of_voc(root, name))
        else:
            raise ValueError(f"{name}: XML with the root {root.tag[:60]!r}, neither CVAT's nor Pascal VOC's")
    return collect(labels, bare_is_empty=reading.bare_is_empty)


def _of_cvat(root: ElementTree.Element, file: str) -> list[tuple[str, Classes]]:
    """One row for each image: the labels of its boxes, polygons, masks and tags."""
    version = (root.findtext("version") or "").strip()
    if version != "1.1":
        raise ValueError(f"{file}: CVAT's XML of version {version[:20]!r}, where 1.1 was expected")
    if root.find("track") is not None:
        raise ValueError(f"{file}: CVAT for video, whose frames have no names: export CVAT for images 1.1")
    known = {name.text or "" for name in root.iterfind("./meta//labels/label/name")}
    labels: list[tuple[str, Classes]] = []
    for number, image in enumerate(root.iter("image"), 1):
        if not image.get("name"):
            raise LookupError(f"{file}: image {number} has no name")
        classes = tuple(dict.fromkeys(child.attrib["label"] for child in image if child.get("label")))
        if known and (unknown := set(classes) - known):
            raise ValueError(f"{file}: label {min(unknown)!r:.60}, which is not among those of the task")
        labels.append((image.attrib["name"], classes or None))
    return labels


def _of_voc(root: ElementTree.Element, file: str) -> tuple[str, Classes]:
    """The image of one file, and the names of its objects."""
    name = (root.findtext("filename") or "").strip()
    if not name:
        raise LookupError(f"{file}: no filename in it")
    objects = [entry.findtext("name") or "" for entry in root.iter("object")]
    if not all(map(str.strip, objects)):
        raise LookupError(f"{file}: an object without a name")
    return name, tuple(dict.fromkeys(objects)) or None
