"""A comparison on a Dask cluster: two processes here, but the same code works on many machines.

python examples/dask_cluster.py [--seeds 3] [--steps N]

First run pip install 'skal[dask]'. Run the script again to resume a stopped comparison.

What to conclude: the same as without a cluster, because the figures equal those of one process to
the last digit. Three seeds demonstrate the method, but cannot show a difference. The last line says
in how many of them random was as good.
"""

import argparse
import tempfile

import numpy as np
from distributed import LocalCluster

import skal


def main():
    """Compare on a cluster, and print how far above random each run was."""
    parser = argparse.ArgumentParser(description="A comparison on a Dask cluster.")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each strategy")
    parser.add_argument("--steps", type=int, help="optimiser steps a round")
    args = parser.parse_args()

    # on Slurm: dask_jobqueue.SLURMCluster(cores=1, memory="4GB"), then cluster.scale(40)
    with (
        tempfile.TemporaryDirectory() as scratch,
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            dashboard_address="127.0.0.1:0",
            local_directory=scratch,
        ) as cluster,
    ):
        comparison = skal.compare(
            "digits",
            ["random", "margin"],
            args.seeds,
            model="small-cnn",
            n_rounds=2,
            steps=args.steps,
            backend="dask",
            scheduler=cluster.scheduler_address,
            out="runs/dask-cluster",
        )
    print(comparison.table())
    last = {(run.strategy, run.config.seed): run.rounds[-1] for run in comparison.results}
    gains = [
        last["margin", seed]["accuracy"] - last["random", seed]["accuracy"]
        for seed in range(args.seeds)
    ]
    print(f"margin above random at the end, by seed: {', '.join(f'{g:+.3f}' for g in gains)}")
    print(f"in {np.sum(np.array(gains) <= 0)} of {args.seeds} seeds random was as good")


if __name__ == "__main__":
    main()
