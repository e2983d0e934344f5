"""Many runs against each other: which strategy beats random, by how much, and how sure that is.

1. `compare` is the entry point; `grid` says which runs there are, `folder` keeps them.
2. `worker` makes one run, in a process here or on a cluster.
3. `results` reads runs back from their folders; `pairs` says which of them may be compared.
4. `curves` puts runs on common numbers of labels, `statistics` computes, `verdicts` says what may
   be concluded, in the words of `sentences`.
5. `plots` and `report` show it.
"""
