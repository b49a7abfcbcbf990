"""Make docs/demo.svg: the demo's pictures and its answer, as a terminal shows it.

usage: uv run python docs/picture.py     (runs the demo into a temporary folder)
"""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from xml.sax.saxutils import escape

from PIL import Image

HERE = Path(__file__).parent
THUMB, COLUMNS, ROWS = 72, 12, 2
LINE, WIDTH, MARGIN, COLUMNS_OF_TEXT = 17, 912, 16, 120
HEADING, TEXT = "#7ee787", "#c9d1d9"


def sheet(pictures: Path) -> str:
    """Return a strip of pictures of every class, as a data URI."""
    folders = sorted(path for path in pictures.iterdir() if path.is_dir())
    files = [sorted(folder.iterdir())[:COLUMNS] for folder in folders]
    chosen = [files[n % len(files)][n // len(files)] for n in range(COLUMNS * ROWS)]
    canvas = Image.new("RGB", (THUMB * COLUMNS, THUMB * ROWS))
    for number, path in enumerate(chosen):
        with Image.open(path) as image:
            thumb = image.convert("RGB").resize((THUMB, THUMB))
        canvas.paste(thumb, (THUMB * (number % COLUMNS), THUMB * (number // COLUMNS)))
    buffer = io.BytesIO()
    canvas.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def wrapped(line: str) -> list[str]:
    """Break a long line as a terminal would, but between words; keep a table's blanks."""
    if len(line) <= COLUMNS_OF_TEXT:
        return [line]
    return textwrap.wrap(line, COLUMNS_OF_TEXT, subsequent_indent="    ")


def drawing(text: str, strip: str) -> str:
    """Return the SVG."""
    top = THUMB * ROWS + 2 * MARGIN
    lines = [part for line in text.rstrip().splitlines() for part in wrapped(line)]
    height = top + LINE * (len(lines) + 1) + MARGIN
    rows = []
    for number, line in enumerate(lines):
        colour = HEADING if re.match(r"\d\. ", line) else TEXT
        y = top + LINE * (number + 1)
        rows.append(
            f'<text x="{MARGIN}" y="{y}" fill="{colour}" xml:space="preserve">{escape(line)}</text>'
        )
    body = "\n".join(rows)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"
 width="{WIDTH}" height="{height}" font-family="ui-monospace, 'DejaVu Sans Mono', monospace"
 font-size="12">
<title>headstart demo: its pictures and what it prints</title>
<rect width="100%" height="100%" rx="8" fill="#0d1117"/>
<image x="{MARGIN + 8}" y="{MARGIN}" width="{THUMB * COLUMNS}" height="{THUMB * ROWS}"
 href="{strip}"/>
{body}
</svg>
"""


def main() -> int:
    """Run the demo and draw what it says."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "headstart", "demo"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        strip = sheet(Path(folder) / "headstart-demo" / "pictures")
    print(done.stdout)
    (HERE / "demo.svg").write_text(drawing(done.stdout, strip), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
