"""Read text that spreadsheets and editors have saved."""

import codecs
from pathlib import Path

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_text_file(path: Path) -> str:
    """Read text in UTF-8, or in UTF-16 with a byte order mark (Excel's "Unicode text").

    Args:
        path: The file.

    Returns:
        Its text, without a byte order mark.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is in another encoding; the message says how to save it.
    """
    data = path.read_bytes()
    encoding = "utf-16" if data.startswith(_UTF16) else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"byte {error.start} is not {encoding.removesuffix('-sig').upper()}; save it as "
            '"CSV UTF-8" or "Unicode text"'
        ) from error
