"""Comparisons of many runs: which strategy beats random, by how much, and how certainly.

1. `compare` is the entry point; `grid` lists the runs, `folder` manages their folder.
2. `worker` executes one run, in a local process or on a cluster.
3. `results` reads runs back from their folders; `pairs` checks which of them are comparable.
4. `curves` aligns runs at common numbers of labels, `statistics` computes, `verdicts` draws
   conclusions, worded by `sentences`.
5. `plots` and `report` present the results.
"""
