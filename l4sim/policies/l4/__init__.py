"""L4: length-specialised groups of instances (arXiv 2512.19179).

`partition` chooses the stages, `router` places a request by its prompt, `agent` hands it over when it outgrows its
stage. What the paper leaves open is ours, and said so where it stands.
"""
