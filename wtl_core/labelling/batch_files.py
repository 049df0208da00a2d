"""A batch as files for a labelling tool: the one table of formats, and how a batch is written in each of them."""

import tempfile
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl

from wtl_core.errors import ConfigError
from wtl_core.labelling import addresses, batch_images, batches, label_files, table_files
from wtl_core.labelling.formats import coco, cvat, fiftyone, label_studio, webdataset, yolo
from wtl_core.labelling.formats.rows import shown
from wtl_core.workspace import ledger, storage
from wtl_core.workspace.storage import Store

Encoded = Callable[[pl.DataFrame, Sequence[str]], Mapping[str, bytes]]
_TABLE_NAME = "picks.csv"
_UNLIMITED = 1 << 62
_INLINE_BYTES, _ROW_BYTES = 200_000_000, 4_000
"""Of a file with images in it, as one request to Label Studio may have; and what a row has beside its image at most."""


@dataclass(frozen=True)
class Format:
    """A format that a batch can be written in.

    Attributes:
        name: What `--format` calls it.
        ending: Of its file; empty for a folder.
        about: What it is, for the help and the docs.
        limits: What one file holds at most and who says so, for the docs.
        encode: The text files by their names, a single file under an empty one, from images and names of classes.
        is_table: It holds the columns of the batch, and its images are not looked up.
        has_addresses: It holds addresses, which can be presigned; else it names files.
        can_inline: Its addresses can be the images themselves, as `data:` URIs.
        images: The folder below it that images are copied to; None where it refers to them.
        most_images: In one file.
        most_bytes: Of one file.
    """

    name: str
    ending: str
    about: str
    encode: Encoded
    limits: str = "none known"
    is_table: bool = False
    has_addresses: bool = False
    can_inline: bool = False
    images: str | None = None
    most_images: int = _UNLIMITED
    most_bytes: int = _UNLIMITED


def _table(ending: str) -> Format:
    def encode(images: pl.DataFrame, _classes: Sequence[str]) -> Mapping[str, bytes]:
        return {"": table_files.encoded(images.select(*batches.COLUMNS, "url"), ending)}

    name = ending.removeprefix(".")
    can_inline = ending in (".json", ".jsonl")
    return Format(name, ending, "a table", encode, is_table=True, has_addresses=True, can_inline=can_inline)


def _picks(images: pl.DataFrame) -> dict[str, bytes]:
    """The table that lies beside copied images."""
    return {_TABLE_NAME: table_files.encoded(images.select("file_name", *batches.COLUMNS), Path(_TABLE_NAME).suffix)}


FORMATS = {
    form.name: form
    for form in (
        *map(_table, table_files.ENDINGS),
        Format(
            "label-studio",
            ".json",
            "tasks of Label Studio",
            lambda images, _: {"": label_studio.tasks(images)},
            limits=f"{label_studio.MOST_TASKS:,} tasks (its guide), {label_studio.MOST_BYTES // 10**6} MB (its API)",
            has_addresses=True,
            can_inline=True,
            most_images=label_studio.MOST_TASKS,
            most_bytes=label_studio.MOST_BYTES,
        ),
        Format(
            "coco",
            ".json",
            "COCO's list of images, without annotations",
            lambda images, classes: {"": coco.image_list(images, classes)},
            has_addresses=True,
        ),
        Format("cvat", ".jsonl", "manifest of a CVAT task's images", lambda images, _: {"": cvat.manifest(images)}),
        Format("fiftyone", "", "FiftyOne dataset", fiftyone.dataset),
        Format(
            "yolo",
            "",
            "folder with `images`, and `data.yaml` with the known classes",
            lambda images, classes: {"data.yaml": yolo.data_yaml(classes), **_picks(images)},
            images=yolo.IMAGES,
        ),
        Format(
            "webdataset",
            ".tar",
            "tar of images, each with a JSON file",
            lambda _images, _classes: {},
            limits=f"{webdataset.MOST_IMAGES:,} images, {webdataset.MOST_BYTES // 10**9} GB (its `ShardWriter`)",
            images="",
            most_images=webdataset.MOST_IMAGES,
            most_bytes=webdataset.MOST_BYTES,
        ),
        Format("folder", "", "folder of images, and a table of them", lambda images, _: _picks(images), images=""),
    )
}

