// One line of text from its parts, for refusals and errors.
#pragma once

#include <sstream>
#include <string>

namespace amber::cuda {

template <typename... Parts>
std::string line(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  return text.str();
}

}  // namespace amber::cuda
