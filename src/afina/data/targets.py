"""Files that are written: never over the file that is read, each one over no other, and none over
what is no file."""

from __future__ import annotations

from pathlib import Path

from afina.errors import InvalidRequest


def check_targets(source: Path, *targets: Path | None) -> None:
    """Raises InvalidRequest for a target that is `source`, another target, a folder, a device, or
    in a folder that there is not; None stands for a file that is not asked for. A file is put in
    its place when it is whole, so it would replace a device or a pipe, for all who use it."""
    taken: set[Path] = set()
    for target in targets:
        if target is None:
            continue
        if target.is_dir():
            raise InvalidRequest(f"{target} is a folder.", param="target", remedy="Name a file.")
        if target.exists() and not target.is_file():
            raise InvalidRequest(
                f"{target} is a device or a pipe, and no file.",
                param="target",
                remedy="Name a file.",
            )
        if target.is_symlink() and target.parent == Path("/dev"):  # /dev/stdout, sent to a file
            raise InvalidRequest(
                f"{target} is a name for another file.", param="target", remedy="Name that file."
            )
        if not target.parent.is_dir():
            raise InvalidRequest(
                f"There is no folder {target.parent}.", param="target", remedy="Make it first."
            )
        # What is not whole yet stands beside it under this name.
        partial = target.with_name(target.name + ".part")
        if any(
            path.exists() and source.exists() and path.samefile(source)
            for path in (target, partial)
        ):
            raise InvalidRequest(
                f"{target} would overwrite the file that is read.",
                param="target",
                remedy="Give another name for it.",
            )
        if target.resolve() in taken:
            raise InvalidRequest(
                f"Two files would be written as {target}.",
                param="target",
                remedy="Give each a name of its own.",
            )
        taken.add(target.resolve())