_BY_ADDRESS = Format("addresses", "", "", lambda _images, _classes: {}, has_addresses=True)
"""Of what no file is written."""


@dataclass(frozen=True)
class Wanted:
    """How a batch is to be written.

    Attributes:
        output: The file or folder.
        form: The format.
        urls: Beginnings of URIs, and what stands for them in addresses and names: the address of a server, say, or
            nothing. The longest beginning counts; other URIs stay. Local beginnings may be relative.
        presign_seconds: Images in a bucket get addresses that anyone may read for so long; None for none.
        is_link: Images are linked instead of copied.
        is_inline: Images stand in the file, in the place of their addresses.
    """

    output: Path
    form: Format
    urls: Mapping[str, str] = field(default_factory=dict)
    presign_seconds: int | None = None
    is_link: bool = False
    is_inline: bool = False


@dataclass(frozen=True)
class Written:
    """What was written: the files, or the folder, and images that were left out since their bytes are gone."""

    files: list[Path]
    lost: list[str] = field(default_factory=list)


def wanted(
    output: Path,
    form: str | None,
    *,
    urls: Mapping[str, str] | None = None,
    presign_seconds: int | None = None,
    is_link: bool = False,
    is_inline: bool = False,
) -> Wanted:
    """How a batch is to be written, refused before anything is entered if it cannot be.

    Without a `form` the ending of the file says which table it is.

    Raises:
        ConfigError: a file that cannot be written or holds labels, a folder that is not empty, or options that do not
            fit the format.
    """
    if form is None:
        table_files.check_output(output)
        form = output.suffix.lower().removeprefix(".")
    if form not in FORMATS:
        raise ConfigError(f"expected a format out of {', '.join(FORMATS)}, found {form!r}; name one of them")
    found = FORMATS[form]
    ending = output.suffix.lower()
    if found.ending and ending != found.ending:
        raise ConfigError(
            f"{output}: expected an ending {found.ending} for the format {form}, found {ending or 'none'}; name "
            "another file"
        )
    if not output.absolute().parent.is_dir():
        raise ConfigError(f"{output}: expected a folder to write into, found none; make it, or name another place")
    if not found.ending and (output.is_file() or (output.is_dir() and any(output.iterdir()))):
        raise ConfigError(f"{output}: expected a new or empty folder for the format {form}, found files; name another")
    label_files.check_spared(output)
    if found.ending and output.is_dir():
        raise ConfigError(f"{output}: expected a file to write, found a folder; name a file in it, or another")
    if presign_seconds is not None and not found.has_addresses:
        raise ConfigError(f"the format {form} holds no addresses that could be presigned; leave out --presign")
    _check_presign(presign_seconds)
    if is_link and (found.images is None or found.ending):
        raise ConfigError(f"the format {form} holds no files that could be links; leave out --link")
    if is_inline and not found.can_inline:
        able = ", ".join(name for name, other in FORMATS.items() if other.can_inline)
        raise ConfigError(f"the format {form} cannot hold images, as {able} can; leave out --inline")
    if is_inline and (urls or presign_seconds is not None):
        raise ConfigError("--inline puts images in the place of addresses; leave it out, or --url and --presign")
    return Wanted(output, found, addresses.absolute(urls or {}), presign_seconds, is_link, is_inline)


def wanted_by_address(*, urls: Mapping[str, str] | None = None, presign_seconds: int | None = None) -> Wanted:
    """How a batch is to be prepared for a server that fetches its images. Raises ConfigError as `wanted`."""
    _check_presign(presign_seconds)
    return Wanted(Path(), _BY_ADDRESS, addresses.absolute(urls or {}), presign_seconds)


def _check_presign(seconds: int | None) -> None:
    if seconds is not None and not 0 < seconds <= addresses.MOST_SECONDS:
        raise ConfigError(
            f"expected addresses that are valid for at most {addresses.MOST_SECONDS // 86400} days, as S3 allows, "
            f"found {seconds / 86400:g}; give a shorter --presign"
        )


