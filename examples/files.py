"""Write the pictures and texts of a Parquet table as files: python examples/files.py TABLE FOLDER [COLUMN]

Each row becomes 000000.png (or .jpg) and 000000.txt, as the source `folder` reads them. With a column the pictures lie
in a folder for each of its values instead, and there are no texts.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pyarrow import parquet


def main(table: Path, folder: Path, column: str | None = None) -> None:
    """Write the columns image and text, or image by another one."""
    words = column or "text"
    read = parquet.ParquetFile(table).read(["image", words])
    for number, (image, text) in enumerate(zip(read["image"].to_pylist(), read[words].to_pylist(), strict=True)):
        suffix = ".png" if image.startswith(b"\x89PNG") else ".jpg"
        path = folder / text / f"{number:06}{suffix}" if column else folder / f"{number:06}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image)
        if not column:
            path.with_suffix(".txt").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
