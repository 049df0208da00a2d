"""What a file is, by its first bytes, and what it claims to be, by its name."""

from pathlib import PurePosixPath

HEAD_BYTES = 512
"""As many first bytes as `sniff_image` and `sniff_container` look at."""

_AVIF_BRANDS = (b"avif", b"avis")
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_BMP_HEADER_SIZES = (12, 16, 40, 52, 56, 64, 108, 124)

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".tif", ".tiff", ".bmp", ".dib", ".gif"}
    | {".avif", ".heic", ".heif"}
)
UNREAD_SUFFIXES = frozenset(
    {".jp2", ".j2k", ".jxl", ".svg", ".psd", ".ico", ".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".rw2", ".orf"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".pcx", ".tga", ".exr", ".hdr", ".dds", ".icns", ".sgi", ".xbm", ".xpm", ".qoi"}
)
"""Suffixes of image formats that are not read here: a member named so claims to be an image and is refused."""

_TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst")
_LEGIBLE_ZIPS = (".zip",)
_PARQUET_SUFFIXES = (".parquet", ".pq")


def sniff_image(head: bytes) -> str | None:
    """The image format that begins so (`jpeg`, `png`, ...), or None; `other` is one that is not read here."""
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "webp"
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "tiff"
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BMP_HEADER_SIZES:
        return "bmp"
    if head[4:8] == b"ftyp":
        return _brand(head)
    if head.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ", b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51", b"8BPS")):
        return "other"
    return None


def _brand(head: bytes) -> str | None:
    """AVIF and HEIC share one container; the major brand decides, then the compatible ones."""
    size = min(int.from_bytes(head[:4], "big"), len(head))
    brands = [head[8:12], *(head[i : i + 4] for i in range(16, size, 4))]
    if any(brand in _AVIF_BRANDS for brand in brands):
        return "avif"
    return "heic" if any(brand in _HEIC_BRANDS for brand in brands) else None


def sniff_container(head: bytes) -> str | None:
    """`tar`, `gz`, `zst`, `parquet` or `zip` if the bytes begin so, else None."""
    if head[257:262] == b"ustar":
        return "tar"
    if head.startswith(b"\x1f\x8b"):
        return "gz"
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        return "zst"
    if head.startswith(b"PAR1"):
        return "parquet"
    return "zip" if head.startswith((b"PK\3\4", b"PK\5\6")) else None


def kind_by_name(name: str) -> str:
    """A first guess at an object's kind: `tar`, `parquet`, `zip` or `loose`. Its first bytes settle it later."""
    lowered = name.lower()
    if lowered.endswith(_TAR_SUFFIXES):
        return "tar"
    if lowered.endswith(_PARQUET_SUFFIXES):
        return "parquet"
    return "zip" if lowered.endswith(_LEGIBLE_ZIPS) else "loose"


def claims_image(name: str) -> bool:
    """Whether the name ends like an image's."""
    suffix = PurePosixPath(name.rsplit("/", 1)[-1]).suffix.lower()
    return suffix in IMAGE_SUFFIXES or suffix in UNREAD_SUFFIXES


def is_apple_double(name: str, head: bytes) -> bool:
    """Whether it is what macOS adds to a file in archives and on foreign disks: `._a.jpg` to `a.jpg`."""
    return name.rsplit("/", 1)[-1].startswith("._") and head.startswith(b"\0\5\x16\7")


def is_unread_name(name: str) -> bool:
    """Whether the name ends like that of an image format which is not read here."""
    return PurePosixPath(name.rsplit("/", 1)[-1]).suffix.lower() in UNREAD_SUFFIXES
