#include "amber/cuda/masked/prune_quantize.h"

#include "amber/cuda/cuda_error.h"
#include "amber/cuda/line.h"
#include "amber/cuda/masked/prune.h"
#include "amber/cuda/masked/quantize.h"

namespace amber::cuda {
namespace {

bool prunes(const QuantizeArgs& args) { return args.pattern.n < args.pattern.m; }

}  // namespace

PruneQuantizePlan plan_prune_quantize(const QuantizeArgs& args) {
  PruneQuantizePlan plan{};
  if (args.cols % kQuantizeVector != 0) {
    plan.refusal = line("x: its last dimension K = ", args.cols, " is not a multiple of ", kQuantizeVector,
                        ", which the CUDA kernel needs");
    return plan;
  }
  const int64_t element = args.dtype == DType::kFloat32 ? 4 : 2;
  if (prunes(args)) plan.pruned_bytes = args.rows * args.cols * element;
  return plan;
}

std::string run_prune_quantize(const QuantizeArgs& args, void* pruned, cudaStream_t stream) {
  if (args.rows == 0 || args.cols == 0) return "";
  QuantizeArgs kept = args;
  if (prunes(args)) {
    // Rescaling belongs to the token's scale, where it costs no rounding of the kept values.
    const cudaError_t error = prune(
        {args.x, args.scale, pruned, nullptr, args.rows, args.cols, args.pattern, args.dtype, Rescale::kNone}, stream);
    if (error != cudaSuccess) return line("prune: ", describe_cuda_error(error));
    kept.x = pruned;
  } else {
    kept.rescale = Rescale::kNone;  // nothing is lost, so the factor is 1
  }
  const cudaError_t error = quantize_pruned(kept, args.x, stream);
  return error == cudaSuccess ? "" : line("quantize_activations: ", describe_cuda_error(error));
}

}  // namespace amber::cuda
