"""A custom loop: query, label as you like, teach.

python examples/script_a_loop.py
"""

import skal

data = skal.load_dataset("digits")
clf = skal.ImageClassifier("small-cnn", classes=range(len(data.classes)), random_state=0)
learner = skal.ActiveLearner(data, clf, strategy="badge", seed=0)

for _ in range(4):
    indices = learner.query(20)
    labels = data.y[indices]  # here you would ask a person
    learner.teach(indices, labels)
    print(f"{(learner.y >= 0).sum():>4} labels  accuracy {learner.evaluate()['accuracy']:.3f}")
