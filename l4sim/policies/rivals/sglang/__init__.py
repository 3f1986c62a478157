"""Routers of SGLang's gateway (`sgl-project/sglang`, `sgl-router`, later `sgl-model-gateway`, `src/policies/`).

Thresholds are the defaults of the gateway's command line (`RouterArgs`), where they differ from those of the crate. The
gateway knows prompts as text and counts characters; here a prompt token stands for `CHARACTERS_PER_TOKEN` of them.
"""
