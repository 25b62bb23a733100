"""Images in folders, and single files."""

from collections.abc import Iterator, Sequence

from florence2.bulk.items import IsWanted, Item, has_image_suffix, id_text
from florence2.bulk.storage import Location


class FolderSource:
    """The images in a folder and its subfolders, in the order of their paths. An id is a prefix and the path.

    Hidden files and folders, whose names begin with a dot, are left out, and so are the run's own outputs.
    """

    has_inputs = False

    def __init__(self, folder: Location, prefix: str = "", left_out: Sequence[Location] = ()) -> None:
        self._folder = folder
        self._prefix = prefix
        self._left_out = left_out

    def items(self, is_wanted: IsWanted) -> Iterator[Item]:
        """The images. Only the names of the folders on the way to one are held in memory."""
        for path, file in _files(self._folder, self._prefix, self._left_out):
            if is_wanted(path):
                yield Item(path, file.url, file)

    def count(self) -> int:
        """The number of images, by listing all folders."""
        return sum(1 for _ in _files(self._folder, self._prefix, self._left_out))


class FileSource:
    """One image."""

    has_inputs = False

    def __init__(self, file: Location, id_: str) -> None:
        self._file = file
        self._id = id_text(id_)

    def items(self, is_wanted: IsWanted) -> Iterator[Item]:
        """The image."""
        if is_wanted(self._id):
            yield Item(self._id, self._file.url, self._file)

    def count(self) -> int:
        """One."""
        return 1


def _files(folder: Location, prefix: str, left_out: Sequence[Location]) -> Iterator[tuple[str, Location]]:
    for name, is_folder in folder.children():
        if name.startswith("."):
            continue
        if is_folder:
            child = folder.child(name)
            if not any(child.is_in(each) for each in left_out):
                yield from _files(child, f"{prefix}{name}/", left_out)
        elif has_image_suffix(name):
            yield id_text(f"{prefix}{name}"), folder.child(name)
