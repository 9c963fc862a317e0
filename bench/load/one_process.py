"""python -m bench.load.one_process ARGUMENTS: `vllm serve`, the model in the scheduler's process, as in our engine.

vLLM's own command takes the executor, but starts it without OpenMP's settings, which it makes for workers only.
"""

import os
import runpy

from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.utils.ompmultiprocessing import OMPProcessManager

from idiolect_server.engine.launch import INTEL_OPENMP
from idiolect_training.demo_model import demo_model

EXECUTOR = "vllm.v1.executor.uniproc_executor.UniProcExecutor"

if __name__ == "__main__":  # the engine's process imports this module again
    if INTEL_OPENMP.exists():
        os.environ["LD_PRELOAD"] = str(INTEL_OPENMP)  # heeded by the engine's process, not by this one, as with us
    # OpenMP's settings come from the machine, not from the model.
    config = AsyncEngineArgs(model=str(demo_model())).create_engine_config()
    with OMPProcessManager(config).configure_omp_envs(rank=0, local_rank=0):
        runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__")
