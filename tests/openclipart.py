"""Real pictures: Debian's public-domain openclipart package, some of each of four classes."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

CLASSES = ("animals", "food", "people", "transportation")
HOW = "needs Debian's openclipart-png: apt-get update, and a network that reaches Debian's archive"
_LARGEST = 150_000  # bytes of a file that is taken


def fetch(cache: Path) -> Path | None:
    """Return a folder with the pictures as they come, or None where the package cannot be had.

    They are kept in `cache`, so that a second run fetches nothing.
    """
    done = cache / "openclipart"
    draft = cache / "draft"
    if not done.is_dir() and shutil.which("apt-get"):
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        for command in ("", "apt-get update && "):
            if _run(f"{command}apt-get download openclipart-png", draft):
                members = " ".join(f"'./usr/share/openclipart/png/{name}/*'" for name in CLASSES)
                unpack = "dpkg-deb --fsys-tarfile openclipart-png_*.deb | tar -x --wildcards "
                if _run(unpack + members, draft):
                    (draft / "usr/share/openclipart/png").rename(done)
                break
        shutil.rmtree(draft, ignore_errors=True)
    return done if done.is_dir() else None


def _run(command: str, folder: Path) -> bool:
    """Tell whether a command ended well, in reasonable time; what it prints is not shown."""
    quiet = subprocess.DEVNULL  # no pipe: a child of the shell would keep it open beyond the time
    try:
        found = subprocess.run(
            ["sh", "-c", command], cwd=folder, stdout=quiet, stderr=quiet, check=False, timeout=120
        )
    except subprocess.TimeoutExpired:
        return False
    return found.returncode == 0


def split(pictures: Path, root: Path, *, per_class: int) -> tuple[Path, Path]:
    """Copy so many small pictures of each class, every third into the second of two folders.

    No picture is there twice, under whatever name.
    """
    seen: set[str] = set()
    for name in CLASSES:
        files = []
        for file in sorted((pictures / name).rglob("*.png")):
            if file.is_symlink() or file.stat().st_size > _LARGEST:
                continue
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            if digest not in seen:
                seen.add(digest)
                files.append(file)
        for number, file in enumerate(files[:: len(files) // per_class][:per_class]):
            target = root / ("held" if number % 3 == 2 else "train") / name / file.name
            target = target.with_name(f"{number:03}-{target.name}")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    return root / "train", root / "held"
