// The body of a function: scopes, registers, labels, instructions and their operands.
#include <cstdlib>

#include "ptx/text.h"

namespace emu {
namespace {

class BodyParser {
 public:
  BodyParser(Function& function, std::string_view body) : f_(function), s_(body) { scopes_.push_back({0, {}}); }

  void run() {
    size_t i = 0;
    while (i < s_.size()) {
      while (i < s_.size() && (is_space(s_[i]) || s_[i] == ';')) {
        if (s_[i] == '\n') ++line_;
        ++i;
      }
      if (i >= s_.size()) break;
      if (s_[i] == '{') {
        scopes_.push_back({++scope_count_, {}});
        parents_[scope_count_] = scopes_[scopes_.size() - 2].id;
        ++i;
        continue;
      }
      if (s_[i] == '}') {
        scopes_.pop_back();
        ++i;
        continue;
      }
      // A label?
      size_t j = i;
      while (j < s_.size() && is_name(s_[j])) ++j;
      size_t k = j;
      while (k < s_.size() && (s_[k] == ' ' || s_[k] == '\t')) ++k;
      if (j > i && k < s_.size() && s_[k] == ':' && (k + 1 >= s_.size() || s_[k + 1] != ':') && s_[i] != '@') {
        labels_[{scopes_.back().id, std::string(s_.substr(i, j - i))}] = static_cast<int>(f_.code.size());
        i = k + 1;
        continue;
      }
      const size_t end = s_.find(';', i);
      if (end == std::string_view::npos) parse_error("a statement has no end in " + f_.name);
      const std::string_view statement = trim(s_.substr(i, end - i));
      parse_statement(statement);
      for (size_t c = i; c < end; ++c) line_ += s_[c] == '\n';
      i = end + 1;
    }
    for (size_t n = 0; n < f_.code.size(); ++n) {
      Instruction& in = f_.code[n];
      if (in.label.empty()) continue;
      int scope = pending_[n];
      for (;;) {
        if (auto found = labels_.find({scope, in.label}); found != labels_.end()) {
          in.target = found->second;
          break;
        }
        if (scope == 0) parse_error("label " + in.label + " is not defined in " + f_.name);
        scope = parents_[scope];
      }
    }
  }

 private:
  struct Scope {
    int id;
    std::map<std::string, std::string, std::less<>> names;
  };

  void declare(const std::string& name, int bits) {
    const std::string unique = scopes_.back().id ? name + "@" + std::to_string(scopes_.back().id) : name;
    scopes_.back().names[name] = unique;
    f_.registers[unique] = {bits};
  }

  std::string resolve(std::string_view name) {
    for (size_t i = scopes_.size(); i-- > 0;) {
      if (auto found = scopes_[i].names.find(name); found != scopes_[i].names.end()) return found->second;
    }
    // "%r<534>" declares %r1 .. %r533.
    size_t digits = name.size();
    while (digits > 0 && is_digit(name[digits - 1])) --digits;
    if (digits < name.size()) {
      if (auto found = ranges_.find(name.substr(0, digits)); found != ranges_.end()) {
        std::string text(name);
        f_.registers[text] = {found->second};
        scopes_[0].names[text] = text;
        return text;
      }
    }
    return {};
  }

  void parse_statement(std::string_view s) {
    if (s.empty()) return;
    if (s[0] == '.') {
      if (s.rfind(".reg", 0) == 0) return parse_registers(s.substr(4));
      if (s.rfind(".local", 0) == 0) return f_.local.push_back(parse_variable(s.substr(6)));
      if (s.rfind(".shared", 0) == 0) return f_.shared.push_back(parse_variable(s.substr(7)));
      if (s.rfind(".pragma", 0) == 0 || s.rfind(".loc", 0) == 0) return;
      parse_error("directive " + std::string(s.substr(0, 60)));
    }
    Instruction in;
    in.line = line_;
    if (s[0] == '@') {
      size_t i = 1;
      if (s[i] == '!') in.guard_negated = true, ++i;
      size_t j = i;
      while (j < s.size() && is_name(s[j])) ++j;
      in.guard = resolve(s.substr(i, j - i));
      if (in.guard.empty()) parse_error("guard " + std::string(s.substr(0, 40)));
      s = trim(s.substr(j));
    }
    size_t j = 0;
    while (j < s.size() && !is_space(s[j])) ++j;
    in.opcode = std::string(s.substr(0, j));
    size_t begin = 0;
    for (size_t i = 0; i <= in.opcode.size(); ++i) {
      if (i == in.opcode.size() || in.opcode[i] == '.') {
        in.parts.push_back(in.opcode.substr(begin, i - begin));
        begin = i + 1;
      }
    }
    const std::string_view rest = trim(s.substr(j));
    if (in.parts[0] == "bra") {
      in.label = std::string(rest);
      pending_[f_.code.size()] = scopes_.back().id;
    } else {
      for (std::string_view item : split(rest, ',')) in.operands.push_back(parse_operand(item));
    }
    f_.code.push_back(std::move(in));
  }

