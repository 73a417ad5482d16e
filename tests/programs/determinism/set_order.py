"""Losses are summed in the order of a set of names, which the hash seed decides."""

losses = {"pixels": 0.1, "edges": 1e16, "smoothness": -1e16, "adversary": 0.7, "weights": 3e-3, "colour": 11.0}
names = set(losses)
total = 0.0
for name in names:
    total += losses[name]
print("total loss", total)
