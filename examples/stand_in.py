"""Draws flowers in place of Kaggle's photographs: a folder for each of five kinds.

python examples/stand_in.py FOLDER [N]    draws N pictures of each kind, by default 130
python examples/stand_in.py               draws them and deletes them again
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE = 96
"""Height and width in pixels; drawn at twice that, so that edges are smooth."""
PINK, RED, WHITE, YELLOW = (235, 130, 170), (200, 30, 50), (245, 240, 235), (250, 205, 40)
ORANGE, VIOLET, GREEN, BROWN = (245, 140, 40), (140, 60, 150), (60, 120, 50), (75, 45, 25)
GROUNDS = ((55, 95, 45), (95, 125, 70), (130, 165, 200), (105, 85, 60), (45, 50, 45))


class Brush:
    """Draws the parts of flowers around a centre, rotated and tilted."""

    def __init__(self, draw, rng, centre, radius):
        self.draw, self.rng, self.radius = draw, rng, radius
        self.turn, self.tilt = rng.uniform(0, 2 * np.pi), rng.uniform(0.6, 1)
        self.centre = np.array(centre)

    def shade(self, colour, spread=16):
        """Return a colour, a little lighter or darker."""
        return tuple(int(c) for c in np.clip(np.array(colour) + self.rng.normal(0, spread), 0, 255))

    def place(self, x, y):
        """Convert points of a flower of radius 1 to points of the image."""
        sin, cos = np.sin(self.turn), np.cos(self.turn)
        points = np.stack([x, np.multiply(y, self.tilt)], -1) @ [[cos, sin], [-sin, cos]]
        return [tuple(point) for point in (self.centre + self.radius * points).tolist()]

    def petal(self, angle, length, width, colour, start=0.0, blunt=1.0):
        """Draw a leaf shape from near the centre outwards; blunt ones are widest at their end."""
        t = np.linspace(0, 1, 12)
        half = width * np.sin(np.pi * t**blunt)
        along = np.concatenate([start + (length - start) * t] * 2)
        across = np.concatenate([half, -half[::-1]])
        along[12:] = along[11::-1]
        x = along * np.cos(angle) - across * np.sin(angle)
        y = along * np.sin(angle) + across * np.cos(angle)
        edge = tuple(int(c * 0.8) for c in colour)
        self.draw.polygon(self.place(x, y), fill=colour, outline=edge)

    def disc(self, x, y, radius, colour, outline=None):
        """Draw a disc."""
        t = np.linspace(0, 2 * np.pi, 24)
        points = self.place(x + radius * np.cos(t), y + radius * np.sin(t))
        self.draw.polygon(points, fill=colour, outline=outline)

    def ring(self, n, length, width, colour, **shape):
        """Draw petals all around."""
        for angle in np.arange(n) * 2 * np.pi / n + self.rng.normal(0, 0.08, n):
            self.petal(
                angle, length * self.rng.uniform(0.85, 1), width, self.shade(colour), **shape
            )


def daisy(brush, rng):
    """Draw narrow white or pink petals around a small yellow disc."""
    colour = PINK if rng.random() < 0.2 else WHITE
    brush.ring(rng.integers(12, 24), 1, 0.13, colour, blunt=1.8)
    brush.disc(0, 0, rng.uniform(0.2, 0.34), brush.shade(YELLOW))


def dandelion(brush, rng):
    """Draw a yellow tuft, or the white ball of its seeds."""
    if rng.random() < 0.3:
        for angle in rng.uniform(0, 2 * np.pi, 60):
            reach, pale = rng.uniform(0.5, 1), brush.shade((215, 215, 210))
            x, y = reach * np.cos(angle), reach * np.sin(angle)
            brush.draw.line(brush.place([0, x], [0, y]), fill=pale, width=1)
            brush.disc(x, y, 0.07, pale)
        brush.disc(0, 0, 0.12, brush.shade(BROWN))
        return
    for length in (1, 0.8, 0.6, 0.4, 0.2):
        brush.ring(28, length, 0.06, YELLOW, blunt=1.5)


def rose(brush, rng):
    """Draw petals that overlap in a spiral."""
    colour = (RED, PINK, WHITE, YELLOW)[rng.choice(4, p=(0.45, 0.3, 0.15, 0.1))]
    for k, reach in enumerate(np.linspace(0.62, 0.03, 16)):
        x, y = reach * np.cos(2.4 * k), reach * np.sin(2.4 * k)
        edge = tuple(int(c * 0.65) for c in colour)
        brush.disc(x, y, 0.14 + 0.42 * reach, brush.shade(colour), outline=edge)


def sunflower(brush, rng):
    """Draw pointed yellow petals around a large dark disc."""
    for length in (1, 0.85):
        brush.ring(rng.integers(14, 22), length, 0.14, YELLOW, start=0.2)
    heart = rng.uniform(0.36, 0.52)
    brush.disc(0, 0, heart, brush.shade(BROWN))
    for angle, reach in zip(rng.uniform(0, 6.3, 40), np.sqrt(rng.random(40)), strict=True):
        x, y = 0.9 * heart * reach * np.cos(angle), 0.9 * heart * reach * np.sin(angle)
        brush.disc(x, y, 0.03, brush.shade((120, 80, 40)))


def tulip(brush, rng):
    """Draw a cup of three petals on a stem, seen from the side."""
    brush.turn, brush.tilt = rng.normal(0, 0.35), 1
    colour = (YELLOW, VIOLET, ORANGE, RED, PINK)[rng.choice(5, p=(0.25, 0.25, 0.2, 0.2, 0.1))]
    stem = brush.place([0, 0.3], [0.6, 7])
    brush.draw.line(stem, fill=brush.shade(GREEN), width=max(2, int(brush.radius * 0.14)))
    for angle in np.pi / 2 + rng.normal([-0.6, 0.6], 0.15):
        brush.petal(angle, rng.uniform(1.8, 2.6), 0.16, brush.shade(GREEN), start=0.8)
    for x, lean in ((-0.24, -0.12), (0.24, 0.12), (0, 0)):
        t = np.linspace(0, 2 * np.pi, 24)
        width = 0.36 * (1 + 0.25 * np.sin(t))  # fuller below
        points = brush.place(x + lean - width * np.cos(t), 0.9 * np.sin(t))
        edge = tuple(int(c * 0.7) for c in colour)
        brush.draw.polygon(points, fill=brush.shade(colour), outline=edge)


FLOWERS = {kind.__name__: kind for kind in (daisy, dandelion, rose, sunflower, tulip)}


def draw_flower(kind, rng):
    """Return an image with one or several flowers of one kind, anywhere and in any light."""
    size = 2 * SIZE
    ground = np.array(GROUNDS[rng.integers(len(GROUNDS))]) + rng.normal(0, 15, 3)
    blotches = rng.normal(0, 20, (6, 6, 1)) + rng.normal(0, 7, (6, 6, 3))
    pixels = np.clip(ground + blotches, 0, 255).astype(np.uint8)
    image = Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)

    def grass(n):
        for x, lean, top in zip(*rng.uniform(-0.2, 1.2, (3, n)), strict=True):
            green = tuple(int(c) for c in np.clip(np.array(GREEN) + rng.normal(0, 30), 0, 255))
            blade = [(x * size, size), ((x + lean) / 2 * size, top * size)]
            draw.line(blade, fill=green, width=int(rng.integers(2, 7)))

    grass(rng.integers(0, 16))
    n = rng.choice(4, p=(0.76, 0.12, 0.08, 0.04)) + 1
    for _ in range(n):
        radius = size * rng.uniform(0.28, 0.48) / np.sqrt(n)
        FLOWERS[kind](Brush(draw, rng, rng.uniform(0.32, 0.68, 2) * size, radius), rng)
    grass(rng.integers(0, 4))
    image = image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1)))
    light = rng.uniform(0.7, 1.15) * rng.uniform(0.93, 1.07, 3)
    noisy = np.asarray(image) * light + rng.normal(0, rng.uniform(2, 10), (SIZE, SIZE, 3))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def draw_flowers(folder, n_per_class=130, seed=0):
    """Draw missing JPEG files into a subfolder for each kind; return the folder."""
    for number, kind in enumerate(FLOWERS):
        (Path(folder) / kind).mkdir(parents=True, exist_ok=True)
        for i in range(n_per_class):
            path = Path(folder) / kind / f"{i:03}.jpg"
            if not path.exists():
                draw_flower(kind, np.random.default_rng([seed, number, i])).save(path, quality=88)
    return Path(folder)


def has_photographs(data_dir):
    """Tell whether the real flowers lie where `skal.load_dataset("flowers")` looks for them."""
    places = (Path(data_dir) / "flowers", Path(data_dir))
    return any((place / part / "daisy").is_dir() for place in places for part in (".", "train"))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        folder = draw_flowers(*sys.argv[1:2] or [scratch], *map(int, sys.argv[2:]))
        for kind in FLOWERS:
            print(f"{kind:<10}{len(list((folder / kind).glob('*.jpg')))} images")
        print(f"drawn into {folder}" if len(sys.argv) > 1 else "drawn, and deleted again")
