"""Recognize what is often saved in place of a file that was to be downloaded."""

HEAD = 512  # bytes that are enough
_PAGES = (b"<!doctype html", b"<html", b"<head", b"<body")


def describe_wrong_file(head: bytes) -> str | None:
    """Return what a file is, and what to do, if it is a web page or a git-lfs pointer.

    Args:
        head: The first ``HEAD`` bytes of the file.

    Returns:
        Words that follow "is"; None for other files.
    """
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer, not the file itself; run `git lfs pull`, or download it directly"
    if text.startswith(_PAGES) or (text.startswith(b"<?xml") and b"<svg" not in text):
        return (
            "a web page: the download gave an error or login page; open the link in a browser and "
            "see"
        )
    return None
