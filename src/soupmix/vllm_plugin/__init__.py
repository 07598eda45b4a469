"""Soups inside a vLLM server: the plug-in that its processes load, and what a request must carry.

vLLM finds `soups` by an entry point (`vllm.general_plugins`) and calls it in each of its processes. It does nothing unless
the environment variable SOUPMIX_VLLM names a setup file (`setup`). Then the adapters of a store are held once in every layer
(`placing`, `shards`), a request's row of weights comes in its `vllm_xargs` (`row`), is checked where the request comes in and
where the row is written (`checking`), and the rows of a step are written before the model runs (`step`). `hooks` puts this into
the vLLM versions of `supported`, and `canary` answers one request before any other to show that it works.

Nothing here imports vLLM until it is called there.
"""

import os

__all__ = ["SETUP", "soups"]

SETUP = "SOUPMIX_VLLM"
"""Environment variable that names the setup file; without it the plug-in does nothing."""


def soups() -> None:
    """The entry point. vLLM goes on without a plug-in that cannot be imported, so all that can fail is imported in here.

    Raises:
        SoupmixError: soups cannot be served here; vLLM does not start.
    """
    if os.environ.get(SETUP):
        from soupmix.vllm_plugin.hooks import install

        install(os.environ[SETUP])
