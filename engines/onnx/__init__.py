"""The engine on ONNX Runtime: any Linux CPU."""
