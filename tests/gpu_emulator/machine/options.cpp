// GPU_EMULATOR_* in the environment.
#include "machine/options.h"

#include <cstdlib>

namespace emu {

namespace {

Options& current_options() {
  static Options options = [] {
    auto number = [](const char* name, int otherwise) {
      const char* text = std::getenv(name);
      return text && *text ? std::atoi(text) : otherwise;
    };
    Options o;
    o.async_delay = number("GPU_EMULATOR_ASYNC_DELAY", 7);
    o.lazy_wgmma = number("GPU_EMULATOR_LAZY_WGMMA", 1);
    o.check_uninitialised = number("GPU_EMULATOR_CHECK_UNINITIALISED", 1);
    o.check_races = number("GPU_EMULATOR_CHECK_RACES", 0);
    o.poison_is_uninitialised = number("GPU_EMULATOR_POISON", 1);
    o.threads = number("GPU_EMULATOR_THREADS", 1);
    o.shuffle = static_cast<u32>(number("GPU_EMULATOR_SHUFFLE", 0));
    return o;
  }();
  return options;
}

}  // namespace

const Options& Options::get() { return current_options(); }
void Options::set(const Options& options) { current_options() = options; }

}  // namespace emu
