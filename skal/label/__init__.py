"""People label: rules (store, ledger, queue, leases, sample), service, page and terminal.

Nothing here imports torch until a network is trained, which happens in a process of its own.
"""
