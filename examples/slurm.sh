#!/bin/bash
# sbatch examples/slurm.sh: four hosts of eight GPUs, from the clone, after `make install` and
# .venv/bin/python -m pip install -c requirements.lock "jax[cuda13]". /shared is seen by all.
#SBATCH --job-name=glscl
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@120

srun .venv/bin/python -m glscl_jax.train --config configs/msrvtt.py \
  --workdir /shared/runs/msrvtt --config.data.dir=/shared/prepared/msrvtt_9k
status=$?

# --requeue is for nodes that fail. 75: told to end two minutes before the limit, all saved.
if [[ $status == 75 ]]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit $status
