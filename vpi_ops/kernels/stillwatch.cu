// All kernels, as one module.
#include "flow.cu"
#include "picture.cu"
#include "residual.cu"
#include "tokens.cu"
