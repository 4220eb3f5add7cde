"""Vision tower and language model on TensorRT: engines built from the model's ONNX graphs, an encoder and a decoder.

releases.py    what differs between TensorRT 8.6, 10.3, 10.13 and 11, as a table
purpose.py     which graphs an engine is for, and their shapes
recipe.py      precision, row counts and workspace of an engine
building.py    from an ONNX graph to a plan
enginefile.py  the plan on disk: what it was built for, whole or not at all
device.py      what is asked of CUDA; cuda.py answers with PyCUDA
memory.py      GPU memory by part
execution.py   an execution context of one profile, with its addresses
runtime.py     opens, builds and verifies the engines of a model
encoder.py     implements `engines.plan.Encoder`
language.py    implements `engines.text.language.Language`, on the GPU memory of seat.py

Nothing here has run on a GPU yet; tests run it on a stand-in that enforces TensorRT's documented contract.
"""
