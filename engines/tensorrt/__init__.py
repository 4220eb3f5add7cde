"""The vision tower on TensorRT: engines built from the same ONNX graphs, and an encoder over them.

releases.py    what differs between TensorRT 8.6, 10.3, 10.13 and 11, as a table
recipe.py      precision, row counts and workspace of an engine
building.py    from an ONNX graph to a plan
enginefile.py  the plan on disk: what it was built for, whole or not at all
device.py      what is asked of CUDA; cuda.py answers with PyCUDA
memory.py      GPU memory by part
execution.py   an execution context of one profile, with its addresses
runtime.py     opens, builds and verifies the engines of a model
encoder.py     implements `engines.plan.Encoder`

Nothing here has run on a GPU yet; tests run it on a stand-in that enforces TensorRT's documented contract.
"""
