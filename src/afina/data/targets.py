"""Files that are written: never over the file that is read, and each one over no other."""

from __future__ import annotations

from pathlib import Path

from afina.errors import InvalidRequest


def check_targets(source: Path, *targets: Path | None) -> None:
    """Raises InvalidRequest for a target that is `source`, another target, a folder, or in a folder
    that there is not; None stands for a file that is not asked for."""
    taken: set[Path] = set()
    for target in targets:
        if target is None:
            continue
        if target.is_dir():
            raise InvalidRequest(f"{target} is a folder.", param="target", remedy="Name a file.")
        if not target.parent.is_dir():
            raise InvalidRequest(
                f"There is no folder {target.parent}.", param="target", remedy="Make it first."
            )
        if target.exists() and source.exists() and target.samefile(source):
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