def prepared(store: Store, table: pl.DataFrame, how: Wanted) -> pl.DataFrame:
    """The rows of a batch with what the format needs of each image. Reads no image.

    Args:
        store: The workspace.
        table: Columns `batches.COLUMNS`.
        how: From `wanted`.

    Returns:
        The rows with `url`, and unless the format is a table with `name` and what `batch_images.located` adds.

    Raises:
        ConfigError: images that the format cannot refer to, such as members of an archive, or that cannot be linked; a
            mapping that fits no image; images that cannot be presigned.
    """
    form, urls = how.form, how.urls
    uris = table["uri"].to_list()
    if urls and uris and all(addresses.beginning(uri, urls) is None for uri in uris):
        raise ConfigError(
            f"--url: expected the beginning of an image's uri, found none of {shown(list(urls))} in these, first "
            f"{uris[0]!r}; mend it"
        )
    is_plain = form.is_table and how.presign_seconds is None and not how.is_inline
    images = table if is_plain or not uris else batch_images.located(store, table)
    images = images.with_columns(
        url=pl.Series(_addresses(images, how), dtype=pl.String),
        name=pl.Series([addresses.name(uri, urls) for uri in uris], dtype=pl.String),
    )
    if form.is_table or how.is_inline or not uris:
        return images
    if form.images is None:
        _check_reachable(images, how)
    elif how.is_link and not batch_images.are_files(images).all():
        raise ConfigError(
            f"--link: expected local image files, found {_first(images.filter(~batch_images.are_files(images)))}; "
            "leave out --link, so that images are copied"
        )
    return images


def _addresses(images: pl.DataFrame, how: Wanted) -> list[str]:
    """The address of each image: mapped, presigned if it is a file in a bucket and not mapped, or its URI."""
    uris = images["uri"].to_list()
    found = [addresses.address(uri, how.urls) for uri in uris]
    if how.presign_seconds is None or not uris:
        return found
    in_bucket = [
        place
        for place, (uri, key) in enumerate(zip(uris, images["key"], strict=True))
        if uri.startswith("s3://") and key == "" and addresses.beginning(uri, how.urls) is None
    ]
    if not in_bucket:
        raise ConfigError(f"--presign: expected image files in a bucket, found none, first {uris[0]!r}; leave it out")
    signed = addresses.presigned([uris[place] for place in in_bucket], how.presign_seconds)
    for place, url in zip(in_bucket, signed, strict=True):
        found[place] = url
    return found


def _check_reachable(images: pl.DataFrame, how: Wanted) -> None:
    """Refuse images without a place of their own, unless the mapping says where their archive was unpacked."""
    starts = [addresses.beginning(uri, how.urls) or "" for uri in images["uri"]]
    is_inside = (pl.col("key") != "") & (pl.Series(starts).str.len_chars() <= pl.col("object_uri").str.len_chars())
    inside = images.filter(is_inside)
    copy = "--format folder, yolo or webdataset copies them"
    if inside.height:
        raise ConfigError(
            f"expected images that are files, found {_first(inside)}: a tool cannot open members of an archive or rows "
            f"of a table; {copy}, --url ARCHIVE#=FOLDER/ says where they were unpacked; nothing is entered"
        )
    unnamed = images.filter(pl.col("uri").str.starts_with("file://")) if not how.form.has_addresses else images.head(0)
    if unnamed.height:
        raise ConfigError(
            f"expected file names in UTF-8, found {_first(unnamed)}, which {how.form.name} cannot name; {copy} under "
            "other names; nothing is entered"
        )


def _first(images: pl.DataFrame) -> str:
    others = f" and {images.height - 1:,} more" if images.height > 1 else ""
    return f"{images['uri'][0]!r}{others}"


def known_classes(store: Store) -> list[str]:
    """The classes that the ledger knows, sorted."""
    return sorted({name for names in ledger.labels(ledger.read(store))["classes"].drop_nulls() for name in names})


def write(store: Store, images: pl.DataFrame, how: Wanted) -> Written:
    """Write a batch; each file is seen whole or not at all, and so is a folder.

    What exceeds the format's limits is written as several files, `NAME-000000.json` and on.

    Args:
        store: The workspace.
        images: What `prepared` returns, one row at least.
        how: The same as there.

    Raises:
        ConfigError: it cannot be written.
    """
    form, output = how.form, how.output.absolute()
    classes = known_classes(store)
    try:
        if how.is_inline:
            with storage.explain_full_disk(str(output.parent), output.name):
                return _write_inline(store, images, how, classes)
        if form.images is None and form.ending:
            pieces = _split(images, form, lambda piece: len(form.encode(piece, classes)[""]))
            files = _named(output, len(pieces))
            for file, piece in zip(files, pieces, strict=True):
                table_files.write_bytes(form.encode(piece, classes)[""], file)
            return Written(files)
        with storage.explain_full_disk(str(output.parent), output.name):
            if form.ending:
                return _write_tars(store, images, how)
            return _write_folder(store, images, how, classes)
    except OSError as error:
        raise ConfigError(f"{output}: expected a place to write to: {error.strerror}; name another") from error


