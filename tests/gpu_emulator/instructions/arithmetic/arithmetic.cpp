// Arithmetic, logic and shifts whose handlers are in tables.
#include "instructions/arithmetic/lanes.h"

namespace emu {
namespace {

bool is_float_type(const std::string& t) { return t[0] == 'f' || t.rfind("bf", 0) == 0; }

Class class_of(const std::string& type) {
  if (type == "f32") return Class::kFloat;
  if (type == "f64") return Class::kDouble;
  if (type == "f16" || type == "f16x2" || type == "bf16" || type == "bf16x2") return Class::kHalf;
  return Class::kInteger;
}

}  // namespace

bool decode_arithmetic(Decoder& d, const Instruction& in, Op& op) {
  const std::string& name = in.parts[0];
  const std::string& type = in.parts.back();
  const int width = in.parts.size() > 1 ? type_bits(type) : 0;
  const auto& o = in.operands;

  static const std::unordered_map<std::string, int> sources{
      {"add", 2},  {"sub", 2},   {"mul", 2},  {"mad", 3}, {"fma", 3},  {"div", 2},     {"rem", 2},
      {"min", 2},  {"max", 2},   {"neg", 1},  {"abs", 1}, {"and", 2},  {"or", 2},      {"xor", 2},
      {"not", 1},  {"cnot", 1},  {"shl", 2},  {"shr", 2}, {"shf", 3},  {"popc", 1},    {"clz", 1},
      {"brev", 1}, {"bfind", 1}, {"prmt", 3}, {"sad", 3}, {"rcp", 1},  {"sqrt", 1},    {"rsqrt", 1},
      {"ex2", 1},  {"lg2", 1},   {"sin", 1},  {"cos", 1}, {"tanh", 1}, {"copysign", 2}};
  const auto found = sources.find(name);
  if (found == sources.end()) return false;
  const int count = found->second;
  if (static_cast<int>(o.size()) != count + 1) return false;
  const bool is_float = is_float_type(type);
  std::string key = name;
  bool wide = false;
  for (size_t i = 1; i + 1 < in.parts.size(); ++i) {
    const std::string& p = in.parts[i];
    if (p == "rn" || p == "approx" || p == "full") continue;
    if (p == "lo" && is_float) return false;
    if (p == "wide") wide = true;
    key.append(".").append(p);
  }
  if (name == "prmt" && in.parts.size() != 2) return false;
  const bool any_type = name == "prmt" || name == "shf";
  if (!any_type && is_float) {
    if (in.has("approx") && in.has("ftz")) {
      // Approximations flush; the plain handler is close enough for them.
      key = name;
    }
    key.append(".").append(type);
  } else if (!any_type) {
    // Signedness matters for some.
    const bool by_sign = name == "div" || name == "rem" || name == "min" || name == "max" || name == "shr" ||
                         name == "neg" || name == "abs" || name == "bfind" || name == "sad" || in.has("hi") || wide;
    std::string t = type;
    if (by_sign && t[0] == 'b') t[0] = 'u';
    key.append(".").append(by_sign ? t : std::to_string(width));
  }
  op.cls = class_of(type);
  const Table& table = op.cls == Class::kInteger ? integer_table()
                       : op.cls == Class::kHalf  ? half_table()
                                                 : float_table();
  const auto handler = table.find(key);
  if (handler == table.end()) return false;
  op.run = handler->second;
  op.d = d.destination(o[0]);
  const bool shift = name == "shl" || name == "shr";
  u32* const fields[3] = {&op.a, &op.b, &op.c};
  for (int i = 0; i < count; ++i) {
    int bits = width;
    if (shift && i == 1) bits = 32;
    if (name == "prmt" || name == "shf") bits = 32;
    if (wide && i == 2) bits = 2 * width;
    *fields[i] = d.source(o[1 + i], bits);
  }
  return true;
}

}  // namespace emu
