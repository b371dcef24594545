// N:M masks and pruned copies on a GPU, for every N:M: the masked-dense path.
#pragma once

#include <cuda_runtime_api.h>

#include "amber/args.h"

namespace amber::cuda {

// Launches on `stream`, allocates nothing, does not synchronise. The values of `scale` are not checked.
cudaError_t prune(const PruneArgs& args, cudaStream_t stream);

}  // namespace amber::cuda