def _write_folder(store: Store, images: pl.DataFrame, how: Wanted, classes: Sequence[str]) -> Written:
    form, output, lost = how.form, how.output.absolute(), list[str]()
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=storage.TEMPORARY_PREFIX) as temporary:
        folder = Path(temporary, "new")
        folder.mkdir()
        if form.images is not None:
            inside = folder / form.images
            inside.mkdir(exist_ok=True)
            if how.is_link:
                batch_images.link(images, inside)
            else:
                lost = batch_images.read(store, images, lambda name, data: (inside / name).write_bytes(data))
        for name, data in form.encode(images.filter(~pl.col("uri").is_in(lost)), classes).items():
            (folder / name).write_bytes(data)
        folder.replace(output)  # an empty folder may be there
    return Written([output], lost)


@contextmanager
def _spooled(
    store: Store, images: pl.DataFrame, folder: Path
) -> Iterator[tuple[Callable[[str], bytes], pl.DataFrame, list[str]]]:
    """The bytes of images by their `file_name`, the images that are there, and the URIs of the others.

    They are read as they lie and wanted in the order of the batch; between, they are in a file without a name.
    """
    places = dict[str, tuple[int, int]]()
    with tempfile.TemporaryFile(dir=folder) as spool:

        def take(name: str, data: bytes) -> None:
            places[name] = (spool.tell(), len(data))
            spool.write(data)

        def read(name: str) -> bytes:
            start, size = places[name]
            spool.seek(start)
            return spool.read(size)

        lost = batch_images.read(store, images, take)
        yield read, images.filter(~pl.col("uri").is_in(lost)), lost


def _write_tars(store: Store, images: pl.DataFrame, how: Wanted) -> Written:
    output = how.output.absolute()
    with _spooled(store, images, output.parent) as (read, kept, lost):
        pieces = _split(kept, how.form, lambda piece: int(piece["byte_length"].sum()))
        files = _named(output, len(pieces))
        for file, piece in zip(files, pieces, strict=True):
            with Store(str(file.parent)).writer(file.name) as stream:
                webdataset.pack(piece, read, stream)
    return Written(files, lost)


def _write_inline(store: Store, images: pl.DataFrame, how: Wanted, classes: Sequence[str]) -> Written:
    """One file's images are in memory at a time."""
    output = how.output.absolute()
    form = replace(how.form, most_bytes=min(how.form.most_bytes, _INLINE_BYTES))
    with _spooled(store, images, output.parent) as (read, kept, lost):
        pieces = _split(kept, form, lambda piece: int(piece["byte_length"].sum()) * 4 // 3 + _ROW_BYTES * piece.height)
        files = _named(output, len(pieces))
        for file, piece in zip(files, pieces, strict=True):
            named = piece.select("format", "file_name").iter_rows()
            data = [f"data:image/{kind};base64,{b64encode(read(name)).decode()}" for kind, name in named]
            inside = piece.with_columns(url=pl.Series(data, dtype=pl.String))
            table_files.write_bytes(form.encode(inside, classes)[""], file)
    return Written(files, lost)


def _split(images: pl.DataFrame, form: Format, size: Callable[[pl.DataFrame], int]) -> list[pl.DataFrame]:
    """The images in halves, and these again, until each piece is within the limits of the format."""
    if images.height < 2 or (images.height <= form.most_images and size(images) <= form.most_bytes):
        return [images]
    half = images.height // 2
    return [*_split(images[:half], form, size), *_split(images[half:], form, size)]


def _named(output: Path, pieces: int) -> list[Path]:
    if pieces == 1:
        return [output]
    return [output.with_name(f"{output.stem}-{number:06d}{output.suffix}") for number in range(pieces)]
