// What this build contains, asked through the op library: it loads under Pythons that it was not built with.
#include <torch/csrc/stable/library.h>

#include <iomanip>
#include <utility>

#include "amber/cpu/isa.h"
#include "amber/cuda/sparse_gemm/refusal.h"
#include "amber/info/catalogue.h"
#include "build_info.h"
#include "checks.h"

namespace amber::ops {
namespace {

cuda::Operands checked_operands(const std::string& operands) {
  for (const auto known : {cuda::Operands::k16bit, cuda::Operands::kInt8, cuda::Operands::kE4m3}) {
    if (operands == cuda::describe(known)) return known;
  }
  fail("operands: '", operands, "' is not known; allowed: '16-bit', 'int8', 'e4m3'");
}

using Fields = std::vector<std::pair<const char*, std::string>>;

std::string json_object(const Fields& fields) {
  std::ostringstream json;
  const char* separator = "{";
  for (const auto& [name, text] : fields) {
    json << separator << std::quoted(name) << ": " << std::quoted(text);
    separator = ", ";
  }
  json << '}';
  return json.str();
}

// Whose product of int8 matrices is fastest on this CPU. torch's uses AMX where that is; ours does not.
const char* int8_product() { return cpu::has_vnni() && !cpu::has_amx() ? "AVX-512 VNNI" : "torch"; }

}  // namespace

std::string build_info() {
  std::ostringstream json;
  json << "{\"build\": "
       << json_object({{"version", AMBER_BUILD_VERSION},
                       {"compiler", AMBER_BUILD_COMPILER},
                       {"cuda", AMBER_BUILD_CUDA},
                       {"cuda_archs", AMBER_BUILD_CUDA_ARCHS},
                       {"cuda_kernels", AMBER_BUILD_KERNELS},
                       {"cutlass", AMBER_BUILD_CUTLASS},
                       {"torch_built_with", AMBER_BUILD_TORCH},
                       {"torch_target", AMBER_BUILD_TORCH_TARGET}})
       << ", \"cpu_capability\": " << std::quoted(cpu::isa_name(cpu::best_isa()))
       << ", \"cpu_int8_product\": " << std::quoted(int8_product()) << ", \"kernels\": [";
  const char* separator = "";
  for (const KernelEntry& kernel : kernel_catalogue()) {
    json << separator
         << json_object({{"name", kernel.name},
                         {"device", kernel.device},
                         {"target", kernel.target},
                         {"patterns", kernel.patterns},
                         {"dtypes", kernel.dtypes}});
    separator = ", ";
  }
  json << "]}";
  return json.str();
}

std::string sparse_gemm_kernels() { return sparse_gemms_json(); }

std::string sparse_gemm_refusal(std::string kernel, int64_t arch, std::string operands, std::string dtype,
                                std::string pattern, std::string rescale, int64_t tokens, int64_t out_features,
                                int64_t in_features) {
  return cuda::choose_sparse_gemm(
             kernel, {static_cast<int>(arch), checked_operands(operands), checked_dtype(dtype),
                      checked_pattern(pattern), checked_rescale(rescale), tokens, out_features, in_features})
      .refusal;
}

}  // namespace amber::ops

// Without a tensor argument there is no device to dispatch on.
STABLE_TORCH_LIBRARY_IMPL(amber, CompositeExplicitAutograd, library) {
  library.impl("build_info", TORCH_BOX(&amber::ops::build_info));
  library.impl("sparse_gemm_kernels", TORCH_BOX(&amber::ops::sparse_gemm_kernels));
  library.impl("sparse_gemm_refusal", TORCH_BOX(&amber::ops::sparse_gemm_refusal));
}
