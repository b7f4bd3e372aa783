#!/bin/sh
# Seeds of the explorer on a Slurm cluster: an array of 64 tasks, each a part. sbatch docs/explore/slurm.sh
# Which part it is, each task reads from SLURM_ARRAY_TASK_ID and SLURM_ARRAY_TASK_COUNT.
#SBATCH --job-name=luosim-explore
#SBATCH --array=0-63
#SBATCH --cpus-per-task=8
#SBATCH --time=02:00:00
set -eu
# Exit code 1 says that something was found, which is not a failure of the job.
luosim explore --seeds 0..64000000 --jobs "$SLURM_CPUS_PER_TASK" --out "${OUT:-results}" || [ $? -eq 1 ]
# When all are done: luosim explore --merge results/explore-*.jsonl
