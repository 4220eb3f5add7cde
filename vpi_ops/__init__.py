"""Image operations of the coherent path behind one interface: host (OpenCV), later Jetson (VPI and CUDA)."""
