// The PTX that nvcc embedded in a program, and the registration of its kernels.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "runtime/runtime.h"

namespace emu {
namespace {

void read_images(FatBinary& binary, const void* data) {
  const u8* p = static_cast<const u8*>(data);
  u32 magic;
  std::memcpy(&magic, p, 4);
  if (magic != 0xba55ed50u) fatal("a fat binary has an unknown format");
  u16 header;
  u64 size;
  std::memcpy(&header, p + 6, 2);
  std::memcpy(&size, p + 8, 8);
  const u8* at = p + header;
  const u8* end = at + size;
  while (at + 16 < end) {
    u16 kind;
    u32 entry_header;
    u64 payload;
    std::memcpy(&kind, at, 2);
    std::memcpy(&entry_header, at + 4, 4);
    std::memcpy(&payload, at + 8, 8);
    if (kind == 1) {
      Image image;
      image.text.assign(reinterpret_cast<const char*>(at + entry_header), payload);
      image.text.resize(std::strlen(image.text.c_str()));
      const size_t target = image.text.find(".target sm_");
      if (image.text.find(".version") == std::string::npos || target == std::string::npos)
        fatal("PTX in a fat binary is compressed; compile with --no-compress");
      image.arch = std::atoi(image.text.c_str() + target + 11);
      const size_t digits = image.text.find_first_not_of("0123456789", target + 11);
      image.specific = image.text[digits] == 'a';
      binary.images.push_back(std::move(image));
    }
    at += entry_header + payload;
  }
}

}  // namespace

Image* image_for(FatBinary& binary) {
  // The newest PTX that the device can run; architecture-specific PTX runs on its own architecture only.
  Image* best = nullptr;
  const int capability = runtime().capability;
  for (Image& image : binary.images) {
    if (image.arch > capability || (image.specific && image.arch != capability)) continue;
    if (!best || image.arch > best->arch || (image.arch == best->arch && image.specific)) best = &image;
  }
  if (best && !best->module) {
    best->module = parse_module(best->text);
    best->text.clear();
    for (const auto* variables : {&best->module->global, &best->module->constant}) {
      for (const Variable& v : *variables) {
        const u64 base = runtime().memory.allocate(std::max<u64>(v.bytes, 1), "module variable", true);
        std::memset(reinterpret_cast<void*>(base), 0, v.bytes);
        std::copy(v.initial.begin(), v.initial.end(), reinterpret_cast<u8*>(base));
        best->globals[v.name] = base;
      }
    }
  }
  return best;
}

}  // namespace emu

using namespace emu;

#pragma GCC visibility push(default)
extern "C" {

void** __cudaRegisterFatBinary(void* wrapper) {
  struct Wrapper {
    int magic, version;
    const void* data;
    void* more;
  };
  auto binary = std::make_unique<FatBinary>();
  read_images(*binary, static_cast<Wrapper*>(wrapper)->data);
  runtime().binaries.push_back(std::move(binary));
  return reinterpret_cast<void**>(runtime().binaries.back().get());
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterFunction(void** handle, const char* host, char*, const char* name, int, uint3*, uint3*, dim3*, dim3*,
                            int*) {
  auto entry = std::make_unique<KernelEntry>();
  entry->binary = reinterpret_cast<FatBinary*>(handle);
  entry->name = name;
  runtime().kernels[host] = std::move(entry);
}
char __cudaInitModule(void**) { return 1; }
void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}

}  // extern "C"
#pragma GCC visibility pop
