// N:M masks and pruned copies on a GPU, for every N:M: the masked-dense path.
#pragma once

#include <cuda_runtime_api.h>

#include "amber/cpu/prune.h"

namespace amber::cuda {

// `cpu::PruneArgs` with device pointers. Launches on `stream`, allocates nothing, does not
// synchronise. The values of `scale` are not checked.
cudaError_t prune(const cpu::PruneArgs& args, cudaStream_t stream);

}  // namespace amber::cuda
