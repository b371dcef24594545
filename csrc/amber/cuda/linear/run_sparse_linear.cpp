#include <cuda_runtime_api.h>

#include <utility>

#include "amber/cuda/aligned.h"
#include "amber/cuda/compress/prune_compress.h"
#include "amber/cuda/compress/quantize_compress.h"
#include "amber/cuda/cuda_error.h"
#include "amber/cuda/line.h"
#include "amber/cuda/linear/sparse_linear.h"

namespace amber::cuda {
namespace {

std::string misaligned(const SparseLinearBuffers& b) {
  const std::pair<const char*, const void*> pointers[] = {{"x", b.x},
                                                          {"weight", b.weight},
                                                          {"weight_scale", b.weight_scale},
                                                          {"bias", b.bias},
                                                          {"smooth", b.smooth},
                                                          {"scale", b.scale},
                                                          {"values", b.values},
                                                          {"metadata", b.metadata},
                                                          {"token_scale", b.token_scale},
                                                          {"workspace", b.workspace},
                                                          {"output", b.output}};
  for (const auto& [name, pointer] : pointers) {
    if (!aligned(pointer)) return line(name, kReadInPlace);
  }
  return "";
}

std::string cuda_error(const char* step, cudaError_t error) {
  return error == cudaSuccess ? "" : line(step, ": ", describe_cuda_error(error));
}

std::string compress(const SparseLinearPlan& plan, const SparseLinearBuffers& b, cudaStream_t stream) {
  const SparseProblem& p = plan.problem;
  const MetadataLayout layout = plan.kernel->layout;
  if (p.operands == Operands::k16bit) {
    const PruneCompressArgs args{b.x,           b.scale,   b.values, b.metadata, p.tokens,
                                 p.in_features, plan.rows, p.dtype,  layout,     p.pattern};
    return cuda_error("prune_compress", prune_compress(args, stream));
  }
  const QuantizedType type = p.operands == Operands::kInt8 ? QuantizedType::kInt8 : QuantizedType::kE4m3;
  const bool rescale = p.rescale == Rescale::kVariance;
  const QuantizeCompressArgs args{b.x,           b.smooth,  b.scale, b.values, b.metadata, b.token_scale, p.tokens,
                                  p.in_features, plan.rows, p.dtype, layout,   type,       rescale,       p.pattern};
  return cuda_error("quantize_compress", quantize_compress(args, stream));
}

std::string multiply(const SparseLinearPlan& plan, const SparseLinearBuffers& b, cudaStream_t stream) {
  const SparseGemmArgs args = sparse_gemm_args(plan, b);
  const GemmStatus status = plan.kernel->run(args, b.workspace, stream);
  if (status == GemmStatus::kOk) return "";
  const cudaError_t error = cudaGetLastError();
  return line("kernel: '", plan.kernel->name, "' failed for T = ", args.rows, ", N = ", args.out_features,
              ", K = ", args.in_features, ": ", describe(status), " (",
              error == cudaSuccess ? "no error" : describe_cuda_error(error), ")");
}

}  // namespace

std::string run_sparse_linear(const SparseLinearPlan& plan, const SparseLinearBuffers& buffers, cudaStream_t stream) {
  if (plan.empty) return "";
  std::string error = misaligned(buffers);
  if (error.empty()) error = compress(plan, buffers, stream);
  if (error.empty()) error = multiply(plan, buffers, stream);
  return error;
}

std::string run_sparse_product(const SparseLinearPlan& plan, const SparseLinearBuffers& buffers, cudaStream_t stream) {
  if (plan.empty) return "";
  const std::string error = misaligned(buffers);
  return error.empty() ? multiply(plan, buffers, stream) : error;
}

}  // namespace amber::cuda
