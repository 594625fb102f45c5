"""Write the pictures and texts of a Parquet table as files: python examples/files.py TABLE FOLDER [ROWS]

Each row becomes 000000.png (or .jpg) and 000000.txt, as the source `folder` reads them.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pyarrow import parquet


def main(table: Path, folder: Path, rows: int | None = None) -> None:
    """Write the columns image and text of the first so many rows."""
    folder.mkdir(parents=True, exist_ok=True)
    read = parquet.ParquetFile(table).read(["image", "text"]).slice(0, rows)
    for number, (image, text) in enumerate(zip(read["image"].to_pylist(), read["text"].to_pylist(), strict=True)):
        suffix = ".png" if image.startswith(b"\x89PNG") else ".jpg"
        (folder / f"{number:06}{suffix}").write_bytes(image)
        (folder / f"{number:06}.txt").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None)
