"""A team with overlap: three people label a folder, and some images are shown to two of them.

python examples/team_with_overlap.py [--seeds 10]

Functions simulate the people. The rest is what `skal label --overlap` does behind its page.

What to conclude from ten seeds: agreement reveals careless annotators without knowing the truth.
Both pairs with cleo, who is wrong three times in ten, have a kappa near 0.6; anna and ben have 0.9.
A single labelling may show 0.38 or 0.85 for a pair with cleo, so do not judge by twenty shared
images. Overlap has a cost. With 240 answers, the model reached 88.4% (standard deviation 1.6) from
240 images, 86.9% (2.0) from 186 with 30% overlap, and 83.4% (2.4) from 122 with everything shown
twice. Of two different answers the last one counts, so overlap alone corrects no label. Show only a
few images twice, to find out whom to talk to. Images come in random order here; no strategy selects
them.
"""

import argparse
import io
import tempfile
from contextlib import closing, redirect_stderr
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from skal.label.agreement import agreements, report
from skal.label.project import LabelProject
from skal.label.service import LabelService

WRONG = {"anna": 0.02, "ben": 0.1, "cleo": 0.3}
"""How often each is wrong; only this script knows."""
N_IMAGES, N_ANSWERS = 300, 240
DIGITS = load_digits()


def write_images(root, numbers):
    """Write some of scikit-learn's digits as files into one folder."""
    root.mkdir()
    for number in numbers:
        Image.fromarray((DIGITS.images[number] * 15).astype(np.uint8)).save(root / f"{number}.png")
    return root


def label_together(project, rng):
    """Let each person in turn answer the queue's next image, until all answers are given."""
    service = LabelService(project)
    for turn in range(N_ANSWERS):
        who = list(WRONG)[turn % len(WRONG)]
        queue = service.next(who)
        if not queue:
            continue
        truth = DIGITS.target[number_of(project, queue[0])]
        is_wrong = rng.random() < WRONG[who]
        said = (truth + rng.integers(1, 10)) % 10 if is_wrong else truth
        service.act(who, [{"action": "label", "image": queue[0], "label": int(said)}])


def number_of(project, image):
    """Return which digit of scikit-learn's an image of the project is."""
    return int(Path(project.paths[image]).stem)


def accuracy_of(project, numbers):
    """Return the share of right labels, and the accuracy of a model trained on all of them."""
    found = {number_of(project, image): label for image, label in project.labels.items()}
    known, labels = list(found), list(found.values())
    model = LogisticRegression(max_iter=500).fit(DIGITS.data[known] / 16, labels)
    others = np.setdiff1d(np.arange(len(DIGITS.data)), numbers)
    right = np.mean(DIGITS.target[known] == labels)
    return len(known), right, model.score(DIGITS.data[others] / 16, DIGITS.target[others])


def main():
    """Label with and without overlap; print agreement, right labels and accuracy."""
    parser = argparse.ArgumentParser(description="A team with overlap.")
    parser.add_argument("--seeds", type=int, default=10, help="labellings of each sort")
    args = parser.parse_args()

    figures = {"0%": [], "30%": [], "100%": []}
    kappas = {}
    for seed in range(args.seeds):
        for overlap, rows in figures.items():
            rng = np.random.default_rng(seed)
            numbers = rng.choice(len(DIGITS.data), N_IMAGES, replace=False)
            with tempfile.TemporaryDirectory() as place, redirect_stderr(io.StringIO()):
                root = write_images(Path(place) / "digits", numbers)
                settings = {"seed": seed}
                classes = list("0123456789")
                with closing(LabelProject.open(root, classes, settings, overlap)) as project:
                    label_together(project, rng)
                    rows.append(accuracy_of(project, numbers))
                    if overlap == "30%":
                        for pair in agreements(project):
                            kappas.setdefault(f"{pair.first}, {pair.second}", []).append(pair.kappa)
                        if seed == 0:
                            print("\n".join(report(project)[:10]), "...\n", sep="\n")

    for pair, found in kappas.items():
        print(f"kappa of {pair:<12}{np.mean(found):.2f}, from {min(found):.2f} to {max(found):.2f}")
    print(f"\n{N_ANSWERS} answers, mean (and standard deviation) of {args.seeds} seeds:")
    for overlap, rows in figures.items():
        (n, right, accuracy), spread = np.mean(rows, 0), np.std(rows, 0)
        print(
            f"overlap {overlap:>4}: {n:.0f} images, {right:.1%} ({spread[1]:.1%}) of labels right, "
            f"accuracy {accuracy:.1%} ({spread[2]:.1%})"
        )


if __name__ == "__main__":
    main()