  void parse_registers(std::string_view s) {
    s = trim(s);
    size_t i = 0;
    while (i < s.size() && !is_space(s[i])) ++i;
    const std::string_view type = s.substr(1, i - 1);
    const int bits = type == "pred" ? 1 : type_bytes(type) * 8;
    for (std::string_view name : split(s.substr(i), ',')) {
      if (const size_t angle = name.find('<'); angle != std::string_view::npos) {
        ranges_[std::string(name.substr(0, angle))] = bits;
      } else {
        declare(std::string(name), bits);
      }
    }
  }

  Operand parse_operand(std::string_view s) {
    Operand o;
    if (s.empty()) parse_error("an empty operand in " + f_.name);
    if (s == "_") return o;
    if (s[0] == '{' || s[0] == '(') {
      o.kind = Operand::kVector;
      for (std::string_view item : split(s.substr(1, s.size() - 2), ',')) o.items.push_back(parse_operand(item));
      return o;
    }
    if (s[0] == '[') {
      o.kind = Operand::kAddress;
      const auto items = split(s.substr(1, s.size() - 2), ',');
      std::string_view base = items[0];
      size_t plus = base.find('+');
      if (plus == std::string_view::npos && base.size() > 1) plus = base.find('-', 1);
      if (plus != std::string_view::npos) {
        std::string_view number = trim(base.substr(plus));
        bool negative = false;
        while (!number.empty() && (number[0] == '+' || number[0] == '-')) {
          negative ^= number[0] == '-';
          number = trim(number.substr(1));
        }
        o.offset = static_cast<i64>(std::strtoull(std::string(number).c_str(), nullptr, 0));
        if (negative) o.offset = -o.offset;
        base = trim(base.substr(0, plus));
      }
      o.items.push_back(parse_operand(base));
      for (size_t i = 1; i < items.size(); ++i) o.items.push_back(parse_operand(items[i]));
      return o;
    }
    if (s[0] == '!') {
      o = parse_operand(trim(s.substr(1)));
      o.negated = true;
      return o;
    }
    if (s.find('|') != std::string_view::npos) {
      o.kind = Operand::kPair;
      for (std::string_view item : split(s, '|')) o.items.push_back(parse_operand(item));
      return o;
    }
    if (is_digit(s[0]) || s[0] == '-') {
      o.kind = Operand::kImmediate;
      if (s.size() > 2 && s[0] == '0' && (s[1] == 'f' || s[1] == 'F')) {
        o.float_bits = 32;
        o.value = std::strtoull(std::string(s.substr(2)).c_str(), nullptr, 16);
      } else if (s.size() > 2 && s[0] == '0' && (s[1] == 'd' || s[1] == 'D')) {
        o.float_bits = 64;
        o.value = std::strtoull(std::string(s.substr(2)).c_str(), nullptr, 16);
      } else if (s[0] == '-') {
        o.value = ~std::strtoull(std::string(s.substr(1)).c_str(), nullptr, 0) + 1;
      } else {
        o.value = std::strtoull(std::string(s).c_str(), nullptr, 0);
      }
      return o;
    }
    if (std::string name = resolve(s); !name.empty()) {
      o.kind = Operand::kRegister;
      o.name = std::move(name);
      return o;
    }
    o.kind = s[0] == '%' ? Operand::kSpecial : Operand::kSymbol;
    o.name = std::string(s);
    return o;
  }

  Function& f_;
  std::string_view s_;
  int line_ = 0, scope_count_ = 0;
  std::vector<Scope> scopes_;
  std::map<int, int> parents_;
  std::map<std::string, int, std::less<>> ranges_;
  std::map<std::pair<int, std::string>, int> labels_;
  std::map<size_t, int> pending_;
};

}  // namespace

void parse_body(Function& function, std::string_view text) { BodyParser(function, text).run(); }

}  // namespace emu
