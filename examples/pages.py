"""Write a shop of saved pages into a folder: drawn pictures, of which four voices speak, each with its own honesty.

    python examples/pages.py data/pages

train/ and test/ hold pages; truth.json tells what each picture of train/ shows, by its key.
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "black", "cyan")
SHAPES = {"circle": 0, "triangle": 3, "square": 4, "pentagon": 5, "ring": -1, "bar": -2}
HONESTY = {"alt": 0.6, "figcaption": 0.95, "title": 0.85, "near": 0.75}
NAMES = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]


def draw(name: str, rng: np.random.Generator) -> Image.Image:
    """Draw a shape of about a size at about the middle."""
    colour, shape = name.split()
    picture = Image.new("RGB", (32, 32), "white")
    pen, radius = ImageDraw.Draw(picture), float(rng.uniform(7, 12))
    x, y = (float(one) for one in rng.uniform(13, 19, 2))
    box = (x - radius, y - radius, x + radius, y + radius)
    if shape == "circle":
        pen.ellipse(box, fill=colour)
    elif shape == "ring":
        pen.ellipse(box, outline=colour, width=3)
    elif shape == "bar":
        pen.rectangle((x - radius, y - 2, x + radius, y + 2), fill=colour)
    else:
        pen.regular_polygon((x, y, radius), SHAPES[shape], fill=colour)
    return picture


def write(root: Path, each: int, honesty: dict[str, float], seed: int) -> dict[str, str]:
    """Write pages of 24 pictures, of each name so many; return what they show, by key."""
    rng, truth, cards = np.random.default_rng(seed), {}, []
    for number, name in enumerate(rng.permutation(NAMES * each).tolist()):
        page = f"page-{number // 24:02d}"
        path = f"{page}_files/{number:04d}.png"
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        draw(name, rng).save(root / path)
        said = {voice: name if rng.random() < share else str(rng.choice(NAMES)) for voice, share in honesty.items()}
        truth[f"{page}.html#{path}"] = name
        cards.append(
            f'<div><h3>{said["near"]}</h3><figure><img src="{path}" alt="{said["alt"]}" title="{said["title"]}">'
            f"<figcaption>{said['figcaption']}</figcaption></figure></div>"
        )
        (root / f"{page}.html").write_text(f"<title>{page}</title>\n" + "\n".join(cards[number // 24 * 24 :]))
    return truth


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    shown = write(folder / "train", 10, HONESTY, 0)
    (folder / "truth.json").write_text(json.dumps(shown, indent=1))
    write(folder / "test", 1, dict.fromkeys(HONESTY, 1.0), 1)
