// Words, lists, types and variables in PTX text.
#include "ptx/text.h"

#include <cstdlib>
#include <stdexcept>

namespace emu {

void parse_error(const std::string& what) { throw std::runtime_error("PTX parser: " + what); }

std::string_view trim(std::string_view s) {
  while (!s.empty() && is_space(s.front())) s.remove_prefix(1);
  while (!s.empty() && is_space(s.back())) s.remove_suffix(1);
  return s;
}

std::vector<std::string_view> split(std::string_view s, char separator) {
  std::vector<std::string_view> result;
  int depth = 0;
  size_t begin = 0;
  for (size_t i = 0; i < s.size(); ++i) {
    if (s[i] == '{' || s[i] == '[' || s[i] == '(') ++depth;
    if (s[i] == '}' || s[i] == ']' || s[i] == ')') --depth;
    if (s[i] == separator && depth == 0) {
      result.push_back(trim(s.substr(begin, i - begin)));
      begin = i + 1;
    }
  }
  if (!trim(s.substr(begin)).empty() || !result.empty()) result.push_back(trim(s.substr(begin)));
  return result;
}

std::vector<std::string> words(std::string_view s) {
  std::vector<std::string> result;
  size_t i = 0;
  while (i < s.size()) {
    while (i < s.size() && is_space(s[i])) ++i;
    const size_t begin = i;
    while (i < s.size() && !is_space(s[i])) ++i;
    if (i > begin) result.emplace_back(s.substr(begin, i - begin));
  }
  return result;
}

int type_bytes(std::string_view type) {
  if (type == "pred") return 1;
  size_t i = 0;
  while (i < type.size() && !is_digit(type[i])) ++i;
  const int bits = std::atoi(std::string(type.substr(i)).c_str());
  if (bits == 0) parse_error("type ." + std::string(type));
  return bits / 8;
}

Variable parse_variable(std::string_view s) {
  Variable v;
  std::string_view initial;
  if (const size_t equals = s.find('='); equals != std::string_view::npos) {
    initial = trim(s.substr(equals + 1));
    s = s.substr(0, equals);
  }
  int element = 0;
  const auto tokens = words(s);
  for (size_t i = 0; i < tokens.size(); ++i) {
    const std::string& t = tokens[i];
    if (t == ".align") {
      v.align = std::strtoull(tokens[++i].c_str(), nullptr, 10);
    } else if (t == ".attribute(.managed)" || t == ".visible" || t == ".weak" || t == ".common") {
    } else if (t == ".extern") {
      v.external = true;
    } else if (t[0] == '.') {
      element = type_bytes(std::string_view(t).substr(1));
    } else {
      const size_t bracket = t.find('[');
      v.name = t.substr(0, bracket);
      u64 count = 1;
      for (size_t at = bracket; at != std::string::npos; at = t.find('[', at + 1)) {
        count *= std::strtoull(t.c_str() + at + 1, nullptr, 10);
      }
      v.bytes = count * element;
    }
  }
  if (v.align < static_cast<u64>(element)) v.align = element;
  if (!initial.empty()) {
    if (initial.front() == '{') initial = initial.substr(1, initial.size() - 2);
    for (std::string_view item : split(initial, ',')) {
      const u64 value = std::strtoull(std::string(item).c_str(), nullptr, 0);
      for (int b = 0; b < element; ++b) v.initial.push_back(static_cast<u8>(value >> (8 * b)));
    }
  }
  return v;
}

}  // namespace emu
