"""A person labels: the store of labels, the project around it, rounds, page and terminal.

Nothing here imports torch until a network is trained, which happens in a process of its own.
"""
