// amber_ext._introspect: what was built, what this CPU can do, and the host core for tests.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>

#include "amber/cpu/compress/compress.h"
#include "amber/cpu/compress/widen.h"
#include "amber/cpu/prune/prune.h"
#include "amber/info/catalogue.h"
#include "build_info.h"

namespace py = pybind11;

namespace {

using Bytes = py::array_t<uint8_t, py::array::c_style | py::array::forcecast>;
using Halves = py::array_t<uint16_t, py::array::c_style>;

amber::MetadataLayout layout_named(const std::string& name) {
  if (name == "sm80") return amber::MetadataLayout::kSm80_16bit;
  if (name == "sm90") return amber::MetadataLayout::kSm90_16bit;
  throw py::value_error("layout: '" + name + "' is not known; allowed: 'sm80', 'sm90'");
}

void check(amber::Status status) {
  if (status != amber::Status::kOk) throw py::value_error(amber::describe(status));
}

py::tuple compress_2_4(const Halves& x, const Bytes& mask, const std::string& layout_name) {
  if (x.ndim() != 2 || mask.ndim() != 2 || mask.shape(0) != x.shape(0) || mask.shape(1) != x.shape(1)) {
    throw py::value_error("x and mask: both must be 2-dimensional and of one shape");
  }
  const auto layout = layout_named(layout_name);
  const py::ssize_t rows = x.shape(0), cols = x.shape(1);
  Halves values({rows, cols / 2});
  Bytes metadata(amber::metadata_bytes(layout, rows, cols));
  check(amber::cpu::compress_2_4(x.data(), mask.data(), rows, cols, 2, layout, values.mutable_data(),
                                 metadata.mutable_data()));
  return py::make_tuple(values, metadata);
}

py::tuple widen(const Halves& x, const Bytes& mask, int extra) {
  if (x.ndim() != 2 || mask.ndim() != 2 || mask.shape(0) != x.shape(0) || mask.shape(1) != x.shape(1)) {
    throw py::value_error("x and mask: both must be 2-dimensional and of one shape");
  }
  const py::ssize_t rows = x.shape(0), cols = x.shape(1), wide_cols = amber::widened_cols(cols, extra);
  Halves wide({rows, wide_cols});
  Bytes wide_mask({rows, wide_cols});
  check(amber::cpu::widen(x.data(), mask.data(), rows, cols, 2, extra, wide.mutable_data(), wide_mask.mutable_data()));
  return py::make_tuple(wide, wide_mask);
}

Halves decompress_2_4(const Halves& values, const Bytes& metadata, const std::string& layout_name) {
  const auto layout = layout_named(layout_name);
  if (values.ndim() != 2) throw py::value_error("values: must be 2-dimensional");
  const py::ssize_t rows = values.shape(0), cols = values.shape(1) * 2;
  if (metadata.size() != amber::metadata_bytes(layout, rows, cols)) {
    throw py::value_error("metadata: has " + std::to_string(metadata.size()) + " bytes; this shape needs " +
                          std::to_string(amber::metadata_bytes(layout, rows, cols)));
  }
  Halves x({rows, cols});
  check(amber::cpu::decompress_2_4(values.data(), metadata.data(), rows, cols, 2, layout, x.mutable_data()));
  return x;
}

}  // namespace

PYBIND11_MODULE(_introspect, module) {
  module.doc() = "Build information, kernel catalogue, and the host core for tests.";

  module.def("build_info", [] {
    py::dict info;
    info["version"] = AMBER_BUILD_VERSION;
    info["compiler"] = AMBER_BUILD_COMPILER;
    info["cuda"] = AMBER_BUILD_CUDA;
    info["cuda_archs"] = AMBER_BUILD_CUDA_ARCHS;
    info["cutlass"] = AMBER_BUILD_CUTLASS;
    info["torch_built_with"] = AMBER_BUILD_TORCH;
    info["torch_target"] = AMBER_BUILD_TORCH_TARGET;
    return info;
  });

  module.def("cpu_capability", [] { return amber::cpu::isa_name(amber::cpu::best_isa()); });

  module.def("kernel_catalogue", [] {
    py::list kernels;
    for (const auto& kernel : amber::kernel_catalogue()) {
      py::dict entry;
      entry["name"] = kernel.name;
      entry["device"] = kernel.device;
      entry["target"] = kernel.target;
      entry["patterns"] = kernel.patterns;
      entry["dtypes"] = kernel.dtypes;
      kernels.append(entry);
    }
    return kernels;
  });

  module.def("compress_2_4", &compress_2_4, py::arg("x"), py::arg("mask"), py::arg("layout"),
             "2:4 compression of 16-bit x [T, K] by mask [T, K]: (values [T, K/2], metadata bytes).");
  module.def("widen", &widen, py::arg("x"), py::arg("mask"), py::arg("extra"),
             "The survivors of 16-bit x [T, K] in the slots of a window layout: (wide [T, K'], mask [T, K']).");
  module.def("decompress_2_4", &decompress_2_4, py::arg("values"), py::arg("metadata"), py::arg("layout"),
             "The inverse of compress_2_4, zeros where nothing was kept.");
}
